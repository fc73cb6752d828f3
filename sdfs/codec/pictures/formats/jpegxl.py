"""JPEG files as JPEG XL and back, bit for bit. Source: ISO/IEC 18181-1 (codestream), 18181-2 (boxes); libjxl does the work."""

from __future__ import annotations

import imagecodecs

from sdfs.codec.pictures.formats import jpeg
from sdfs.codec.pictures.formats.shared import check_claims
from sdfs.errors import DamagedError, PictureError

_SIGNATURE = b"\xff\x0a"
_THREADS = 1  # the engine's work is its own to spread
_HEAD_BYTES = 16  # of a codestream: signature and size header take at most 12
_SIDE_BITS = (9, 13, 18, 30)  # of the four codings of a side
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # width to height


def transcode(data: bytes) -> bytes | None:
    """A smaller file that `restore` makes `data` of, as has been tried; None where libjxl cannot."""
    try:
        check_claims(*jpeg.dimensions(data), len(data))
        payload = bytes(imagecodecs.jpegxl_encode_jpeg(data, numthreads=_THREADS))
        return payload if restore(payload, len(data)) == data else None
    except (PictureError, DamagedError, imagecodecs.JpegxlError, ValueError):
        return None


def restore(payload: bytes, size: int) -> bytes:
    """The JPEG file of at most `size` bytes. Raises DamagedError; never decodes dimensions that so many bytes cannot hold."""
    try:
        check_claims(*dimensions(payload), size)
        return bytes(imagecodecs.jpegxl_decode_jpeg(payload, numthreads=_THREADS, out=size))
    except (PictureError, imagecodecs.JpegxlError, ValueError) as error:
        raise DamagedError(f"JPEG XL payload: {error}") from error


def dimensions(payload: bytes) -> tuple[int, int]:
    """(width, height) as the codestream's size header claims (18181-1, D.2). Raises DamagedError."""
    head = _codestream_head(payload)
    if not head.startswith(_SIGNATURE):
        raise DamagedError("JPEG XL payload: no codestream signature")
    bits = int.from_bytes(head[2:], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def take_side() -> int:
        return 8 * (take(5) + 1) if small else take(_SIDE_BITS[take(2)]) + 1

    small = take(1)
    height = take_side()
    ratio = take(3)
    if not ratio:
        return take_side(), height
    return height * _RATIOS[ratio][0] // _RATIOS[ratio][1], height


def _codestream_head(payload: bytes) -> bytes:
    """The codestream's beginning: that of the payload, or of its first box of type jxlc (whole) or jxlp (parts, numbered in 4 bytes)."""
    if payload.startswith(_SIGNATURE):
        return payload[:_HEAD_BYTES]
    at = 0
    while at + 8 <= len(payload):
        length, kind = int.from_bytes(payload[at : at + 4], "big"), payload[at + 4 : at + 8]
        if kind in (b"jxlc", b"jxlp"):
            start = at + (16 if length == 1 else 8) + (4 if kind == b"jxlp" else 0)
            return payload[start : start + _HEAD_BYTES]
        if length < 8:
            break  # 0: the last box; 1: too long to come before the codestream
        at += length
    raise DamagedError("JPEG XL payload: no codestream")
