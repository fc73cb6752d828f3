"""The bundled autoencoder as a resident model: device, number format, tiles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sdfs.autoencoders import Latents, Pixels
from sdfs.autoencoders.bundled import CHANNELS, FACTOR, HALO, Decoder, Encoder
from sdfs.autoencoders.tiles import scaled, spans

TILE = 1536 // FACTOR  # latent positions a tile, per side: bounds memory at about 300 MB
_HALO = HALO // FACTOR


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware (twice as fast as float32, or more), else float32.

    Decided by what the processor has and not by timing, so that a machine always renders the same pixels.
    """
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if has.get("amx_bf16") or has.get("avx512_bf16") else torch.float32


class BundledAutoencoder:
    """`Autoencoder` over the networks of `bundled`. The linear paths stay float32 whatever `dtype` is."""

    id = "bundled-1"
    factor = FACTOR
    channels = CHANNELS

    def __init__(self, weights: Mapping[str, Tensor], weights_sha256: str, device: torch.device, dtype: torch.dtype) -> None:
        """`weights` holds encoder.* and decoder.*, of any floating dtype."""
        self.weights_sha256 = weights_sha256
        self._device = device
        self._encoder, self._decoder = Encoder(), Decoder()
        for prefix, network in (("encoder.", self._encoder), ("decoder.", self._decoder)):
            network.load_state_dict({k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)})
            network.requires_grad_(False)
            network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for layer in network.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.to(dtype)

    @torch.inference_mode()
    def encode(self, pixels: Pixels, quality: int) -> Latents:
        """(H, W, 3) uint8 -> (256, ceil(H/16), ceil(W/16)) float32. The last rows and columns are repeated up to a whole position."""
        height, width = pixels.shape[:2]
        rows, columns = -(-height // FACTOR), -(-width // FACTOR)
        padded = np.pad(pixels, ((0, rows * FACTOR - height), (0, columns * FACTOR - width), (0, 0)), mode="edge")
        latents = np.empty((CHANNELS, rows, columns), np.float32)
        q = torch.tensor([float(quality)], device=self._device)
        for y in spans(rows, TILE, _HALO):
            for x in spans(columns, TILE, _HALO):
                tile = torch.from_numpy(padded[scaled(y.outer, FACTOR), scaled(x.outer, FACTOR)]).to(self._device)
                out = self._encoder(tile.permute(2, 0, 1)[None].float() / 255, q)[0]
                latents[:, y.inner, x.inner] = out[:, y.kept, x.kept].cpu().numpy()
        return latents

    @torch.inference_mode()
    def decode(self, latents: Latents, quality: int, height: int, width: int) -> Pixels:
        """(256, h, w) float32 -> (height, width, 3) uint8, height <= 16h, width <= 16w."""
        rows, columns = latents.shape[1:]
        pixels = np.empty((rows * FACTOR, columns * FACTOR, 3), np.uint8)
        q = torch.tensor([float(quality)], device=self._device)
        for y in spans(rows, TILE, _HALO):
            for x in spans(columns, TILE, _HALO):
                tile = torch.from_numpy(np.ascontiguousarray(latents[:, y.outer, x.outer])).to(self._device)
                out = self._decoder(tile[None], q)[0, :, scaled(y.kept, FACTOR), scaled(x.kept, FACTOR)]
                rounded = (out.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
                pixels[scaled(y.inner, FACTOR), scaled(x.inner, FACTOR)] = rounded.cpu().numpy()
        return pixels[:height, :width]
