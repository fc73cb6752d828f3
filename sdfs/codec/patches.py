"""Squares of a picture that are coded better than the rest of it: those with letters, where there are few.

Packed each is its first row and column, its height and width, and the bytes that follow, 4 bytes each, then an AVIF file. A decoder puts it
over the other pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdfs.codec.quality.sample import Corner
from sdfs.codec.resident.image_codecs import Avif
from sdfs.errors import DamagedError

_HEAD = struct.Struct("<IIIII")


@dataclass(frozen=True)
class Patch:
    """One square, as a decoder gets it."""

    corner: Corner
    pixels: NDArray[np.uint8]  # (height, width, 3)
    section: bytes


def pack(patches: Iterable[Patch]) -> bytes:
    """Bytes that `apply` takes."""
    return b"".join(_HEAD.pack(*one.corner, *one.pixels.shape[:2], len(one.section)) + one.section for one in patches)


def put(patches: Iterable[Patch], pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (H, W, 3) with patches in their places."""
    whole = pixels.copy()
    for one in patches:
        _put(whole, one.corner, one.pixels)
    return whole


def apply(packed: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (H, W, 3) with packed patches in their places. Raises DamagedError; what has no place there is not decoded."""
    whole, at = pixels.copy(), 0
    while at < len(packed):
        if at + _HEAD.size > len(packed):
            raise DamagedError("patches are cut off")
        top, left, height, width, length = _HEAD.unpack_from(packed, at)
        section = packed[at + _HEAD.size : at + _HEAD.size + length]
        at += _HEAD.size + length
        if at > len(packed) or top + height > whole.shape[0] or left + width > whole.shape[1] or not height * width:
            raise DamagedError(f"a patch of {width} x {height} pixels at ({left}, {top}) has no place in the picture")
        _put(whole, Corner(top, left), Avif.decoded(section, height, width))
    return whole


def _put(whole: NDArray[np.uint8], corner: Corner, square: NDArray[np.uint8]) -> None:
    height, width = square.shape[:2]
    whole[corner.top : corner.top + height, corner.left : corner.left + width] = square
