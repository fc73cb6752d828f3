"""Pictures that no camera makes: of odd sizes, of one colour, of noise, of 100 megapixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sdfs.blob import container
from sdfs.blob.container import KIND_JXL, KIND_LATENT, KIND_LZ4, KIND_RAW
from sdfs.codec.autoencoders.layout import Latents
from sdfs.codec.autoencoders.runner import TILE, BundledAutoencoder
from sdfs.codec.codec import Codec
from sdfs.codec.quality.scores import compare
from sdfs.codec.resident.loading import Models
from sdfs.codec.resident.model import ResidentModel
from sdfs.settings import Effort, EncodeSettings
from tests.support.memory import taken_kib

CPU = torch.device("cpu")
ODD_SIZES = [(1, 1), (1, 300), (300, 1), (2, 17), (15, 33), (16, 16), (31, 65), (1100, 3)]


@pytest.fixture(scope="module")
def model() -> ResidentModel:
    return Models("cpu", "float32").bundled()


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec("cpu", "float32")


def part(photo: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Of the photo, repeated where it ends."""
    return np.pad(photo, ((0, max(0, height - 512)), (0, max(0, width - 512)), (0, 0)), mode="reflect")[:height, :width]


def read_back(model: ResidentModel, pixels: NDArray[np.uint8], quality: int, effort: Effort) -> None:
    """A decoder gets what the encoder saw."""
    encoded = model.encode(pixels, quality, effort)
    header = {"quality": quality, "latents_crc32": encoded.latents_crc32, **encoded.header}
    decoded = model.decode(encoded.section, header, *pixels.shape[:2])
    assert decoded.shape == pixels.shape
    np.testing.assert_array_equal(decoded, encoded.pixels)


def saved(pixels: NDArray[np.uint8], pillow_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, pillow_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("effort", Effort)
@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_a_picture_of_any_size_is_coded(size: tuple[int, int], effort: Effort, model: ResidentModel, photo: NDArray[np.uint8]) -> None:
    read_back(model, part(photo, *size), 50, effort)


@pytest.mark.parametrize("quality", [0, 100])
def test_noise_is_coded(quality: int, model: ResidentModel) -> None:
    read_back(model, np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8), quality, Effort.NORMAL)


@pytest.mark.parametrize("pillow_format", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (63, 900)], ids=str)
def test_a_thin_picture_is_kept_exactly(size: tuple[int, int], pillow_format: str, codec: Codec, photo: NDArray[np.uint8]) -> None:
    data = saved(part(photo, *size), pillow_format)
    packed = codec.encode(data, EncodeSettings())
    assert container.parse(packed).preamble.kind in (KIND_JXL, KIND_LZ4, KIND_RAW)
    assert codec.decode(packed) == data


@pytest.mark.parametrize("size", [(64, 64), (65, 127), (513, 64)], ids=str)
def test_a_size_that_is_no_multiple_of_anything_becomes_latents(size: tuple[int, int], codec: Codec, photo: NDArray[np.uint8]) -> None:
    data = saved(part(photo, *size), "BMP")
    packed = codec.encode(data, EncodeSettings())
    assert container.parse(packed).preamble.kind == KIND_LATENT
    assert len(codec.decode(packed)) == len(data)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (1, 2, 3)], ids=str)
def test_a_picture_of_one_colour_takes_next_to_nothing(colour: tuple[int, int, int], codec: Codec) -> None:
    pixels = np.full((150, 210, 3), colour, np.uint8)
    data = saved(pixels, "BMP")
    packed = codec.encode(data, EncodeSettings())
    assert container.parse(packed).preamble.kind == KIND_LATENT
    assert len(packed) < 1000
    assert compare(pixels, np.asarray(Image.open(io.BytesIO(codec.decode(packed))))).psnr > 35


def test_tiles_as_large_as_they_are_leave_no_seams(
    autoencoder: BundledAutoencoder, weights: dict[str, torch.Tensor], photo: NDArray[np.uint8]
) -> None:
    picture = part(photo, 70, 1000)
    picture = np.concatenate([picture, picture[:, ::-1]], 1)
    whole = BundledAutoencoder(weights, "", CPU, torch.float32, tile=2 * TILE)
    analysed, parts = whole.encode(picture, 50), autoencoder.encode(picture, 50)
    assert analysed.short.shape[1] > TILE
    np.testing.assert_array_equal(parts.short, analysed.short)
    assert np.abs(parts.latents - analysed.latents).max() < 1e-3
    latents = Latents(np.rint(analysed.latents * 16).astype(np.int16), analysed.short)
    difference = autoencoder.decode(latents, 50, 70, 2000).astype(int) - whole.decode(latents, 50, 70, 2000)
    assert np.abs(difference).max() <= 1


ENCODE = """
import sys
from pathlib import Path
from sdfs.codec.codec import Codec
from sdfs.settings import Effort, EncodeSettings
Path(sys.argv[2]).write_bytes(Codec("cpu").encode(Path(sys.argv[1]).read_bytes(), EncodeSettings(effort=Effort.FAST)))
print(peak())
"""
DECODE = """
import sys
from pathlib import Path
from sdfs.codec.codec import Codec
Path(sys.argv[1]).write_bytes(Codec("cpu").decode(Path(sys.argv[2]).read_bytes()))
print(peak())
"""
PANORAMA = (4200, 24000)  # 100.8 megapixels: 288 MiB of pixels
ENCODE_KIB, DECODE_KIB = 5 << 20, 2 << 20


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_panorama_of_100_megapixels_takes_bounded_memory(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    height, width = PANORAMA
    picture = np.tile(photo, (-(-height // 512), -(-width // 512), 1))[:height, :width]
    source, blob = tmp_path / "panorama.jpg", tmp_path / "panorama.sdfs"
    source.write_bytes(data := saved(picture, "JPEG", quality=92))
    assert taken_kib(ENCODE, source, blob) < ENCODE_KIB
    head = container.parse(blob.read_bytes())
    assert head.preamble.kind == KIND_LATENT
    assert taken_kib(DECODE, source, blob) < DECODE_KIB
    assert source.stat().st_size == len(data)
