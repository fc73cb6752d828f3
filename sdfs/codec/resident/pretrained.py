"""A model of diffusers' with the coder for any latents. Importing this takes a second or two, for diffusers does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sdfs.codec.autoencoders import tone
from sdfs.codec.autoencoders.interface import Pixels
from sdfs.codec.autoencoders.pretrained import PretrainedAutoencoder
from sdfs.codec.coding.generic_coder import GenericCoder, steps_for
from sdfs.codec.resident.model import Encoded, check_latents, latents_crc32
from sdfs.models import registry
from sdfs.models.folder import Model
from sdfs.settings import Effort


class PretrainedModel:
    def __init__(self, model: Model, device: torch.device, dtype: torch.dtype | None) -> None:
        """Raises ModelError."""
        self.id, self.weights_sha256 = model.id, model.weights_sha256
        self.autoencoder = PretrainedAutoencoder.load(model.folder, model.id, model.weights_sha256, device=device, dtype=dtype)
        self._coder = GenericCoder()
        calibrated = (registry.calibration(model) or {}).get("steps")
        self._relative_steps = np.asarray(calibrated or [1.0] * self.autoencoder.channels, np.float32)

    def encode(self, pixels: Pixels, quality: int, effort: Effort) -> Encoded:
        section, quantised = self._coder.encode(self.autoencoder.encode(pixels), steps_for(quality, self._relative_steps))
        decoded = self.autoencoder.decode(self._coder.dequantise(section, quantised), *pixels.shape[:2])
        corrections, rounded = self._coder.encode(tone.measure(pixels, decoded), tone.STEPS)
        seen = tone.apply(decoded, self._coder.dequantise(corrections, rounded))
        section = len(corrections).to_bytes(4, "little") + corrections + section
        return Encoded(section, seen, latents_crc32(quantised), {"tile": list(self.autoencoder.tile)})

    def decode(self, section: bytes, header: Mapping[str, Any], height: int, width: int) -> Pixels:
        factor, (size, overlap) = self.autoencoder.factor, header["tile"]
        end = 4 + int.from_bytes(section[:4], "little")
        corrections, latents = section[4:end], section[end:]
        rounded = self._coder.decode(corrections, 3, -(-height // tone.CELL), -(-width // tone.CELL))
        quantised = self._coder.decode(latents, self.autoencoder.channels, -(-height // factor), -(-width // factor))
        check_latents(latents_crc32(quantised), header)
        decoded = self.autoencoder.decode(self._coder.dequantise(latents, quantised), height, width, (int(size), int(overlap)))
        return tone.apply(decoded, self._coder.dequantise(corrections, rounded))
