"""TIFF: one uncompressed, chunky picture in strips, RGB or grey at 8 bits. Source: TIFF revision 6.0 (Adobe, 1992).

A render is the file bit for bit but for its pixels. Private and unknown tags may point anywhere, and a picture with them may be
more than its pixels show (layers, raw data): only tags known to describe are accepted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from sdfs.codec.pictures.formats.shared import Parts, Pixels, Recipe, Run, check_dimensions, cut_runs, only, paste_runs
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable

_HEADER = 8
_ENTRY = 12
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # struct formats of BYTE, SHORT, LONG
_MAX_RUNS = 64  # strips usually lie back to back, in one run

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _COUNTS = 256, 257, 258, 262, 273, 277, 278, 279
_DEFAULTS = {_BITS: (1,), _SAMPLES: (1,), _ROWS_PER_STRIP: (0xFFFFFFFF,)}
_ONLY = {  # NewSubfileType, SubfileType, Compression, FillOrder, PlanarConfiguration, Predictor: the values of a plain picture
    254: 0,
    255: 1,
    259: 1,
    266: 1,
    284: 1,
    317: 1,
}
_SAMPLE_FORMAT = 339  # 1, unsigned, for each sample
_STRUCTURAL = frozenset({_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _COUNTS})
_DESCRIPTIVE = frozenset(
    {
        *(269, 270, 271, 272),  # DocumentName, ImageDescription, Make, Model
        *(274, 280, 281, 282, 283, 285, 286, 287, 296, 297),  # Orientation, sample range, resolution, page
        *(305, 306, 315, 316),  # Software, DateTime, Artist, HostComputer
        *(318, 319, 301, 532),  # WhitePoint, PrimaryChromaticities, TransferFunction, ReferenceBlackWhite
        *(700, 18246, 18249, 33432, 33723, 34377, 34665, 34675, 34853),  # XMP, ratings, Copyright, IPTC, Photoshop, Exif, ICC, GPS
        *range(40091, 40096),  # XPTitle … XPSubject
    }
)


class _Entry(NamedTuple):
    type: int
    values: int
    region: Run  # where its values lie, within the entry or elsewhere


def read(data: bytes) -> Parts:
    order = "<" if data[:2] == b"II" else ">"
    directory, entries = _parse_directory(data, order)
    values = {tag: _integers(data, order, entry) for tag, entry in entries.items() if entry.type in _INTEGERS}
    _check_tags(values, entries)
    height, width, channels = _dimensions(values)
    runs = _merge(_strips(values, height, width * channels))
    if len(runs) > _MAX_RUNS:
        raise Unsuitable(f"a TIFF with its strips in {len(runs)} places")
    _check_layout(runs, [Run(0, _HEADER), directory, *(entry.region for entry in entries.values())], len(data))
    check_dimensions(width, height, len(data))
    inside, outside = cut_runs(data, runs)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Parts(np.frombuffer(inside, np.uint8).reshape(shape), {"runs": [list(run) for run in runs]}, outside)


recipes = only


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    if size not in (None, len(metadata) + pixels.size):
        raise DoesNotFit(f"the TIFF has {len(metadata) + pixels.size} bytes, not {size}")
    return paste_runs(pixels.tobytes(), metadata, [Run(*run) for run in recipe["runs"]])


def find_marker(data: bytes) -> None:
    """A TIFF has no room for a marker."""


def _parse_directory(data: bytes, order: str) -> tuple[Run, dict[int, _Entry]]:
    """Where the one image file directory lies, and its entries by tag."""
    start = struct.unpack_from(order + "I", data, 4)[0] if len(data) >= _HEADER else len(data)
    if start + 2 > len(data):
        raise NotAPicture("the TIFF ends before its directory")
    (count,) = struct.unpack_from(order + "H", data, start)
    length = 2 + count * _ENTRY + 4
    if start + length > len(data):
        raise NotAPicture("the TIFF ends within its directory")
    if any(data[start + length - 4 : start + length]):
        raise Unsuitable("a TIFF of several pictures")
    entries: dict[int, _Entry] = {}
    for at in range(start + 2, start + 2 + count * _ENTRY, _ENTRY):
        tag, kind, values = struct.unpack_from(order + "HHI", data, at)
        if kind not in _TYPE_BYTES or tag in entries:
            raise Unsuitable(f"a TIFF with tag {tag} of type {kind}, or twice")
        size = values * _TYPE_BYTES[kind]
        offset = at + 8 if size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
        if offset + size > len(data):
            raise NotAPicture(f"the TIFF ends before the values of tag {tag}")
        entries[tag] = _Entry(kind, values, Run(offset, size))
    return Run(start, length), entries


def _integers(data: bytes, order: str, entry: _Entry) -> tuple[int, ...]:
    return struct.unpack_from(f"{order}{entry.values}{_INTEGERS[entry.type]}", data, entry.region.offset)


def _check_tags(values: dict[int, tuple[int, ...]], entries: Iterable[int]) -> None:
    for tag in entries:
        if tag in _ONLY:
            if values.get(tag) != (_ONLY[tag],):
                raise Unsuitable(f"a TIFF with {values.get(tag)} in tag {tag}")
        elif tag == _SAMPLE_FORMAT:
            if set(values.get(tag, ())) != {1}:
                raise Unsuitable("a TIFF of samples that are not unsigned integers")
        elif tag not in _STRUCTURAL and tag not in _DESCRIPTIVE:
            raise Unsuitable(f"a TIFF with tag {tag}")


def _dimensions(values: dict[int, tuple[int, ...]]) -> tuple[int, int, int]:
    """Height, width and channels of a picture whose samples are suitable."""
    width, height, photometric = (_one(values, tag) for tag in (_WIDTH, _HEIGHT, _PHOTOMETRIC))
    channels, bits = _one(values, _SAMPLES), values.get(_BITS, _DEFAULTS[_BITS])
    if (photometric, channels, bits) not in ((1, 1, (8,)), (2, 3, (8, 8, 8))):
        raise Unsuitable(f"a TIFF of {channels} samples of {bits} bits, photometric interpretation {photometric}")
    return height, width, channels


def _one(values: dict[int, tuple[int, ...]], tag: int) -> int:
    found = values.get(tag, _DEFAULTS.get(tag, ()))
    if len(found) != 1:
        raise NotAPicture(f"the TIFF has {len(found)} values in tag {tag}")
    return found[0]


def _strips(values: dict[int, tuple[int, ...]], height: int, row_bytes: int) -> Iterator[Run]:
    rows_per_strip = _one(values, _ROWS_PER_STRIP)
    offsets, counts = values.get(_OFFSETS, ()), values.get(_COUNTS, ())
    if not rows_per_strip or len(offsets) != -(-height // rows_per_strip) or len(counts) != len(offsets):
        raise NotAPicture(f"the TIFF has {len(offsets)} strips of {rows_per_strip} rows for {height} rows")
    for i, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        if count != min(rows_per_strip, height - i * rows_per_strip) * row_bytes:
            raise Unsuitable(f"a TIFF with a strip of {count} bytes")
        yield Run(offset, count)


def _merge(strips: Iterable[Run]) -> list[Run]:
    """Neighbours that lie back to back as one run."""
    runs: list[Run] = []
    for strip in strips:
        if runs and runs[-1].offset + runs[-1].length == strip.offset:
            runs[-1] = Run(runs[-1].offset, runs[-1].length + strip.length)
        else:
            runs.append(strip)
    return runs


def _check_layout(runs: list[Run], others: list[Run], size: int) -> None:
    """Runs must ascend within the file, and share no byte with each other or with the file's structure."""
    at = 0
    for offset, length in runs:
        if offset < at:
            raise Unsuitable("a TIFF with strips out of order")
        at = offset + length
        if any(other.offset < at and offset < other.offset + other.length for other in others):
            raise Unsuitable("a TIFF with strips over its own structure")
    if at > size:
        raise NotAPicture(f"the TIFF ends at {size} of {at} bytes")
