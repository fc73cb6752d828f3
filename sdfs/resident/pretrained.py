"""A model of diffusers' with the coder for any latents. Importing this takes a second or two, for diffusers does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sdfs import models
from sdfs.autoencoders import Pixels
from sdfs.autoencoders.pretrained import PretrainedAutoencoder
from sdfs.generic_coding import GenericCoder, steps_for
from sdfs.resident.model import Encoded, check_latents, latents_crc32


class PretrainedModel:
    def __init__(self, model: models.Model, device: torch.device, dtype: torch.dtype | None) -> None:
        """Raises ModelError."""
        self.id, self.weights_sha256 = model.id, model.weights_sha256
        self.autoencoder = PretrainedAutoencoder.load(model.folder, model.id, model.weights_sha256, device=device, dtype=dtype)
        self._coder = GenericCoder()
        calibrated = (models.calibration(model) or {}).get("steps")
        self._relative_steps = np.asarray(calibrated or [1.0] * self.autoencoder.channels, np.float32)

    def encode(self, pixels: Pixels, quality: int) -> Encoded:
        section, quantised = self._coder.encode(self.autoencoder.encode(pixels), steps_for(quality, self._relative_steps))
        decoded = self.autoencoder.decode(self._coder.dequantise(section, quantised), *pixels.shape[:2])
        return Encoded(section, decoded, latents_crc32(quantised), {"tile": list(self.autoencoder.tile)})

    def decode(self, section: bytes, header: Mapping[str, Any], height: int, width: int) -> Pixels:
        factor, (size, overlap) = self.autoencoder.factor, header["tile"]
        quantised = self._coder.decode(section, self.autoencoder.channels, -(-height // factor), -(-width // factor))
        check_latents(quantised, header)
        return self.autoencoder.decode(self._coder.dequantise(section, quantised), height, width, (int(size), int(overlap)))
