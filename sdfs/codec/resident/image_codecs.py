"""Image codecs beside the autoencoders, for pictures of which those need more bytes: text, screens, drawings.

They are coders of pixels as an autoencoder with its coder is one: AVIF at a quality of its own, JPEG XL without loss.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from sdfs.codec.autoencoders.interface import Pixels
from sdfs.codec.resident.model import Encoded, check_latents
from sdfs.errors import DamagedError
from sdfs.settings import Effort

_AVIF_SPEED = {Effort.FAST: 8, Effort.NORMAL: 6, Effort.BEST: 4}
_JPEGXL_EFFORT = {Effort.FAST: 3, Effort.NORMAL: 5, Effort.BEST: 7}
_THREADS = 2


class Avif:
    """AVIF, lossy; what is told to the encoder is libavif's quality, 0 to 100."""

    id = "avif"
    weights_sha256 = ""

    def encode(self, pixels: Pixels, quality: int, effort: Effort) -> Encoded:
        """(H, W, 3) uint8. Small things lose most where chroma is halved, so it is not."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "AVIF", quality=quality, speed=_AVIF_SPEED[effort], subsampling="4:4:4", max_threads=_THREADS)
        section = file.getvalue()
        return Encoded(section, self.decoded(section, *pixels.shape[:2]), zlib.crc32(section))

    def decode(self, section: bytes, header: Mapping[str, Any], height: int, width: int) -> Pixels:
        """As `decoded`, where the section is the blob's."""
        check_latents(zlib.crc32(section), header)
        return self.decoded(section, height, width)

    @staticmethod
    def decoded(section: bytes, height: int, width: int) -> Pixels:
        """(height, width, 3). Raises DamagedError, before anything is decoded where the dimensions are others."""
        try:
            with Image.open(io.BytesIO(section), formats=["AVIF"]) as picture:
                if picture.size != (width, height):
                    raise DamagedError(f"AVIF of {picture.size} pixels: want {width} x {height}")
                return np.array(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise DamagedError(f"AVIF: {error}") from error


class LosslessJpegXl:
    """JPEG XL without loss, for what was never compressed with loss."""

    id = "jpegxl"
    weights_sha256 = ""

    def encode(self, pixels: Pixels, quality: int, effort: Effort) -> Encoded:
        """(H, W, 3) uint8; the quality means nothing."""
        section = bytes(
            imagecodecs.jpegxl_encode(np.ascontiguousarray(pixels), lossless=True, effort=_JPEGXL_EFFORT[effort], numthreads=_THREADS)
        )
        return Encoded(section, pixels, zlib.crc32(section))

    def decode(self, section: bytes, header: Mapping[str, Any], height: int, width: int) -> Pixels:
        """(height, width, 3). Raises DamagedError."""
        check_latents(zlib.crc32(section), header)
        try:
            pixels = imagecodecs.jpegxl_decode(section, numthreads=_THREADS)
        except (imagecodecs.JpegxlError, ValueError) as error:
            raise DamagedError(f"JPEG XL: {error}") from error
        if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
            raise DamagedError(f"JPEG XL of {pixels.shape} {pixels.dtype}: want {height} x {width} pixels")
        return np.asarray(pixels)


AVIF, LOSSLESS = Avif(), LosslessJpegXl()
IMAGE_CODECS: Mapping[str, Avif | LosslessJpegXl] = {codec.id: codec for codec in (AVIF, LOSSLESS)}
