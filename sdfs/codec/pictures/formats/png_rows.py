"""The pixels of a PNG as filtered rows, deflated and back. Source: W3C PNG specification (third edition), 8 to 10, RFC 1950, RFC 1951.

A stream is made in parts, so that its last deflate block can be of any length from 2 bytes on: see `last_blocks`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sdfs.codec.pictures.formats.png_chunks import Header
from sdfs.codec.pictures.formats.shared import Pixels
from sdfs.errors import NotAPicture, Unsuitable

_NONE, _PAETH = 0, 4
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x, y, steps of x and y
_BAND_ROWS = 64  # filtered at once: small enough to stay in the cache
_INFLATE_STEP = 1 << 15
# Empty fixed blocks (10 bits: 2 is one more to come, 3 the last), or one and an empty stored block, as the last of a deflate stream.
_LAST_BLOCKS = {
    2: bytes.fromhex("0300"),
    3: bytes.fromhex("020c00"),
    4: bytes.fromhex("02083000"),
    5: bytes.fromhex("020820c000"),
    6: bytes.fromhex("02040000ffff"),
}
LEAST_LAST_BLOCKS = min(_LAST_BLOCKS)
_EMPTY_STORED_BLOCK = bytes.fromhex("000000ffff")


class Attempt(NamedTuple):
    """How rows may be filtered and deflated."""

    filter: int
    level: int
    strategy: int


# Paeth residuals of photos repeat little: run lengths alone are faster and mostly smaller than levels 1 to 4. Level 6 takes 1 to 7 %
# less at a seventh of the speed; 9 and filters chosen row by row gain a percent more at best. Graphics are smallest without a filter.
ATTEMPTS = (Attempt(_PAETH, 1, zlib.Z_RLE), Attempt(_PAETH, 6, zlib.Z_FILTERED), Attempt(_NONE, 9, zlib.Z_DEFAULT_STRATEGY))
INDEX_ATTEMPTS = (Attempt(_NONE, 6, zlib.Z_DEFAULT_STRATEGY), Attempt(_NONE, 9, zlib.Z_DEFAULT_STRATEGY))  # of indices in a palette
MOST_GAIN = 4  # what takes more than so many times too much in one attempt will not fit in another


def check_inflates(deflated: bytes, header: Header) -> None:
    """`deflated` must be one whole zlib stream of the rows that `header` needs, 8 bits a sample, and no byte more.

    Raises NotAPicture, and Unsuitable where there is more. Memory: what one step inflates to, at most 1032 times as much.
    """
    size = sum(_row_bytes(part) * part.height for _, part in _passes(header))
    inflater = zlib.decompressobj()
    total = 0
    try:
        for at in range(0, len(deflated), _INFLATE_STEP):
            total += len(inflater.decompress(deflated[at : at + _INFLATE_STEP]))
            if total > size or inflater.unused_data:
                break
    except zlib.error as error:
        raise NotAPicture(f"the PNG does not inflate: {error}") from None
    if total > size or inflater.unused_data:
        raise Unsuitable("a PNG with more data than its pixels need")
    if not inflater.eof or total < size:
        raise NotAPicture(f"the PNG inflates to {total} bytes: its dimensions need {size}")


def apart(deflated: bytes, header: Header) -> Iterator[tuple[tuple[slice, slice], Header, bytes]]:
    """The reduced pictures of an interlaced one that inflates: where each belongs, its header and its zlib stream."""
    rows, at = zlib.decompress(deflated), 0
    for place, part in _passes(header):
        end = at + _row_bytes(part) * part.height
        yield place, part, zlib.compress(rows[at:end], 0)
        at = end


def deflate(samples: Pixels, header: Header, attempt: Attempt) -> tuple[bytes, bytes]:
    """A zlib stream of the filtered rows of (H, W, C) or (H, W): all but the last deflate block, byte-aligned, and the checksum."""
    deflater = zlib.compressobj(attempt.level, zlib.DEFLATED, 15, 9, attempt.strategy)
    checksum = zlib.adler32(b"")
    pieces: list[bytes] = []
    for place, _ in _passes(header):
        for band in _filtered(samples[place], attempt.filter):
            checksum = zlib.adler32(band, checksum)
            pieces.append(deflater.compress(band))
    pieces.append(deflater.flush(zlib.Z_SYNC_FLUSH))
    return b"".join(pieces), struct.pack(">I", checksum)


def last_blocks(length: int) -> bytes:
    """The end of a deflate stream: no data, `length` bytes, at least LEAST_LAST_BLOCKS."""
    stored = max(0, length - LEAST_LAST_BLOCKS) // len(_EMPTY_STORED_BLOCK)
    return _EMPTY_STORED_BLOCK * stored + _LAST_BLOCKS[length - stored * len(_EMPTY_STORED_BLOCK)]


def _passes(header: Header) -> Iterator[tuple[tuple[slice, slice], Header]]:
    """Rows and columns of each reduced picture, or of the whole one, and its header as if it stood alone."""
    for x, y, dx, dy in _ADAM7 if header.interlaced else ((0, 0, 1, 1),):
        width, height = -(-(header.width - x) // dx), -(-(header.height - y) // dy)
        yield (slice(y, None, dy), slice(x, None, dx)), header._replace(width=width, height=height, interlaced=False)


def _row_bytes(header: Header) -> int:
    return 1 + header.width * header.channels


def _filtered(samples: Pixels, kind: int) -> Iterator[bytes]:
    """Rows behind their filter type, a band at a time."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    rows = np.pad(samples.reshape(len(samples), -1), ((1, 0), (channels, 0)))
    for top in range(0, len(samples), _BAND_ROWS):
        band = rows[top : top + _BAND_ROWS + 1]
        here, left, above, corner = band[1:, channels:], band[1:, :-channels], band[:-1, channels:], band[:-1, :-channels]
        filtered = np.empty((len(here), 1 + here.shape[1]), np.uint8)
        filtered[:, 0] = kind
        np.subtract(here, _paeth(left, above, corner) if kind == _PAETH else np.uint8(0), out=filtered[:, 1:])
        yield filtered.tobytes()


def _paeth(left: Pixels, above: Pixels, corner: Pixels) -> Pixels:
    """Whichever is nearest to left + above - corner; of equals the first (PNG, 9.4)."""
    a, b, c = left.astype(np.int16), above.astype(np.int16), corner.astype(np.int16)
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest_is_left = (to_left <= to_above) & (to_left <= to_corner)
    return np.where(nearest_is_left, left, np.where(to_above <= to_corner, above, corner))
