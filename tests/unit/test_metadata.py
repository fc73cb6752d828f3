"""The metadata section: everything comes back, little is taken, nothing claimed is believed."""

from __future__ import annotations

import hashlib
import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sdfs.blob.dictionaries import metadata_dictionary
from sdfs.blob.metadata import pack_metadata, unpack_metadata
from sdfs.codec.pictures.picture import probe
from sdfs.errors import DamagedError


def picture(pillow_format: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, pillow_format, **options)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("metadata", [b"", b"a", bytes(100_000), np.random.default_rng(0).bytes(100_000)], ids=len)
def test_everything_comes_back(metadata: bytes) -> None:
    assert unpack_metadata(pack_metadata(metadata), len(metadata)) == metadata


def test_the_dictionary_never_changes() -> None:
    assert hashlib.sha256(metadata_dictionary()).hexdigest() == "77ee13c5fc7ab79b96507968f169c0b513026a9cc11bd219e4b196808cd81e94"


@pytest.mark.parametrize("quality", [75, 85, 92, 95, 100])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_plain_jpeg_has_next_to_none(quality: int, progressive: bool) -> None:
    metadata = probe(picture("JPEG", quality=quality, progressive=progressive)).metadata
    assert len(metadata) > 150
    assert len(pack_metadata(metadata)) < 15


def test_a_plain_png_has_little() -> None:
    assert len(pack_metadata(probe(picture("PNG")).metadata)) < 30


def test_the_usual_profile_is_in_the_dictionary() -> None:
    start = metadata_dictionary().index(b"Lino") - 4
    profile = metadata_dictionary()[start : start + 3144]
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    assert len(pack_metadata(probe(picture("JPEG", quality=85, icc_profile=profile)).metadata)) < 60


@pytest.mark.parametrize("size", [-1, 0, 2, 4, 1 << 40])
def test_a_wrong_size_is_damage(size: int) -> None:
    with pytest.raises(DamagedError):
        unpack_metadata(pack_metadata(b"abc"), size)


def test_what_is_left_after_the_end_is_damage() -> None:
    with pytest.raises(DamagedError):
        unpack_metadata(pack_metadata(b"abc") + b"d", 3)


def test_a_stream_without_its_end_is_damage() -> None:
    with pytest.raises(DamagedError):
        unpack_metadata(pack_metadata(bytes(range(256)))[:-1], 256)


def test_a_bomb_is_damage() -> None:
    compressor = zlib.compressobj(9, wbits=-15)
    bomb = compressor.compress(bytes(100_000_000)) + compressor.flush()
    with pytest.raises(DamagedError):
        unpack_metadata(bomb, 1000)
