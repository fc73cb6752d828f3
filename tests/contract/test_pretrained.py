"""sdfs.codec.autoencoders.pretrained: every class of diffusers' image autoencoders, small and with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from sdfs.codec.autoencoders import pretrained
from sdfs.codec.autoencoders.pretrained import PretrainedAutoencoder
from sdfs.errors import ModelError
from tests.support.small_models import MODELS, kl, saved

CPU = torch.device("cpu")


def load(folder: Path) -> PretrainedAutoencoder:
    return PretrainedAutoencoder.load(folder, "test", "0" * 64, device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def model(model_folders: dict[str, Path]) -> PretrainedAutoencoder:
    """With attention and group normalisation, as Stable Diffusion's has them."""
    return load(model_folders["AutoencoderKL"])


@pytest.fixture
def folder(model_folders: dict[str, Path], tmp_path: Path) -> Path:
    """One that can be spoilt."""
    return Path(shutil.copytree(model_folders["AutoencoderKL"], tmp_path / "copy"))


@pytest.mark.parametrize("name", MODELS)
def test_latents_have_the_shape_that_factor_and_channels_say(
    name: str, model_folders: dict[str, Path], small_picture: NDArray[np.uint8]
) -> None:
    _, factor, channels = MODELS[name]
    model = load(model_folders[name])
    assert (model.factor, model.channels) == (factor, channels)
    latents = model.encode(small_picture)
    assert latents.shape == (channels, -(-90 // factor), -(-130 // factor))
    assert latents.dtype == np.float32
    decoded = model.decode(latents, 90, 130)
    assert (decoded.shape, decoded.dtype) == (small_picture.shape, np.uint8)


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_on_the_cpu_takes_over_where_memory_is_short(
    name: str, model_folders: dict[str, Path], small_picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(model_folders[name])
    latents = model.encode(small_picture)
    expected = model.decode(latents, 90, 130)

    def no_memory(*args: Any) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    monkeypatch.setattr(pretrained, "fastest_dtype", lambda: torch.float32)
    model._placed.model.decoder.register_forward_pre_hook(no_memory)  # of the first one, whatever device it is on
    assert np.abs(model.decode(latents, 90, 130).astype(int) - expected).max() <= 1
    assert np.abs(model.encode(small_picture) - latents).max() < 1e-4

    model._placed.model.decoder.register_forward_pre_hook(no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        model.decode(latents, 90, 130)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (7, 130)])
def test_small_pictures_are_padded(size: tuple[int, int], model: PretrainedAutoencoder, small_picture: NDArray[np.uint8]) -> None:
    part = small_picture[: size[0], : size[1]]
    assert model.decode(model.encode(part), *part.shape[:2]).shape == part.shape


def test_latents_are_normalised_as_the_configuration_says(
    model: PretrainedAutoencoder, tmp_path: Path, small_picture: NDArray[np.uint8]
) -> None:
    other = load(saved(lambda: kl(scaling_factor=0.4, shift_factor=0.5), tmp_path))
    assert np.allclose(other.encode(small_picture), (model.encode(small_picture) / 0.2 - 0.5) * 0.4, atol=1e-4)


def test_the_grid_changes_the_result_so_that_it_has_to_be_told(model: PretrainedAutoencoder, small_picture: NDArray[np.uint8]) -> None:
    """A model with attention and group normalisation sees only its tile."""
    latents = model.encode(small_picture)
    decoded = model.decode(latents, 90, 130)
    assert not np.array_equal(decoded, model.decode(latents, 90, 130, (16, 4)))
    assert np.array_equal(decoded, model.decode(latents, 90, 130, model.tile))


class TestWhatIsRefused:
    def test_pickled_weights(self, folder: Path) -> None:
        weights = folder / "diffusion_pytorch_model.safetensors"
        torch.save(load_file(weights), folder / "diffusion_pytorch_model.bin")
        weights.unlink()
        with pytest.raises(ModelError, match="cannot be loaded"):
            load(folder)

    def test_a_class_that_is_no_image_autoencoder(self, folder: Path) -> None:
        change(folder, _class_name="UNet2DModel")
        with pytest.raises(ModelError, match="UNet2DModel"):
            load(folder)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        change(folder, latent_channels=3)
        with pytest.raises(ModelError, match=r"cannot be loaded|do not fit"):
            load(folder)

    def test_weights_that_are_missing(self, folder: Path) -> None:
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        weights["extra"] = weights.pop("decoder.conv_out.bias").repeat(3)
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=r"decoder\.conv_out\.bias"):
            load(folder)

    def test_a_configuration_that_claims_gigabytes(self, folder: Path) -> None:
        change(folder, block_out_channels=[4096, 8192, 16384])
        with pytest.raises(ModelError, match="claims"):
            load(folder)

    def test_a_configuration_that_claims_what_other_files_hold(self, folder: Path) -> None:
        change(folder, layers_per_block=3)
        save_file({"padding": torch.zeros(1 << 16)}, folder / "other.safetensors")
        with pytest.raises(ModelError, match="claims"):
            load(folder)

    def test_a_configuration_that_claims_millions_of_layers(self, folder: Path) -> None:
        change(folder, layers_per_block=10**6)
        with pytest.raises(ModelError, match="layers_per_block"):
            load(folder)

    def test_weights_that_are_no_numbers(self, folder: Path) -> None:
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        weights["decoder.conv_out.bias"][:] = float("nan")
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="no numbers"):
            load(folder)

    def test_latents_of_another_model(self, model: PretrainedAutoencoder) -> None:
        with pytest.raises(ValueError, match="of 4 channels"):
            model.decode(np.zeros((16, 4, 4), np.float32), 16, 16)

    @pytest.mark.parametrize("grid", [(0, 0), (100, 90), (1 << 20, 4)])
    def test_a_grid_that_no_encoder_makes(self, model: PretrainedAutoencoder, grid: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="tiles of"):
            model.decode(np.zeros((4, 4, 4), np.float32), 16, 16, grid)


def change(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
