"""WebP: one still picture, lossy (VP8) or lossless (VP8L), without alpha. Source: RFC 9649.

A render keeps all other RIFF chunks byte-exact and in order around the picture's; it is padded by a private chunk at the end, or,
where less than the 8 bytes of a chunk's header are missing, by zeros behind the coded picture, where decoders stop reading.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

import imagecodecs
import numpy as np
from PIL import Image

from sdfs.codec.pictures.formats.shared import (
    Parts,
    Pixels,
    Recipe,
    check_decoded,
    check_dimensions,
    decoding,
    first_marker,
    only,
    pack_marker,
)
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable

_LOSSY, _LOSSLESS, _EXTENDED = b"VP8 ", b"VP8L", b"VP8X"
_ALPHA_FLAG, _ANIMATION_FLAG = 0x10, 0x02  # of VP8X
_PADDING = b"sdFs"
_RIFF_HEADER = 12
_CHUNK_HEADER = 8
_MAX_CHUNK = 0xFFFF_FFF6 - _CHUNK_HEADER
_LOSSLESS_ATTEMPTS = ((0, 0), (1, 0), (4, 80))  # method, effort: 5 and 12 times as slow as the first for 16 and 19 % less
_LOSSY_METHOD = 1  # as fast as 0 and smaller
_FIRST_QUALITY = 85
_MAX_TRIES = 5
_AIM = 0.98  # of the room: sizes scatter by a percent or two around the curve
_CLOSE_ENOUGH = 0.9  # of the room: filling more is not worth another try
# How a picture's size grows with quality: the mean natural logarithm, less that at quality 75, of photos at _LOSSY_METHOD.
_QUALITIES = (0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95, 98, 100)
_LOG_SIZES = (-1.75, -1.07, -0.76, -0.55, -0.41, -0.28, -0.17, -0.07, 0.0, 0.16, 0.36, 0.54, 0.86, 1.12, 1.43)


class _Chunk(NamedTuple):
    type: bytes
    content: bytes  # header, payload, padding to even
    payload: bytes


def read(data: bytes) -> Parts:
    end = _CHUNK_HEADER + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise NotAPicture(f"the WebP file ends at {len(data)} of {end} bytes")
    chunks = list(_chunks(data[:end]))
    if end != len(data) or end % 2:
        raise Unsuitable(f"{len(data) - end + end % 2} bytes after the end of the WebP picture")
    _check_types(chunks)
    position = next(i for i, chunk in enumerate(chunks) if chunk.type in (_LOSSY, _LOSSLESS))
    image = chunks[position]
    width, height = _dimensions(image)
    check_dimensions(width, height, len(data))
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    if chunks[0].type == _EXTENDED and chunks[0].payload[4:] != canvas:
        raise NotAPicture("the canvas of the WebP differs from its picture")
    with decoding("the WebP picture"):
        decoded = imagecodecs.webp_decode(_file(image.content))
    pixels = check_decoded(decoded, height, width, 3)
    before = b"".join(chunk.content for chunk in chunks[:position] if chunk.type != _PADDING)
    after = b"".join(chunk.content for chunk in chunks[position + 1 :] if chunk.type != _PADDING)
    return Parts(pixels, {"lossless": image.type == _LOSSLESS, "before": len(before)}, before + after)


recipes = only


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    before, after = metadata[: recipe["before"]], metadata[recipe["before"] :]
    bare = _RIFF_HEADER + len(metadata)
    if size is None:
        image = _lossless(pixels, _MAX_CHUNK) if recipe["lossless"] else _encode(pixels, quality=_FIRST_QUALITY)
        natural = _CHUNK_HEADER + 1 + len(marker)
        return _file(before + image + after + _padding(natural + natural % 2, marker))
    if size % 2:
        raise DoesNotFit(f"a WebP file cannot have {size} bytes: RIFF sizes are even")
    image = _lossless(pixels, size - bare - spare) if recipe["lossless"] else _lossy(pixels, size - bare)
    room = size - bare - len(image)
    if room < _CHUNK_HEADER:
        return _file(before + _lengthen(image, room) + after)
    return _file(before + image + after + _padding(room, marker))


def find_marker(data: bytes) -> bytes | None:
    return first_marker(chunk.payload for chunk in _chunks(data) if chunk.type == _PADDING)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    at = _RIFF_HEADER
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        start, end = at + _CHUNK_HEADER, at + _CHUNK_HEADER + length + length % 2
        if end > len(data):
            raise NotAPicture(f"the WebP chunk at byte {at} is cut off")
        yield _Chunk(data[at : at + 4], data[at:end], data[start : start + length])
        at = end


def _check_types(chunks: list[_Chunk]) -> None:
    types = [chunk.type for chunk in chunks]
    flags = chunks[0].payload[0] if types[:1] == [_EXTENDED] and len(chunks[0].payload) == 10 else 0
    if flags & _ANIMATION_FLAG or not {b"ANIM", b"ANMF"}.isdisjoint(types):
        raise Unsuitable("an animated WebP")
    if flags & _ALPHA_FLAG or b"ALPH" in types:
        raise Unsuitable("a WebP with an alpha channel")
    if b"C2PA" in types:
        raise Unsuitable("content credentials are bound to the exact bytes")
    if types.count(_LOSSY) + types.count(_LOSSLESS) != 1 or types[0] not in (_LOSSY, _LOSSLESS, _EXTENDED):
        raise NotAPicture("the WebP file does not hold one picture")


def _dimensions(image: _Chunk) -> tuple[int, int]:
    """Width and height, from the header of a key frame (RFC 6386, 9.1) or a lossless picture (RFC 9649, 3.4)."""
    head = image.payload[:10]
    if image.type == _LOSSY and len(head) == 10 and not head[0] & 1 and head[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[6:])
        return width & 0x3FFF, height & 0x3FFF
    if image.type == _LOSSLESS and len(head) >= 5 and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        if bits >> 28 & 1:
            raise Unsuitable("a WebP with an alpha channel")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise NotAPicture("the WebP picture has a broken header")


def _lossy(pixels: Pixels, room: int) -> bytes:
    """The picture's chunk at about the highest quality at which it takes at most `room` bytes."""
    best: bytes | None = None
    fits, exceeds = -1, 101
    quality = _FIRST_QUALITY
    for _ in range(_MAX_TRIES):
        image = _encode(pixels, quality=quality)
        if len(image) <= room:
            best, fits = image, quality
        else:
            exceeds = quality
        if exceeds - fits <= 1 or _CLOSE_ENOUGH * room <= len(image) <= room:
            break
        quality = min(max(_quality_for(quality, _AIM * room / len(image)), fits + 1), exceeds - 1)
    if best is None:
        raise DoesNotFit(f"a WebP picture of quality {exceeds} does not fit into {room} bytes")
    return best


