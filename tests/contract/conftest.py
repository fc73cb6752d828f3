"""What is loaded or made once: the bundled model, small models of diffusers', a photo."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load

from sdfs.codec.autoencoders.runner import BundledAutoencoder
from sdfs.codec.coding.learned_coder import LearnedCoder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow where other programs run: 20 times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def weights() -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load(resources.files("sdfs").joinpath("codec/weights/bundled.safetensors").read_bytes())
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


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three, to train on; not to be changed."""
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.jpg", quality=95)
    return folder


@pytest.fixture(scope="session")
def crops(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of four crops of 256 × 256, to train on."""
    from training.crops import make

    file = tmp_path_factory.mktemp("crops") / "crops.npy"
    make(file, [photos], count=4, size=256, drawn=0.0, seed=0, apart=False)
    return file


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of every class of diffusers' that SDFS can use; not to be changed."""
    from tests.support.small_models import MODELS, saved

    folder = tmp_path_factory.mktemp("models")
    return {name: saved(make, folder / name) for name, (make, *_) in MODELS.items()}


@pytest.fixture(scope="session")
def small_picture(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(90, 130, 3), of no whole number of latent positions."""
    return np.ascontiguousarray(photo[60:150, 100:230])
