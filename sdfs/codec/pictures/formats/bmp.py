"""BMP: uncompressed, 24 bits, bottom-up or top-down. Source: Microsoft, "Bitmap Storage" (BITMAPINFOHEADER, V4 and V5 headers).

A render is the file bit for bit but for its pixels; the unused bytes at the end of rows become zero.
"""

from __future__ import annotations

import struct

import numpy as np

from sdfs.codec.pictures.formats.shared import Parts, Pixels, Recipe, Run, check_dimensions, cut_runs, only, paste_runs
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable

_FILE_HEADER = 14
_INFO_HEADERS = (40, 108, 124)  # BITMAPINFOHEADER, BITMAPV4HEADER, BITMAPV5HEADER
_UNCOMPRESSED = 0


def read(data: bytes) -> Parts:
    if len(data) < _FILE_HEADER + min(_INFO_HEADERS):
        raise NotAPicture(f"the BMP ends at byte {len(data)}, within its headers")
    claimed_size, offset, header_size = struct.unpack_from("<2xI4xII", data)
    width, height, planes, depth, compression = struct.unpack_from("<iiHHI", data, _FILE_HEADER + 4)
    if header_size not in _INFO_HEADERS or (planes, depth, compression) != (1, 24, _UNCOMPRESSED):
        raise Unsuitable(f"a BMP with a header of {header_size} bytes, {depth} bits a pixel, compression {compression}")
    top_down, height = height < 0, abs(height)
    pixels_end = offset + height * _stride(width)
    if not _FILE_HEADER + header_size <= offset <= max(claimed_size, pixels_end) <= len(data):
        raise NotAPicture(f"the BMP ends at {len(data)} of {max(claimed_size, pixels_end)} bytes, its pixels begin at {offset}")
    if len(data) > max(claimed_size, pixels_end):
        raise Unsuitable(f"a BMP of {len(data)} bytes whose header says {claimed_size}")
    check_dimensions(width, height, len(data))
    inside, outside = cut_runs(data, [Run(offset, height * _stride(width))])
    rows = np.frombuffer(inside, np.uint8).reshape(height, _stride(width))[:, : 3 * width]
    pixels = rows.reshape(height, width, 3)[:: 1 if top_down else -1, :, ::-1]
    return Parts(np.ascontiguousarray(pixels), {"offset": offset, "top_down": top_down}, outside)


recipes = only


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    height, width = pixels.shape[:2]
    natural = len(metadata) + height * _stride(width)
    if size not in (None, natural):
        raise DoesNotFit(f"the BMP has {natural} bytes, not {size}")
    rows = np.zeros((height, _stride(width)), np.uint8)
    rows[:, : 3 * width] = pixels[:: 1 if recipe["top_down"] else -1, :, ::-1].reshape(height, -1)
    return paste_runs(rows.tobytes(), metadata, [Run(recipe["offset"], rows.size)])


def find_marker(data: bytes) -> None:
    """A BMP has no room for a marker."""


def _stride(width: int) -> int:
    """Bytes of a row: a multiple of 4."""
    return -(-3 * width // 4) * 4
