"""What lies behind a picture: every byte comes back, little is taken, nothing claimed is believed."""

from __future__ import annotations

import struct
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdfs.codec.pictures import alpha, behind
from sdfs.errors import DamagedError, Unsuitable
from tests.support.picture_samples import photo, save, suitable

JPEG = suitable("jpeg of a camera")
NOISE = np.random.default_rng(0).bytes(30_000)
TAILS = {
    "nothing": b"",
    "a byte": b"\0",
    "zeros": bytes(44_758),
    "fill": b"\xff" * 3000,
    "a preview": JPEG,
    "a preview between fills": bytes(1000) + JPEG + b"\xff" * 1000,
    "two previews and a vendor's index": JPEG + suitable("jpeg grey") + b'SEFH {"index": [1, 2]}' + struct.pack("<IIII", 1, 2, 3, 4),
    "noise": NOISE,
    "the beginning of a preview": JPEG[: len(JPEG) // 2],
    "a preview that libjxl refuses": save(photo("CMYK"), "JPEG"),
    "text": b"vendor metadata, in plain words. " * 200,
}


@pytest.mark.parametrize("name", TAILS)
def test_every_byte_comes_back(name: str) -> None:
    assert behind.unpack(behind.pack(TAILS[name]), len(TAILS[name])) == TAILS[name]


@given(st.lists(st.sampled_from([b"\0" * 300, b"\xff\xd8\xff", b"\xff\xd9", NOISE[:500], suitable("jpeg grey")]), max_size=6).map(b"".join))
def test_whatever_is_put_together_comes_back(data: bytes) -> None:
    assert behind.unpack(behind.pack(data), len(data)) == data


@pytest.mark.parametrize(("name", "most"), [("zeros", 10), ("fill", 10), ("a byte", 10), ("text", 100), ("noise", len(NOISE) + 9)])
def test_it_takes_little(name: str, most: int) -> None:
    assert len(behind.pack(TAILS[name])) <= most


def test_previews_become_jpeg_xl() -> None:
    assert len(behind.pack(TAILS["a preview between fills"])) < 0.9 * len(JPEG)


def test_many_beginnings_of_jpegs_take_no_longer_than_one() -> None:
    """Each could be walked to the end of the file; the sum of that is bounded."""
    data = b"\xff\xd8\xff\xda\0\x02" * 200_000 + NOISE * 100
    began = time.monotonic()
    behind.pack(data)
    assert time.monotonic() - began < 30  # alone: under a second


def test_a_fill_that_no_reader_would_believe_is_refused() -> None:
    with pytest.raises(Unsuitable, match="fill"):
        behind.pack(bytes(1 << 25))


BAD = {
    "more than claimed": struct.pack("<BII", 1, 100, 1) + b"\0",
    "less than claimed": struct.pack("<BII", 1, 10, 1) + b"\0",
    "a bomb": struct.pack("<BII", 1, 0xFFFFFFFF, 1) + b"\0",
    "a fill of nothing": struct.pack("<BII", 1, 50, 0),
    "an unknown kind": struct.pack("<BII", 9, 50, 0),
    "cut off": struct.pack("<BII", 0, 50, 50) + bytes(49),
    "cut off in a head": b"\0\0",
    "no JPEG XL": struct.pack("<BII", 2, 50, 20) + bytes(20),
    "no deflated data": struct.pack("<BII", 3, 50, 4) + b"abcd",
    "other deflated data": struct.pack("<BII", 3, 50, len(behind.pack(b"a" * 200)[9:])) + behind.pack(b"a" * 200)[9:],
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_told(name: str) -> None:
    with pytest.raises(DamagedError):
        behind.unpack(BAD[name], 50)


@pytest.mark.parametrize("size", [-1, 0, 1 << 40])
def test_another_size_is_damage(size: int) -> None:
    with pytest.raises(DamagedError):
        behind.unpack(behind.pack(b"some bytes"), size)


@given(st.data())
def test_a_changed_byte_raises_nothing_else(data: st.DataObject) -> None:
    packed = behind.pack(TAILS["two previews and a vendor's index"])
    at = data.draw(st.integers(0, len(packed) - 1))
    changed = packed[:at] + bytes([data.draw(st.integers(0, 255))]) + packed[at + 1 :]
    with suppress(DamagedError):
        behind.unpack(changed, len(TAILS["two previews and a vendor's index"]))


def opacities() -> dict[str, np.ndarray]:
    soft = np.asarray(photo("L"))[:100, :120]
    return {
        "opaque": np.full((70, 90), 255, np.uint8),
        "clear": np.zeros((70, 90), np.uint8),
        "soft": soft,
        "hard": (soft > 99) * np.uint8(255),
    }


@pytest.mark.parametrize("name", opacities())
def test_opacity_comes_back(name: str) -> None:
    plane = opacities()[name]
    packed = alpha.pack(plane)
    assert np.array_equal(alpha.unpack(packed, *plane.shape), plane)
    assert len(packed) == 1 or name in ("soft", "hard")


@pytest.mark.parametrize("packed", [b"", b"\xff\x0a", bytes(30)])
def test_what_is_no_opacity_is_damage(packed: bytes) -> None:
    with pytest.raises(DamagedError):
        alpha.unpack(packed, 100, 120)


def test_opacity_of_other_dimensions_is_damage() -> None:
    packed = alpha.pack(opacities()["soft"])
    with pytest.raises(DamagedError, match="120 x 100"):
        alpha.unpack(packed, 100_000, 120)
