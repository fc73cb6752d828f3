"""Opacity, kept exactly: one byte where all of it is alike, else a lossless JPEG XL."""

from __future__ import annotations

import imagecodecs
import numpy as np
import numpy.typing as npt

from sdfs.codec.pictures.formats import jpegxl
from sdfs.errors import DamagedError

_EFFORT = 5  # of 1 to 9
_THREADS = 1  # the engine's work is its own to spread


def pack(alpha: npt.NDArray[np.uint8]) -> bytes:
    """(H, W) to bytes from which `unpack` makes it again."""
    if (alpha == alpha.flat[0]).all():
        return alpha.tobytes()[:1]
    return bytes(imagecodecs.jpegxl_encode(np.ascontiguousarray(alpha), lossless=True, effort=_EFFORT, numthreads=_THREADS))


def unpack(packed: bytes, height: int, width: int) -> npt.NDArray[np.uint8]:
    """(height, width). Raises DamagedError, before anything is decoded where the dimensions are others."""
    if len(packed) == 1:
        return np.full((height, width), packed[0], np.uint8)
    if (claimed := jpegxl.dimensions(packed)) != (width, height):
        raise DamagedError(f"opacity of {claimed[0]} x {claimed[1]} pixels: want {width} x {height}")
    try:
        alpha = np.asarray(imagecodecs.jpegxl_decode(packed, numthreads=_THREADS))
    except (imagecodecs.JpegxlError, ValueError) as error:
        raise DamagedError(f"opacity cannot be decoded: {error}") from error
    if alpha.shape != (height, width) or alpha.dtype != np.uint8:
        raise DamagedError(f"opacity of shape {alpha.shape}, {alpha.dtype}: want {height} x {width} bytes")
    return alpha
