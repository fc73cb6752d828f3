"""Hostile input: whatever the bytes, `probe` raises nothing but NotAPicture and Unsuitable."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdfs.codec.pictures.picture import find_marker, probe, render
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable
from tests.support.picture_samples import MARKER, SUITABLE, suitable

SMALL = [name for name in SUITABLE if "camera" not in name]
HEADS = [
    b"\0\0\0\x18ftypheic",
    b"\0\0\0\x18ftypavif",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\0\0\0\0WEBP",
    b"BM\0\0\0\0\0\0\0\0\0\0\0\0",
    b"II*\0",
    b"MM\0*",
]
EDGES = st.sampled_from([0, 1, 2, 63, 64, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])


def judge(data: bytes) -> None:
    find_marker(data)
    with suppress(NotAPicture, Unsuitable, DoesNotFit):
        assert len(render(probe(data), len(data), MARKER)) == len(data)


@st.composite
def mutations(draw: st.DrawFn, names: Sequence[str] = SMALL) -> bytes:
    """A suitable file with a few changes, most of them where its structure is."""
    data = bytearray(suitable(draw(st.sampled_from(names))))
    for _ in range(draw(st.integers(1, 4))):
        reach = draw(st.sampled_from([64, 700, len(data)]))
        at = draw(st.integers(0, min(reach, len(data)) - 1))
        match draw(st.sampled_from(["byte", "number", "delete", "insert", "cut"])):
            case "byte":
                data[at] = draw(st.integers(0, 255))
            case "number":
                data[at : at + 4] = struct.pack(draw(st.sampled_from(["<I", ">I"])), draw(EDGES))
            case "delete":
                del data[at : at + draw(st.integers(1, 50))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=20))
            case "cut":
                del data[max(at, 1) :]
        if not data:
            break
    return bytes(data)


def with_right_checksums(png: bytes) -> bytes:
    """So that damage reaches what lies behind a PNG's checksums."""
    repaired, at = bytearray(png), 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        repaired[end : end + 4] = struct.pack(">I", zlib.crc32(png[at + 4 : end])) if end + 4 <= len(png) else b""
        at = end + 4
    return bytes(repaired)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_mutated_files(data: bytes) -> None:
    judge(data)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(mutations([name for name in SMALL if name.startswith("png")]))
def test_mutated_png_files_with_right_checksums(data: bytes) -> None:
    judge(with_right_checksums(data))


@settings(max_examples=200)
@given(st.sampled_from(HEADS), st.binary(max_size=400))
def test_random_bytes_behind_a_signature(head: bytes, data: bytes) -> None:
    judge(head + data)


@pytest.mark.parametrize("name", SMALL)
def test_every_truncation(name: str) -> None:
    """A file that is still being written is no picture yet, wherever it ends. A JPEG may lack its end marker."""
    data = suitable(name)
    for end in {*range(min(200, len(data))), *range(0, len(data), max(1, len(data) // 40)), *range(len(data) - 40, len(data))}:
        with pytest.raises(Unsuitable if name.startswith("jpeg") and end >= len(data) - 2 else NotAPicture):
            probe(data[:end])
