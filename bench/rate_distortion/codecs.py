"""Pixels to bytes and back. What counts is the whole file, without metadata of the picture; of SDFS the whole blob."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Protocol

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from sdfs import container
from sdfs.codec import Codec as BlobCodec
from sdfs.container import KIND_LATENT
from sdfs.settings import Effort, EncodeSettings

Pixels = NDArray[np.uint8]  # (H, W, 3)


class Codec(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def settings(self) -> Sequence[float]:
        """All of them, the coarsest first."""

    @property
    def steps(self) -> Sequence[float]:
        """Those of its curve: more bytes with each."""

    def encode(self, pixels: Pixels, setting: float) -> bytes: ...

    def decode(self, data: bytes) -> Pixels: ...


@dataclass(frozen=True)
class PillowCodec:
    name: str
    version: str
    settings: Sequence[float]  # Pillow's `quality`
    steps: Sequence[float]
    options: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, pixels: Pixels, setting: float) -> bytes:
        return _saved(pixels, self.name, quality=setting, **self.options)

    def decode(self, data: bytes) -> Pixels:
        return _loaded(data)


class JpegXl:
    name = "JPEG XL"
    settings = tuple(tenths / 10 for tenths in range(250, 0, -1))  # Butteraugli distance
    steps = (20.0, 14.0, 10.0, 7.5, 5.5, 4.0, 2.8, 1.8, 1.1)

    @property
    def version(self) -> str:
        return f"{imagecodecs.jpegxl_version()}, effort 7"

    def encode(self, pixels: Pixels, setting: float) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(pixels, distance=setting, effort=7, lossless=False, numthreads=1))

    def decode(self, data: bytes) -> Pixels:
        decoded: Pixels = imagecodecs.jpegxl_decode(data, numthreads=1)
        return decoded


class Sdfs:
    """The blob of the picture as a PNG file, whatever its quality: the gate lets everything pass."""

    name = "SDFS"
    settings = tuple(range(101))
    steps = tuple(range(0, 90, 10))

    def __init__(self, effort: Effort) -> None:
        self._codec = BlobCodec()
        self._effort = effort

    @property
    def version(self) -> str:
        weights = hashlib.sha256(resources.files("sdfs").joinpath("weights/bundled.safetensors").read_bytes()).hexdigest()
        return f"weights {weights}, effort {self._effort}"

    def encode(self, pixels: Pixels, setting: float) -> bytes:
        """Raises ValueError where latents would take more than half of the PNG file, which no photo's do."""
        everything = EncodeSettings(quality=int(setting), effort=self._effort, min_psnr=0, min_ms_ssim=0)
        blob = self._codec.encode(_saved(pixels, "PNG", compress_level=1), everything)
        parsed = container.parse(blob)
        if parsed.preamble.kind != KIND_LATENT:
            raise ValueError(f"kept exactly: {parsed.header['reason']}")
        return blob

    def decode(self, data: bytes) -> Pixels:
        return _loaded(self._codec.decode(data))


def codecs(effort: Effort) -> list[Codec]:
    """SDFS is the last. One thread each; JPEG, WebP and AVIF with their default of chroma at half the resolution.

    AVIF's own default, to tune for how pictures look, is the best of its ways in all scores but PSNR: `tune=psnr` saves another 10 % there,
    and takes 14 to 29 % more for the same MS-SSIM, features or SSIMULACRA2.
    """
    return [
        PillowCodec(
            "JPEG", f"libjpeg-turbo {features.version('libjpeg_turbo')}, optimised, progressive", range(1, 96),
            (4, 7, 11, 16, 24, 36, 52, 70, 82), {"optimize": True, "progressive": True},
        ),
        PillowCodec("WebP", f"libwebp {features.version('webp')}, method 6", range(101), (0, 4, 10, 18, 30, 46, 62, 76, 84), {"method": 6}),
        PillowCodec(
            "AVIF", f"libavif {features.version('avif')}, speed 4", range(101),
            (8, 14, 20, 27, 34, 42, 50, 58, 66), {"speed": 4, "max_threads": 1},
        ),
        JpegXl(),
        Sdfs(effort),
    ]  # fmt: skip


def _saved(pixels: Pixels, file_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, file_format, **options)
    return out.getvalue()


def _loaded(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))
