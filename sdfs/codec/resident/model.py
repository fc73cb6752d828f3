"""What the codec needs of a model, and the bundled one."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from sdfs.codec.autoencoders.interface import Pixels
from sdfs.codec.autoencoders.layout import Analysed, fineness, log2_step
from sdfs.codec.autoencoders.runner import BundledAutoencoder
from sdfs.codec.coding.learned_coder import LearnedCoder, Worth
from sdfs.codec.quality import rate_distortion
from sdfs.codec.quality.scores import compare
from sdfs.errors import DamagedError
from sdfs.settings import Effort

HASH_DIGITS = 16  # hex digits of a SHA-256 that a header keeps where it only tells versions apart
_TRIED = (0.5, 1.0, 2.0)  # times what error is worth: what the best effort tries


@dataclass(frozen=True)
class Encoded:
    """A picture as latents."""

    section: bytes
    pixels: Pixels  # what a decoder gets: (H, W, 3)
    latents_crc32: int
    header: dict[str, Any] = field(default_factory=dict)  # what else the decoder has to know


class ResidentModel(Protocol):
    @property
    def id(self) -> str:
        """By which a blob's header names it."""

    @property
    def weights_sha256(self) -> str:
        """64 hex digits."""

    def encode(self, pixels: Pixels, quality: int, effort: Effort) -> Encoded:
        """(H, W, 3) at quality 0 … 100."""

    def decode(self, section: bytes, header: Mapping[str, Any], height: int, width: int) -> Pixels:
        """(height, width, 3) of a blob's latents and header, which is untrusted: DamagedError, ValueError, LookupError, TypeError."""


class BundledModel:
    def __init__(self, device: torch.device, dtype: torch.dtype, data: bytes | None = None) -> None:
        """`data`: a safetensors file of other weights than those in the package. Raises SafetensorError, LookupError, RuntimeError."""
        if data is None:
            data = resources.files("sdfs").joinpath("codec/weights/bundled.safetensors").read_bytes()
        weights = load(data)
        self.weights_sha256 = hashlib.sha256(data).hexdigest()
        self._autoencoder = BundledAutoencoder(weights, self.weights_sha256, device, dtype)
        self._coder = LearnedCoder(weights)
        self.id = self._autoencoder.id

    @property
    def placed(self) -> tuple[torch.device, torch.dtype]:
        """Where its networks are, and in which number format, for now."""
        return self._autoencoder.placed

    def encode(self, pixels: Pixels, quality: int, effort: Effort) -> Encoded:
        analysed, worth = self._autoencoder.encode(pixels, quality), rate_distortion.worth(pixels)
        if effort is not Effort.BEST:
            return self._encoded(analysed, pixels, quality, worth)

        def cost(tried: Encoded) -> float:
            bits = 8 * len(tried.section) / (pixels.shape[0] * pixels.shape[1])
            return rate_distortion.cost(compare(pixels, tried.pixels), bits, float(log2_step(torch.tensor(fineness(quality)))))

        return min((self._encoded(analysed, pixels, quality, worth * np.float32(factor)) for factor in _TRIED), key=cost)

    def _encoded(self, analysed: Analysed, pixels: Pixels, quality: int, worth: Worth) -> Encoded:
        section, latents = self._coder.encode(analysed, quality, worth)
        decoded = self._autoencoder.decode(latents, quality, *pixels.shape[:2])
        return Encoded(section, decoded, latents.crc32())

    def decode(self, section: bytes, header: Mapping[str, Any], height: int, width: int) -> Pixels:
        factor, quality = self._autoencoder.factor, int(header["quality"])
        latents = self._coder.decode(section, -(-height // factor), -(-width // factor), quality)
        check_latents(latents.crc32(), header)
        return self._autoencoder.decode(latents, quality, height, width)


def latents_crc32(quantised: NDArray[np.int16]) -> int:
    return zlib.crc32(quantised.astype("<i2").tobytes())


def check_latents(crc32: int, header: Mapping[str, Any]) -> None:
    """Raises DamagedError."""
    if crc32 != header["latents_crc32"]:
        raise DamagedError("latent blob: the decoded latents fail their checksum")