def _quality_for(quality: int, growth: float) -> int:
    """The quality at which a picture should take `growth` times the bytes that it takes at `quality`."""
    log_size = np.interp(quality, _QUALITIES, _LOG_SIZES) + math.log(max(growth, 1e-9))
    return int(np.interp(log_size, _LOG_SIZES, _QUALITIES))


def _lossless(pixels: Pixels, room: int) -> bytes:
    for method, effort in _LOSSLESS_ATTEMPTS:
        image = _encode(pixels, lossless=True, method=method, quality=effort)
        if len(image) <= room:
            return image
    raise DoesNotFit(f"a lossless WebP picture of {len(image)} bytes does not fit into {room}")


def _encode(pixels: Pixels, *, quality: int, method: int = _LOSSY_METHOD, lossless: bool = False) -> bytes:
    """The picture's chunk."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=method, lossless=lossless)
    return buffer.getvalue()[_RIFF_HEADER:]


def _file(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _padding(length: int, marker: bytes) -> bytes:
    """A chunk of an even `length`."""
    return _PADDING + struct.pack("<I", length - _CHUNK_HEADER) + pack_marker(marker, length - _CHUNK_HEADER)


def _lengthen(image: bytes, by: int) -> bytes:
    """The picture's chunk with zeros behind the coded picture; of `by`, even, bytes."""
    return image[:4] + struct.pack("<I", len(image) - _CHUNK_HEADER + by) + image[_CHUNK_HEADER:] + bytes(by) if by else image
