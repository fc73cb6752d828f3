"""PNG: RGB or grey at 8 bits, not interlaced, without transparency. Source: W3C PNG specification (third edition), RFC 1950, RFC 1951.

A render keeps IHDR and all other chunks byte-exact and in order around its IDAT, which is padded to the asked size: by a private
chunk before IEND where at least 12 bytes are missing, else by a longer, still empty, last deflate block.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import imagecodecs
import numpy as np

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

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3}  # of the colour types that are suitable
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # of all legal colour types
_PADDING = b"sdFs"  # ancillary, private, safe to copy
_CHUNK_OVERHEAD = 12  # length, type, CRC
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
# Formally unsafe to copy when pixels change, but about colour, scale and time only. Unknown ones may depend on the coded pixels:
# iDOT has offsets into IDAT, caBX signs it.
_UNSAFE_BUT_KNOWN = frozenset(
    {b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"tIME", b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi", b"pCAL", b"sCAL"}
)
_BAND_ROWS = 64  # filtered at once: small enough to stay in the cache
_INFLATE_STEP = 1 << 15
# Paeth residuals of photos repeat little: run lengths alone are faster and mostly smaller than levels 1 to 4. Level 6 takes 1 to 7 %
# less at a seventh of the speed; 9 and filters chosen row by row gain a percent more at best.
_ATTEMPTS = ((1, zlib.Z_RLE), (6, zlib.Z_FILTERED))
# Empty fixed blocks (10 bits: 2 is one more to come, 3 the last), or one and an empty stored block, as the last of a deflate stream.
_LAST_BLOCKS = {
    2: bytes.fromhex("0300"),
    3: bytes.fromhex("020c00"),
    4: bytes.fromhex("02083000"),
    5: bytes.fromhex("020820c000"),
    6: bytes.fromhex("02040000ffff"),
}
_EMPTY_STORED_BLOCK = bytes.fromhex("000000ffff")


class _Chunk(NamedTuple):
    type: bytes
    content: bytes  # the whole chunk, length to CRC

    @property
    def payload(self) -> bytes:
        return self.content[8:-4]


def read(data: bytes) -> Parts:
    chunks = list(_chunks(data))
    types = [chunk.type for chunk in chunks]
    if not types or types[0] != b"IHDR" or types[-1] != b"IEND" or b"IDAT" not in types:
        raise NotAPicture("the PNG lacks its IHDR, IDAT or IEND")
    if len(chunks[-1].content) != _CHUNK_OVERHEAD:
        raise NotAPicture("the IEND of the PNG is not empty")
    width, height, channels = _check_header(chunks[0].payload, len(data))
    if trailing := len(data) - len(_SIGNATURE) - sum(len(chunk.content) for chunk in chunks):
        raise Unsuitable(f"{trailing} bytes after the end of the PNG")
    _check_types(types)
    first, count = types.index(b"IDAT"), types.count(b"IDAT")
    if types[first : first + count] != [b"IDAT"] * count:
        raise NotAPicture("the IDAT chunks of the PNG are not consecutive")
    deflated = b"".join(chunk.payload for chunk in chunks[first : first + count])
    _check_inflates(deflated, height * (1 + width * channels))
    with decoding("the PNG"):
        decoded = imagecodecs.png_decode(_SIGNATURE + chunks[0].content + _pack(b"IDAT", deflated) + _pack(b"IEND", b""))
    pixels = check_decoded(decoded, height, width, channels)
    before = b"".join(chunk.content for chunk in chunks[:first] if chunk.type != _PADDING)
    after = b"".join(chunk.content for chunk in chunks[first + count :] if chunk.type != _PADDING)
    return Parts(pixels, {"before": len(before)}, before + after)


recipes = only


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    before, after = metadata[: recipe["before"]], metadata[recipe["before"] : -_CHUNK_OVERHEAD]
    end = metadata[-_CHUNK_OVERHEAD:]  # IEND
    for level, strategy in _ATTEMPTS:
        blocks, checksum = _deflate(pixels, level, strategy)
        bare = len(_SIGNATURE) + len(metadata) + _CHUNK_OVERHEAD + len(blocks) + min(_LAST_BLOCKS) + len(checksum)
        room = _CHUNK_OVERHEAD + 1 + len(marker) if size is None else size - bare
        if room >= (0 if size is None else spare):
            padding = _pack(_PADDING, pack_marker(marker, room - _CHUNK_OVERHEAD)) if room >= _CHUNK_OVERHEAD else b""
            image = _pack(b"IDAT", blocks + _last_blocks(min(_LAST_BLOCKS) + room - len(padding)) + checksum)
            return b"".join((_SIGNATURE, before, image, after, padding, end))
    raise DoesNotFit(f"a PNG render of {bare} bytes does not fit into {size}")


def find_marker(data: bytes) -> bytes | None:
    return first_marker(chunk.payload for chunk in _chunks(data) if chunk.type == _PADDING)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks up to IEND, each with its CRC checked."""
    at = len(_SIGNATURE)
    while at < len(data):
        end = at + _CHUNK_OVERHEAD + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise NotAPicture(f"the PNG ends within the chunk at byte {at}")
        chunk = _Chunk(data[at + 4 : at + 8], data[at:end])
        checksum = zlib.crc32(memoryview(chunk.content)[4:-4])
        if not (chunk.type.isalpha() and chunk.type.isascii()) or checksum != int.from_bytes(chunk.content[-4:], "big"):
            raise NotAPicture(f"the chunk at byte {at} of the PNG has a wrong type or checksum")
        yield chunk
        if chunk.type == b"IEND":
            return
        at = end


