"""BMP: uncompressed, 24 or 32 bits, or 8 with a palette, bottom-up or top-down. Source: Microsoft, "Bitmap Storage" (all but core headers).

A render is the file bit for bit but for its pixels; the unused bytes at the end of rows become zero. The fourth byte of pixels of 32 bits,
which no header explains, is kept where it is the same throughout; else it may be opacity, or anything.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from sdfs.codec.pictures.formats import palette
from sdfs.codec.pictures.formats.palette import Colours
from sdfs.codec.pictures.formats.shared import Parts, Pixels, Recipe, Run, check_dimensions, cut_runs, only, paste_runs
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable

_FILE_HEADER = 14
_INFO_HEADERS = (40, 52, 56, 108, 124)  # BITMAPINFOHEADER, with masks (V2, V3), BITMAPV4HEADER, BITMAPV5HEADER
_UNCOMPRESSED, _RUN_LENGTHS, _MASKS = 0, (1, 2), 3
_MASKS_AT = _FILE_HEADER + 40
_RGB_MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)


class _Header(NamedTuple):
    offset: int  # of the pixels
    width: int
    height: int
    top_down: bool
    depth: int  # bits a pixel
    colours: Colours | None  # of the palette

    @property
    def pixel_bytes(self) -> int:
        return self.depth // 8

    @property
    def stride(self) -> int:
        """Bytes of a row: a multiple of 4."""
        return -(-self.width * self.pixel_bytes // 4) * 4

    @property
    def run(self) -> Run:
        return Run(self.offset, self.height * self.stride)


def read(data: bytes) -> Parts:
    header = _parse_header(data)
    claimed_size = int.from_bytes(data[2:6], "little")
    end = max(claimed_size, sum(header.run))
    if end > len(data):
        raise NotAPicture(f"the BMP ends at {len(data)} of {end} bytes")
    check_dimensions(header.width, header.height, end)
    inside, outside = cut_runs(data[:end], [header.run])
    rows = np.frombuffer(inside, np.uint8).reshape(header.height, header.stride)[:: 1 if header.top_down else -1]
    stored = rows[:, : header.width * header.pixel_bytes].reshape(header.height, header.width, header.pixel_bytes)
    alpha = None
    if header.colours is not None:
        pixels = palette.look_up(stored[:, :, 0], header.colours)
    else:
        pixels = np.ascontiguousarray(stored[:, :, 2::-1])
        alpha = np.ascontiguousarray(stored[:, :, 3]) if header.depth == 32 else None
        if alpha is not None and (alpha != alpha[0, 0]).any():
            raise Unsuitable("a BMP of 32 bits with alpha")
    return Parts(pixels, {}, outside, data[end:], alpha)


recipes = only


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    header = _parse_header(metadata)
    natural = len(metadata) + header.run.length
    if size not in (None, natural):
        raise DoesNotFit(f"the BMP has {natural} bytes, not {size}")
    stored = pixels[:, :, [2, 1, 0, 3][: header.pixel_bytes]] if header.colours is None else palette.nearest(pixels, header.colours)
    if (header.height, header.width) != pixels.shape[:2]:
        raise ValueError(f"the BMP wants {header.width}×{header.height} pixels, has {pixels.shape}")
    rows = np.zeros((header.height, header.stride), np.uint8)
    rows[:, : header.width * header.pixel_bytes] = stored[:: 1 if header.top_down else -1].reshape(header.height, -1)
    return paste_runs(rows.tobytes(), metadata, [header.run])


def find_marker(data: bytes) -> None:
    """A BMP has no room for a marker."""


def _parse_header(data: bytes) -> _Header:
    """What comes before the pixels. Raises NotAPicture and Unsuitable."""
    if len(data) < _FILE_HEADER + min(_INFO_HEADERS):
        raise NotAPicture(f"the BMP ends at byte {len(data)}, within its headers")
    offset, header_size = struct.unpack_from("<10xII", data)
    width, height, planes, depth, compression = struct.unpack_from("<iiHHI", data, _FILE_HEADER + 4)
    if header_size not in _INFO_HEADERS or planes != 1:
        raise Unsuitable(f"a BMP with a header of {header_size} bytes and {planes} planes")
    if not _FILE_HEADER + header_size <= offset <= len(data):
        raise NotAPicture(f"the pixels of the BMP begin at {offset} of {len(data)} bytes")
    if compression in _RUN_LENGTHS:
        raise Unsuitable("a BMP of run lengths")
    if depth not in (8, 24, 32):
        raise Unsuitable(f"a BMP of {depth} bits a pixel")
    if compression == _MASKS and depth == 32:
        _check_masks(data[_MASKS_AT : min(offset, _MASKS_AT + 16)], with_alpha=header_size > 52)
    elif compression != _UNCOMPRESSED:
        raise Unsuitable(f"a BMP of {depth} bits a pixel, compression {compression}")
    if width <= 0 or not height:
        raise NotAPicture(f"the header of the BMP claims {width}×{height} pixels")
    colours = _parse_palette(data[:offset], _FILE_HEADER + header_size) if depth == 8 else None
    return _Header(offset, width, abs(height), height < 0, depth, colours)


def _check_masks(masks: bytes, *, with_alpha: bool) -> None:
    if masks[:12] != _RGB_MASKS:
        raise Unsuitable("a BMP whose masks are unusual")
    if with_alpha and any(masks[12:]):
        raise Unsuitable("a BMP of 32 bits with alpha")


def _parse_palette(head: bytes, at: int) -> Colours:
    count = int.from_bytes(head[_FILE_HEADER + 32 : _FILE_HEADER + 36], "little") or 256
    palette.check_colours(count)
    if at + 4 * count > len(head):
        raise NotAPicture(f"the BMP ends within its palette of {count} colours")
    return np.frombuffer(head, np.uint8, 4 * count, at).reshape(count, 4)[:, 2::-1]
