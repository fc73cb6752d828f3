"""The bundled model, loaded once."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from sdfs.autoencoders.runner import BundledAutoencoder
from sdfs.latent_coding import LearnedCoder


@pytest.fixture(scope="session")
def weights() -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load(resources.files("sdfs").joinpath("weights/bundled.safetensors").read_bytes())
    return tensors


@pytest.fixture(scope="session")
def autoencoder(weights: dict[str, torch.Tensor]) -> BundledAutoencoder:
    return BundledAutoencoder(weights, "0" * 64, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def coder(weights: dict[str, torch.Tensor]) -> LearnedCoder:
    return LearnedCoder(weights)


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """(512, 512, 3): scikit-image's astronaut."""
    import skimage.data

    picture: NDArray[np.uint8] = skimage.data.astronaut()
    return picture