def _check_header(header: bytes, size: int) -> tuple[int, int, int]:
    """Width, height and channels, once they are found suitable."""
    if len(header) != 13:
        raise NotAPicture("the PNG has an IHDR of a wrong length")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise NotAPicture("the PNG has an IHDR that the specification does not know")
    check_dimensions(width, height, size)
    if colour not in _CHANNELS:
        raise Unsuitable("a PNG with a palette" if colour == 3 else "a PNG with an alpha channel")
    if depth != 8 or interlace:
        raise Unsuitable(f"{depth} bits a sample" if depth != 8 else "an interlaced PNG")
    return width, height, _CHANNELS[colour]


def _check_types(types: list[bytes]) -> None:
    for name in types:
        if name in _ANIMATION:
            raise Unsuitable("an animated PNG")
        if name == b"tRNS":
            raise Unsuitable("a PNG with a transparent colour")
        if name[:1].isupper() and name not in _CRITICAL:
            raise Unsuitable(f"a PNG with the unknown critical chunk {name.decode()}")
        if name[:1].islower() and name[3:].isupper() and name not in _UNSAFE_BUT_KNOWN:
            raise Unsuitable(f"a PNG with the chunk {name.decode()}, which is bound to its coded pixels")
    if types.count(b"IHDR") != 1:
        raise NotAPicture("the PNG has several IHDR")


def _check_inflates(deflated: bytes, size: int) -> None:
    """`deflated` must be one whole zlib stream of `size` bytes. Memory: what one step inflates to, at most 1032 times as much."""
    inflater = zlib.decompressobj()
    total = 0
    try:
        for at in range(0, len(deflated), _INFLATE_STEP):
            total += len(inflater.decompress(deflated[at : at + _INFLATE_STEP]))
            if total > size or inflater.unused_data:
                break
    except zlib.error as error:
        raise NotAPicture(f"the PNG does not inflate: {error}") from None
    if not inflater.eof or total != size or inflater.unused_data:
        raise NotAPicture(f"the PNG does not inflate to just the {size} bytes that its dimensions need")


def _deflate(pixels: Pixels, level: int, strategy: int) -> tuple[bytes, bytes]:
    """A zlib stream of the filtered rows, in two parts: all but the last deflate block, byte-aligned, and the checksum."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    checksum = zlib.adler32(b"")
    pieces: list[bytes] = []
    for band in _filtered(pixels):
        checksum = zlib.adler32(band, checksum)
        pieces.append(deflater.compress(band))
    pieces.append(deflater.flush(zlib.Z_SYNC_FLUSH))
    return b"".join(pieces), struct.pack(">I", checksum)


def _filtered(pixels: Pixels) -> Iterator[bytes]:
    """Rows behind their filter type, 4 (Paeth), a band at a time."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    rows = np.pad(pixels.reshape(len(pixels), -1), ((1, 0), (channels, 0)))
    for top in range(0, len(pixels), _BAND_ROWS):
        band = rows[top : top + _BAND_ROWS + 1]
        here, left, above, corner = band[1:, channels:], band[1:, :-channels], band[:-1, channels:], band[:-1, :-channels]
        filtered = np.empty((len(here), 1 + here.shape[1]), np.uint8)
        filtered[:, 0] = 4
        np.subtract(here, _paeth(left, above, corner), out=filtered[:, 1:])
        yield filtered.tobytes()


def _paeth(left: Pixels, above: Pixels, corner: Pixels) -> Pixels:
    """Whichever is nearest to left + above - corner; of equals the first (PNG, 9.4)."""
    a, b, c = left.astype(np.int16), above.astype(np.int16), corner.astype(np.int16)
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest_is_left = (to_left <= to_above) & (to_left <= to_corner)
    return np.where(nearest_is_left, left, np.where(to_above <= to_corner, above, corner))


def _last_blocks(length: int) -> bytes:
    """The end of a deflate stream: no data, `length` bytes, at least 2."""
    stored = max(0, length - min(_LAST_BLOCKS)) // len(_EMPTY_STORED_BLOCK)
    return _EMPTY_STORED_BLOCK * stored + _LAST_BLOCKS[length - stored * len(_EMPTY_STORED_BLOCK)]


def _pack(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(payload, zlib.crc32(name)))
