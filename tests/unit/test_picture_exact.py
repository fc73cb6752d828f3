"""Exact wrapping: any bytes, back bit for bit."""

from __future__ import annotations

from contextlib import suppress

import lz4.frame
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdfs.blob.container import KIND_JXL, KIND_LATENT, KIND_LZ4, KIND_RAW
from sdfs.codec.pictures.exact import unwrap_exact, wrap_exact
from sdfs.codec.pictures.formats import jpegxl
from sdfs.errors import DamagedError
from tests.support.picture_samples import SUITABLE, photo, save, suitable

JPEG = suitable("jpeg with metadata")


@pytest.mark.parametrize("name", SUITABLE)
def test_files_come_back_bit_for_bit(name: str) -> None:
    kind, payload = wrap_exact(suitable(name))
    assert unwrap_exact(kind, payload, len(suitable(name))) == suitable(name)
    assert len(payload) <= len(suitable(name))


@given(st.binary(max_size=300))
def test_any_bytes_come_back(data: bytes) -> None:
    kind, payload = wrap_exact(data)
    assert unwrap_exact(kind, payload, len(data)) == data


def test_jpeg_becomes_jpeg_xl() -> None:
    for data in (JPEG, JPEG + b"behind", save(photo().resize((60, 200)), "JPEG")):
        kind, payload = wrap_exact(data)
        assert (kind, unwrap_exact(kind, payload, len(data))) == (KIND_JXL, data)
        assert len(payload) < len(data)


def test_what_lz4_shrinks_becomes_an_lz4_frame() -> None:
    flat = save(photo().quantize(4).convert("RGB"), "BMP")
    assert wrap_exact(flat)[0] == KIND_LZ4


@pytest.mark.parametrize("data", [b"", suitable("png")], ids=["nothing", "png"])
def test_what_nothing_shrinks_stays_raw(data: bytes) -> None:
    assert wrap_exact(data) == (KIND_RAW, data)


def test_half_a_jpeg_is_not_transcoded() -> None:
    assert jpegxl.transcode(JPEG[: len(JPEG) // 2]) is None


def test_a_jpeg_that_claims_more_than_it_holds_is_not_transcoded() -> None:
    bomb = suitable("jpeg 4:2:0").replace(bytes([8, 0, 167, 0, 197]), bytes([8, 0xFF, 0xDC, 0xFF, 0xDC]), 1)
    assert jpegxl.transcode(bomb) is None


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("kind", [KIND_JXL, KIND_LZ4, KIND_RAW])
def test_another_size_than_was_wrapped_is_damage(kind: int, off: int) -> None:
    payload = {KIND_JXL: jpegxl.transcode(JPEG) or b"", KIND_LZ4: lz4.frame.compress(JPEG), KIND_RAW: JPEG}[kind]
    assert unwrap_exact(kind, payload, len(JPEG)) == JPEG
    with pytest.raises(DamagedError):
        unwrap_exact(kind, payload, len(JPEG) + off)


def test_latents_are_no_exact_kind() -> None:
    with pytest.raises(DamagedError):
        unwrap_exact(KIND_LATENT, b"", 0)


def test_an_lz4_bomb_is_damage() -> None:
    with pytest.raises(DamagedError):
        unwrap_exact(KIND_LZ4, lz4.frame.compress(bytes(100_000_000)), 1000)


def test_two_lz4_frames_are_damage() -> None:
    with pytest.raises(DamagedError):
        unwrap_exact(KIND_LZ4, lz4.frame.compress(b"ab") + lz4.frame.compress(b""), 2)


def test_a_jpeg_xl_of_dimensions_that_its_size_belies_is_damage() -> None:
    with pytest.raises(DamagedError, match="pixels in"):
        unwrap_exact(KIND_JXL, jpegxl.transcode(JPEG) or b"", 10)


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (70, 200), (512, 384), (300, 8), (1000, 3), (3, 1000)])
def test_the_dimensions_of_a_jpeg_xl_are_read_without_decoding(size: tuple[int, int]) -> None:
    payload = jpegxl.transcode(save(photo().resize(size), "JPEG")) or b""
    assert jpegxl.dimensions(payload) == size


@given(st.data())
def test_a_damaged_payload_raises_nothing_else(data: st.DataObject) -> None:
    source = suitable("jpeg grey")
    for kind, payload in ((KIND_JXL, jpegxl.transcode(source) or b""), (KIND_LZ4, lz4.frame.compress(source))):
        at = data.draw(st.integers(0, len(payload) - 1))
        changed = payload[:at] + bytes([data.draw(st.integers(0, 255))]) + payload[at + 1 :]
        with suppress(DamagedError):
            assert len(unwrap_exact(kind, changed, len(source))) == len(source)


def test_random_bytes_are_no_payload() -> None:
    noise = np.random.default_rng(0).bytes(1000)
    for kind in (KIND_JXL, KIND_LZ4):
        with pytest.raises(DamagedError):
            unwrap_exact(kind, noise, 1000)
