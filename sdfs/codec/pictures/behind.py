"""What lies behind a picture in its file, byte for byte: fills, previews and gain maps, videos, whatever vendors append.

Packed it is a list of parts, each its kind in a byte, how many bytes it stands for and how many follow in 4 bytes each, then these:

    0  raw      the bytes themselves
    1  fill     one byte, repeated
    2  jpeg     a JPEG XL file from which the JPEG is made again, bit for bit
    3  deflate  the bytes, deflated (RFC 1951)

Nobody says where parts begin: vendors' indices contradict each other and the file. So runs of one byte are looked for, and JPEGs, of which
each is tried; what is between them is deflated where that helps.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from sdfs.blob.deflate import deflate, inflate
from sdfs.codec.pictures.formats import jpeg_segments, jpegxl
from sdfs.errors import DamagedError, PictureError, Unsuitable

_RAW, _FILL, _JPEG, _DEFLATE = range(4)
_JPEG_BEGINS = b"\xff\xd8\xff"
_RUNS = re.compile(rb"(.)\1{255,}", re.DOTALL)
_MAX_JPEGS = 32  # tried; phones append at most a handful
_MAX_WALKED = 4  # what looking for their ends may read, in lengths of the whole
_MAX_PART = 1 << 30  # bytes
_MAX_RATIO = 1032  # of what is inflated to what is deflated (RFC 1951)
_MAX_FILL = 1 << 24  # bytes of fills beyond that ratio: a reader would have to believe in them
_HEAD = struct.Struct("<BII")


def pack(data: bytes) -> bytes:
    """Bytes from which `unpack` makes `data` again. Raises Unsuitable where it would not believe them."""
    packed = b"".join(_HEAD.pack(kind, length, len(payload)) + payload for kind, length, payload in _parts(data))
    if len(data) > most(len(packed)):
        raise Unsuitable(f"{len(data)} bytes of fill behind the picture")
    return packed


def most(packed_bytes: int) -> int:
    """Of how many bytes so many packed ones can tell."""
    return _MAX_FILL + _MAX_RATIO * packed_bytes


def unpack(packed: bytes, size: int) -> bytes:
    """The `size` bytes that were packed. Raises DamagedError; never holds more than `size` bytes of them."""
    if size > most(len(packed)):
        raise DamagedError(f"what lies behind the picture: {size} bytes claimed, {len(packed)} stored")
    pieces, at, total = [], 0, 0
    while at < len(packed):
        if at + _HEAD.size > len(packed):
            raise DamagedError("what lies behind the picture is cut off")
        kind, length, stored = _HEAD.unpack_from(packed, at)
        payload = packed[at + _HEAD.size : at + _HEAD.size + stored]
        at += _HEAD.size + stored
        total += length
        if total > size or at > len(packed):
            raise DamagedError(f"what lies behind the picture: parts of {total} bytes where {size} are wanted")
        pieces.append(_restore(kind, length, payload))
    if total != size:
        raise DamagedError(f"what lies behind the picture: want {size} bytes, have {total}")
    return b"".join(pieces)


def _restore(kind: int, length: int, payload: bytes) -> bytes:
    if kind == _RAW:
        found = payload
    elif kind == _FILL and len(payload) == 1:
        found = payload * length
    elif kind == _JPEG:
        found = jpegxl.restore(payload, length)
    elif kind == _DEFLATE:
        try:
            found = inflate(payload, b"", length + 1)
        except ValueError as error:
            raise DamagedError(f"what lies behind the picture cannot be inflated: {error}") from None
    else:
        raise DamagedError(f"what lies behind the picture: a part of unknown kind {kind}")
    if len(found) != length:
        raise DamagedError(f"what lies behind the picture: a part of {len(found)} bytes, {length} claimed")
    return found


def _parts(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    for begin, end in _jpegs(data):
        payload = jpegxl.transcode(data[begin:end])
        if payload is not None and len(payload) < end - begin:
            yield from _filled(data[at:begin])
            yield _JPEG, end - begin, payload
            at = end
    yield from _filled(data[at:])


def _jpegs(data: bytes) -> Iterator[tuple[int, int]]:
    """Where JPEGs begin and end. The work is bounded, whatever lies there."""
    at, walked = 0, 0
    for _ in range(_MAX_JPEGS):
        at = data.find(_JPEG_BEGINS, at)
        if at < 0 or walked > _MAX_WALKED * len(data):
            return
        try:
            _, length = jpeg_segments.walk(data[at:])
        except PictureError:
            walked += len(data) - at
            at += 1
        else:
            yield at, at + length
            at += length


def _filled(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Parts of what holds no JPEG."""
    at = 0
    for run in _RUNS.finditer(data):
        yield from _plain(data[at : run.start()])
        for length in _cut(run.end() - run.start()):
            yield _FILL, length, run[1]
        at = run.end()
    yield from _plain(data[at:])


def _plain(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    for length in _cut(len(data)):
        part, at = data[at : at + length], at + length
        deflated = deflate(part, b"")
        yield (_DEFLATE, length, deflated) if len(deflated) < length else (_RAW, length, part)


def _cut(length: int) -> Iterator[int]:
    while length > 0:
        yield min(length, _MAX_PART)
        length -= _MAX_PART
