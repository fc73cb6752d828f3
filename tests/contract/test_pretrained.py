"""sdfs.autoencoders.pretrained: every class of diffusers' image autoencoders, small and with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from sdfs.autoencoders.pretrained import PretrainedAutoencoder
from sdfs.errors import ModelError

CPU = torch.device("cpu")


def kl(**changes: Any) -> Any:
    names = {"block": ["DownEncoderBlock2D"] * 3, "up": ["UpDecoderBlock2D"] * 3}
    config = {"down_block_types": names["block"], "up_block_types": names["up"], "block_out_channels": [8, 8, 16], "norm_num_groups": 4}
    return AutoencoderKL(**{**config, "latent_channels": 4, "layers_per_block": 1, "scaling_factor": 0.2, **changes})


def tiny() -> Any:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
    )


def dc() -> Any:
    return AutoencoderDC(
        latent_channels=8,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        scaling_factor=0.4,
    )


MODELS: dict[str, tuple[Callable[[], Any], int, int]] = {
    "AutoencoderKL": (kl, 4, 4),
    "AutoencoderTiny": (tiny, 4, 4),
    "AutoencoderDC": (dc, 2, 8),
}


def saved(make: Callable[[], Any], folder: Path) -> Path:
    torch.manual_seed(1)
    make().save_pretrained(folder, safe_serialization=True)
    return folder


def load(folder: Path) -> PretrainedAutoencoder:
    return PretrainedAutoencoder.load(folder, "test", "0" * 64, device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    import skimage

    return np.ascontiguousarray(skimage.data.astronaut()[:150, :210])


@pytest.mark.parametrize("name", MODELS)
def test_latents_have_the_shape_that_factor_and_channels_say(name: str, tmp_path: Path, picture: np.ndarray) -> None:
    make, factor, channels = MODELS[name]
    model = load(saved(make, tmp_path))
    assert (model.factor, model.channels) == (factor, channels)
    latents = model.encode(picture)
    assert latents.shape == (channels, -(-150 // factor), -(-210 // factor))
    assert latents.dtype == np.float32
    decoded = model.decode(latents, 150, 210)
    assert (decoded.shape, decoded.dtype) == (picture.shape, np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (7, 130)])
def test_small_pictures_are_padded(size: tuple[int, int], tmp_path: Path, picture: np.ndarray) -> None:
    model = load(saved(kl, tmp_path))
    part = picture[: size[0], : size[1]]
    assert model.decode(model.encode(part), *part.shape[:2]).shape == part.shape


def test_latents_are_normalised_as_the_configuration_says(tmp_path: Path, picture: np.ndarray) -> None:
    one = load(saved(kl, tmp_path / "a")).encode(picture)
    other = load(saved(lambda: kl(scaling_factor=0.4, shift_factor=0.5), tmp_path / "b")).encode(picture)
    assert np.allclose(other, (one / 0.2 - 0.5) * 0.4, atol=1e-4)


def test_the_grid_changes_the_result_so_that_it_has_to_be_told(tmp_path: Path, picture: np.ndarray) -> None:
    """A model with attention and group normalisation sees only its tile."""
    model = load(saved(kl, tmp_path))
    latents = model.encode(picture)
    assert not np.array_equal(model.decode(latents, 150, 210), model.decode(latents, 150, 210, (16, 4)))
    assert np.array_equal(model.decode(latents, 150, 210), model.decode(latents, 150, 210, model.tile))


class TestWhatIsRefused:
    def test_pickled_weights(self, tmp_path: Path) -> None:
        folder = saved(kl, tmp_path)
        weights = folder / "diffusion_pytorch_model.safetensors"
        torch.save(load_file(weights), folder / "diffusion_pytorch_model.bin")
        weights.unlink()
        with pytest.raises(ModelError, match="cannot be loaded"):
            load(folder)

    def test_a_class_that_is_no_image_autoencoder(self, tmp_path: Path) -> None:
        folder = saved(kl, tmp_path)
        change(folder, _class_name="UNet2DModel")
        with pytest.raises(ModelError, match="UNet2DModel"):
            load(folder)

    def test_weights_of_another_shape(self, tmp_path: Path) -> None:
        folder = saved(kl, tmp_path)
        change(folder, latent_channels=3)
        with pytest.raises(ModelError, match=r"cannot be loaded|do not fit"):
            load(folder)

    def test_weights_that_are_missing(self, tmp_path: Path) -> None:
        folder = saved(kl, tmp_path)
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        weights["extra"] = weights.pop("decoder.conv_out.bias").repeat(3)
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=r"decoder\.conv_out\.bias"):
            load(folder)

    def test_a_configuration_that_claims_gigabytes(self, tmp_path: Path) -> None:
        folder = saved(kl, tmp_path)
        change(folder, block_out_channels=[4096, 8192, 16384])
        with pytest.raises(ModelError, match="claims"):
            load(folder)

    def test_a_configuration_that_claims_millions_of_layers(self, tmp_path: Path) -> None:
        folder = saved(kl, tmp_path)
        change(folder, layers_per_block=10**6)
        with pytest.raises(ModelError, match="layers_per_block"):
            load(folder)

    def test_weights_that_are_no_numbers(self, tmp_path: Path) -> None:
        folder = saved(kl, tmp_path)
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        weights["decoder.conv_out.bias"][:] = float("nan")
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="no numbers"):
            load(folder)

    def test_latents_of_another_model(self, tmp_path: Path) -> None:
        model = load(saved(kl, tmp_path))
        with pytest.raises(ValueError, match="of 4 channels"):
            model.decode(np.zeros((16, 4, 4), np.float32), 16, 16)

    @pytest.mark.parametrize("grid", [(0, 0), (100, 90), (1 << 20, 4)])
    def test_a_grid_that_no_encoder_makes(self, tmp_path: Path, grid: tuple[int, int]) -> None:
        model = load(saved(kl, tmp_path))
        with pytest.raises(ValueError, match="tiles of"):
            model.decode(np.zeros((4, 4, 4), np.float32), 16, 16, grid)


def change(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
