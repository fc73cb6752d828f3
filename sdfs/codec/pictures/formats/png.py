"""PNG: 8 bits a sample, of all colour types, interlaced or not. Source: W3C PNG specification (third edition).

A render keeps IHDR and all other chunks byte-exact and in order around its IDAT, which is padded to the asked size: by a private
chunk before IEND where at least 12 bytes are missing, else by a longer, still empty, last deflate block. One chunk goes: Apple's iDOT has
offsets into the IDAT that was, and only hints how to decode that in parts.

Opacity is kept exactly. A transparent colour (tRNS) is opacity, too: pixels that had it have it again, and no other has. A picture with a
palette gets the nearest colours of it.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import numpy.typing as npt

from sdfs.codec.pictures.formats import palette, png_rows
from sdfs.codec.pictures.formats.palette import Colours
from sdfs.codec.pictures.formats.png_chunks import (
    CHUNK_OVERHEAD,
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB_ALPHA,
    SIGNATURE,
    Chunk,
    Header,
    chunks,
    pack,
    parse_header,
)
from sdfs.codec.pictures.formats.shared import (
    MAX_LOSSLESS_PIXELS_PER_BYTE,
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

_PADDING = b"sdFs"  # ancillary, private, safe to copy
_LEFT_OUT = frozenset({_PADDING, b"iDOT"})
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_CREDENTIALS = b"caBX"
# Formally unsafe to copy when pixels change, but about colour, scale and time only. Unknown ones may depend on the coded pixels.
_UNSAFE_BUT_KNOWN = frozenset(
    {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"tIME", b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi"}
    | {b"pCAL", b"sCAL", b"iDOT"}
)


def read(data: bytes) -> Parts:
    found = list(chunks(data, len(SIGNATURE)))
    types = [chunk.type for chunk in found]
    if not types or types[0] != b"IHDR" or types[-1] != b"IEND" or b"IDAT" not in types:
        raise NotAPicture("the PNG lacks its IHDR, IDAT or IEND")
    end = found[-1].end
    if end - found[-1].start != CHUNK_OVERHEAD:
        raise NotAPicture("the IEND of the PNG is not empty")
    header = parse_header(found[0].payload(data))
    _check_types(types, header)
    check_dimensions(header.width, header.height, end, MAX_LOSSLESS_PIXELS_PER_BYTE)
    first, count = types.index(b"IDAT"), types.count(b"IDAT")
    before, image, after = found[:first], found[first : first + count], found[first + count :]
    if any(chunk.type != b"IDAT" for chunk in image):
        raise NotAPicture("the IDAT chunks of the PNG are not consecutive")
    head = _joined(data, before)
    pixels, alpha = _decode(header, head, b"".join(chunk.payload(data) for chunk in image))
    return Parts(pixels, {"before": len(head)}, head + _joined(data, after), data[end:], alpha)


recipes = only


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    before, after = metadata[: recipe["before"]], metadata[recipe["before"] : -CHUNK_OVERHEAD]
    end = metadata[-CHUNK_OVERHEAD:]  # IEND
    header = parse_header(before[8:21])  # IHDR comes first
    samples = _samples(pixels, header, before)
    for attempt in png_rows.INDEX_ATTEMPTS if header.colour == PALETTE else png_rows.ATTEMPTS:
        blocks, checksum = png_rows.deflate(samples, header, attempt)
        bare = len(SIGNATURE) + len(metadata) + CHUNK_OVERHEAD + len(blocks) + png_rows.LEAST_LAST_BLOCKS + len(checksum)
        room = CHUNK_OVERHEAD + 1 + len(marker) if size is None else size - bare
        if room >= (0 if size is None else spare):
            padding = pack(_PADDING, pack_marker(marker, room - CHUNK_OVERHEAD)) if room >= CHUNK_OVERHEAD else b""
            last = png_rows.last_blocks(png_rows.LEAST_LAST_BLOCKS + room - len(padding))
            return b"".join((SIGNATURE, before, pack(b"IDAT", blocks + last + checksum), after, padding, end))
        if size is not None and bare > png_rows.MOST_GAIN * size:
            break
    raise DoesNotFit(f"a PNG render of {bare} bytes does not fit into {size}")


def find_marker(data: bytes) -> bytes | None:
    return first_marker(chunk.payload(data) for chunk in chunks(data, len(SIGNATURE)) if chunk.type == _PADDING)


def _check_types(types: list[bytes], header: Header) -> None:
    """Refuse what no render can stand for."""
    if header.depth != 8:
        few = f"a palette of at most {1 << header.depth} colours" if header.colour == PALETTE else f"{header.depth} bits a sample"
        raise Unsuitable("1 bit a sample" if header.depth == 1 else few)
    if not _ANIMATION.isdisjoint(types):
        raise Unsuitable("an animated PNG")
    if _CREDENTIALS in types:
        raise Unsuitable("content credentials are bound to the exact bytes")
    if types.count(b"IHDR") != 1 or types.count(b"PLTE") > 1:
        raise NotAPicture("the PNG has several IHDR or PLTE")
    if b"tRNS" in types and header.colour == PALETTE:
        raise Unsuitable("a palette with transparency")
    if types.count(b"tRNS") > 1 or (b"tRNS" in types and header.colour in (GREY_ALPHA, RGB_ALPHA)):
        raise Unsuitable("a PNG with tRNS beside other opacity")
    for name in types:
        if name[:1].isupper() and name not in _CRITICAL:
            raise Unsuitable(f"a PNG with the unknown critical chunk {name.decode()}")
        if name[:1].islower() and name[3:].isupper() and name not in _UNSAFE_BUT_KNOWN:
            raise Unsuitable(f"a PNG with the chunk {name.decode()}, which is bound to its coded pixels")


def _joined(data: bytes, found: list[Chunk]) -> bytes:
    return b"".join(chunk.content(data) for chunk in found if chunk.type not in _LEFT_OUT)


def _decode(header: Header, head: bytes, deflated: bytes) -> tuple[Pixels, Pixels | None]:
    """Pixels and opacity. `head`: the chunks before IDAT."""
    colours = _colours(head) if header.colour == PALETTE else None
    key = _transparent(head, header)
    png_rows.check_inflates(deflated, header)
    samples = _decode_samples(header._replace(colour=GREY) if colours is not None else header, deflated)  # of a palette the indices
    if colours is not None:
        return palette.look_up(samples, colours), None
    if key is not None:
        return samples, np.where(_has_colour(samples, key), np.uint8(0), np.uint8(255))
    if header.colour in (GREY_ALPHA, RGB_ALPHA):
        colour = samples[:, :, 0] if header.colour == GREY_ALPHA else samples[:, :, :3]
        return np.ascontiguousarray(colour), np.ascontiguousarray(samples[:, :, -1])
    return samples, None


def _decode_samples(header: Header, deflated: bytes) -> Pixels:
    if header.interlaced:  # libpng does it too, but complains on stderr each time that imagecodecs does not say so
        samples = np.empty((header.height, header.width, header.channels), np.uint8)
        for place, part, coded in png_rows.apart(deflated, header):
            samples[place] = _decode_samples(part, coded).reshape(part.height, part.width, part.channels)
        return samples[:, :, 0] if header.channels == 1 else samples
    with decoding("the PNG"):
        decoded = imagecodecs.png_decode(SIGNATURE + header.pack() + pack(b"IDAT", deflated) + pack(b"IEND", b""))
    return check_decoded(decoded, header.height, header.width, header.channels)


def _samples(pixels: Pixels, header: Header, head: bytes) -> Pixels:
    """The inverse of `_decode`: what is filtered and deflated."""
    if header.colour == PALETTE:
        return palette.nearest(pixels, _colours(head))
    key = _transparent(head, header)
    if key is None:
        return pixels
    colour, transparent = pixels[:, :, :-1].copy(), pixels[:, :, -1] == 0
    by_chance = _has_colour(colour, key) & ~transparent
    colour[by_chance, -1] ^= 1
    colour[transparent] = key
    return colour if header.channels == 3 else colour[:, :, 0]


def _has_colour(samples: Pixels, key: Pixels) -> npt.NDArray[np.bool_]:
    return (samples.reshape(*samples.shape[:2], -1) == key).all(axis=2)


def _payload(head: bytes, name: bytes) -> bytes | None:
    return next((chunk.payload(head) for chunk in chunks(head, 0) if chunk.type == name), None)


def _colours(head: bytes) -> Colours:
    """The palette. Raises NotAPicture and Unsuitable."""
    payload = _payload(head, b"PLTE") or b""
    if len(payload) % 3:
        raise NotAPicture(f"the PNG has a palette of {len(payload)} bytes")
    palette.check_colours(len(payload) // 3)
    return np.frombuffer(payload, np.uint8).reshape(-1, 3)


def _transparent(head: bytes, header: Header) -> Pixels | None:
    """The colour that tRNS says is transparent, (channels,); None where there is none. Raises NotAPicture."""
    payload = _payload(head, b"tRNS")
    if payload is None:
        return None
    if len(payload) != 2 * header.channels:
        raise NotAPicture(f"the PNG has a tRNS of {len(payload)} bytes")
    return np.frombuffer(payload, np.uint8)[1::2]  # 16 bits each, of which 8 count
