"""The chunks of a PNG file and its header. Source: W3C PNG specification (third edition), 5 and 11."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from sdfs.errors import NotAPicture, Unsuitable

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNK_OVERHEAD = 12  # length, type, CRC
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
_MAX_CHUNKS = 100_000  # IDAT of 8 kB, as libpng writes them, are 128 to the megabyte


class Chunk(NamedTuple):
    """One chunk of a file, from its length to its CRC."""

    type: bytes
    start: int
    end: int

    def content(self, data: bytes) -> bytes:
        return data[self.start : self.end]

    def payload(self, data: bytes) -> bytes:
        return data[self.start + 8 : self.end - 4]


class Header(NamedTuple):
    """IHDR."""

    width: int
    height: int
    depth: int  # bits a sample
    colour: int  # GREY, RGB, …
    interlaced: bool

    @property
    def channels(self) -> int:
        """Samples a pixel, as they are coded."""
        return _CHANNELS[self.colour]

    def pack(self) -> bytes:
        return pack(b"IHDR", struct.pack(">IIBBBBB", self.width, self.height, self.depth, self.colour, 0, 0, self.interlaced))


def chunks(data: bytes, at: int) -> Iterator[Chunk]:
    """The chunks from `at` on, up to IEND or the end of `data`, each with its CRC checked.

    Raises NotAPicture, and Unsuitable: too many to be worth a look; a wrong CRC, where no pixel depends on it.
    """
    for _ in range(_MAX_CHUNKS):
        if at >= len(data):
            return
        end = at + CHUNK_OVERHEAD + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise NotAPicture(f"the PNG ends within the chunk at byte {at}")
        chunk = Chunk(data[at + 4 : at + 8], at, end)
        if not (chunk.type.isalpha() and chunk.type.isascii()):
            raise NotAPicture(f"the chunk at byte {at} of the PNG has no type")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            refusal = Unsuitable if chunk.type[:1].islower() else NotAPicture
            raise refusal(f"the chunk {chunk.type.decode()} at byte {at} of the PNG has a wrong checksum")
        yield chunk
        if chunk.type == b"IEND":
            return
        at = end
    raise Unsuitable(f"a PNG of more than {_MAX_CHUNKS:,} chunks")


def pack(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(payload, zlib.crc32(name)))


def parse_header(payload: bytes) -> Header:
    """Raises NotAPicture where the specification does not know such an IHDR."""
    if len(payload) != 13:
        raise NotAPicture("the PNG has an IHDR of a wrong length")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", payload)
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise NotAPicture("the PNG has an IHDR that the specification does not know")
    return Header(width, height, depth, colour, bool(interlace))
