"""A HEIC's way into a blob whose render is a JPEG."""

from __future__ import annotations

import hashlib
import io
import re

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT
from sdfs.codec.codec import Codec
from sdfs.codec.making import LARGEST_SHARE
from sdfs.codec.pictures import as_jpeg
from sdfs.codec.quality.scores import compare
from sdfs.errors import NotAPicture
from sdfs.settings import DEFAULTS, EncodeSettings
from tests.support.heif_samples import CASES, exif, heic, needs_cases, with_gain_map

CONVERTIBLE = ["8-bit.heic", "8-bit-444.heic", "turned.heic", "thumbnail.heic", "gain-map.heic", "8-bit.avif"]
SETTINGS = EncodeSettings(50)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def data(photo: NDArray[np.uint8]) -> bytes:
    return heic(Image.fromarray(photo[:300, :420]), quality=90, exif=b"Exif\0\0" + exif())


@pytest.fixture(scope="module")
def blob(codec: Codec, data: bytes) -> bytes:
    return codec.convert(data, SETTINGS)


def pixels(jpeg: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        return np.asarray(image)


def test_its_original_is_the_heic_and_its_render_a_jpeg(codec: Codec, data: bytes, blob: bytes) -> None:
    parsed = container.parse(blob)
    header = parsed.header
    assert parsed.preamble.kind == KIND_LATENT, header
    assert (header["format"], header["original_size"], header["original_sha256"]) == ("jpeg", len(data), hashlib.sha256(data).hexdigest())
    render = codec.decode(blob)
    assert len(render) == parsed.preamble.rendered_size == as_jpeg.convert(data)[1]
    before = np.asarray(pillow_heif.open_heif(data))
    assert compare(before, pixels(render)).psnr == pytest.approx(header["scores"]["psnr"], abs=0.01)


def test_the_latents_are_those_of_the_heics_pixels(codec: Codec, data: bytes, blob: bytes) -> None:
    """No JPEG lies between."""
    parsed = container.parse(blob)
    model = codec._models.named(SETTINGS.model)
    assert parsed.header["autoencoder"] == model.id
    encoded = model.encode(np.asarray(pillow_heif.open_heif(data)), parsed.header["quality"], SETTINGS.effort)
    assert encoded.section == parsed.sections["latents"]


def test_its_render_is_taken_back_as_it_was(codec: Codec, blob: bytes) -> None:
    """Copied out and in, it loses nothing again."""
    render = codec.decode(blob)
    again = codec.encode(render, SETTINGS, reference=blob)
    assert container.parse(again).sections["latents"] == container.parse(blob).sections["latents"]
    assert np.array_equal(pixels(codec.decode(again)), pixels(render))


def test_the_gain_map_is_kept_byte_for_byte(codec: Codec) -> None:
    data = with_gain_map()
    picture, size = as_jpeg.convert(data)
    render = codec.decode(codec.convert(data, EncodeSettings(50, min_psnr=0, min_ms_ssim=0)))
    assert (len(render), render[-len(picture.behind) :]) == (size, picture.behind)


@needs_cases
@pytest.mark.parametrize("name", CONVERTIBLE)
def test_a_case_becomes_latents(codec: Codec, name: str) -> None:
    data = (CASES / name).read_bytes()
    parsed = container.parse(packed := codec.convert(data, SETTINGS))
    assert (parsed.preamble.kind, parsed.header["format"]) == (KIND_LATENT, "jpeg"), parsed.header
    assert len(parsed.sections["latents"]) <= LARGEST_SHARE * len(data)
    assert len(packed) < len(data)


@needs_cases
@pytest.mark.parametrize("name", ["10-bit.heic", "alpha.avif", "motion.heic", "two-images.heic", "sequence.avif"])
def test_what_cannot_be_kept_whole_stays_exact(codec: Codec, name: str) -> None:
    data = (CASES / name).read_bytes()
    parsed = container.parse(blob := codec.convert(data, SETTINGS))
    assert (parsed.header["format"], codec.decode(blob)) == (name.rpartition(".")[2], data)
    assert parsed.header["reason"] == container.parse(codec.encode(data, SETTINGS)).header["reason"]


@needs_cases
def test_one_that_is_small_already_stays_a_heic(codec: Codec) -> None:
    data = (CASES / "grid.heic").read_bytes()
    parsed = container.parse(blob := codec.convert(data, DEFAULTS))
    assert (parsed.header["format"], codec.decode(blob)) == ("heic", data)
    assert re.search(r"takes \d+ of \d+ bytes", parsed.header["reason"])


def test_one_that_latents_would_harm_stays_a_heic(codec: Codec, data: bytes) -> None:
    blob = container.parse(codec.convert(data, EncodeSettings(50, min_psnr=90)))
    assert (blob.header["format"], blob.preamble.rendered_size) == ("heic", len(data))
    assert "want 90 dB" in blob.header["reason"]


def test_one_that_is_cut_off_is_no_picture(codec: Codec, data: bytes) -> None:
    with pytest.raises(NotAPicture):
        codec.convert(data[:-1000], SETTINGS)
