"""The bundled autoencoder as a resident model: device, number format, tiles."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdfs.autoencoders import Latents, Pixels
from sdfs.autoencoders.bundled import CELL, CHANNELS, FACTOR, HALO, Decoder, Encoder
from sdfs.autoencoders.tiles import scaled, spans

TILE = 1536 // FACTOR  # latent positions a tile, per side: bounds memory at about 300 MB
SMALLEST_TILE = 192 // FACTOR  # with its halo it is four times as large: smaller ones save no more memory
LARGEST_ERROR = 4  # of 0…255: what another number format than float32 may do to a pixel. bfloat16 does 1
_HALO = HALO // FACTOR
_TEST_SIDE, _TEST_QUALITY = 64, 50
Result = TypeVar("Result")
_log = logging.getLogger("sdfs.engine")


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware (twice as fast as float32, or more), else float32.

    Decided by what the processor has and not by timing, so that a machine always renders the same pixels.
    """
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if has.get("amx_bf16") or has.get("avx512_bf16") else torch.float32


@dataclass(frozen=True)
class _Networks:
    """On their device, with tiles of `tile` latent positions per side."""

    device: torch.device
    encoder: Encoder
    decoder: Decoder
    tile: int

    @classmethod
    def load(cls, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, tile: int) -> Self:
        """In float32 where `dtype` turns out to be wrong here. A wrong encoder needs no test: the gate compares what it did."""
        networks = cls._in_float32(weights, device, tile)
        if dtype == torch.float32:
            return networks
        exact = networks.decode(*_noise())
        for layer in (*networks.encoder.modules(), *networks.decoder.modules()):
            if isinstance(layer, torch.nn.Conv2d):
                layer.to(dtype)
        error = int(np.abs(np.subtract(networks.decode(*_noise()), exact, dtype=int)).max())
        if error <= LARGEST_ERROR:
            return networks
        _log.warning("%s on %s is off by %d of 255: float32 is used", str(dtype).removeprefix("torch."), device, error)
        return cls._in_float32(weights, device, tile)

    @classmethod
    def _in_float32(cls, weights: Mapping[str, Tensor], device: torch.device, tile: int) -> Self:
        encoder, decoder = Encoder(), Decoder()
        for prefix, network in (("encoder.", encoder), ("decoder.", decoder)):
            network.load_state_dict({k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)})
            network.requires_grad_(False)
            network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(device, encoder, decoder, tile)

    @torch.inference_mode()
    def encode(self, pixels: Pixels, quality: int) -> Latents:
        height, width = pixels.shape[:2]
        rows, columns = -(-height // FACTOR), -(-width // FACTOR)
        padded = np.pad(pixels, ((0, rows * FACTOR - height), (0, columns * FACTOR - width), (0, 0)), mode="edge")
        latents = np.empty((CHANNELS, rows, columns), np.float32)
        q = torch.tensor([float(quality)], device=self.device)
        for y in spans(rows, self.tile, _HALO):
            for x in spans(columns, self.tile, _HALO):
                tile = torch.from_numpy(padded[scaled(y.outer, FACTOR), scaled(x.outer, FACTOR)]).to(self.device)
                out = self.encoder(tile.permute(2, 0, 1)[None].float() / 255, q)[0]
                latents[:, y.inner, x.inner] = out[:, y.kept, x.kept].cpu().numpy()
        return latents

    @torch.inference_mode()
    def decode(self, latents: Latents, quality: int, height: int, width: int) -> Pixels:
        rows, columns = latents.shape[1:]
        pixels = np.empty((rows * FACTOR, columns * FACTOR, 3), np.uint8)
        q = torch.tensor([float(quality)], device=self.device)
        for y in spans(rows, self.tile, _HALO):
            for x in spans(columns, self.tile, _HALO):
                tile = torch.from_numpy(np.ascontiguousarray(latents[:, y.outer, x.outer])).to(self.device)
                cells = self.decoder.cells(tile[None], q)[:, :, scaled(y.kept, FACTOR // CELL), scaled(x.kept, FACTOR // CELL)]
                rounded = cells.mul_(255).add_(127.5).clamp_(0, 255).round_().to(torch.uint8)
                shuffled = F.pixel_shuffle(rounded, CELL)[0].permute(1, 2, 0)  # of bytes: a quarter of what floats take
                pixels[scaled(y.inner, FACTOR), scaled(x.inner, FACTOR)] = shuffled.cpu().numpy()
        return pixels[:height, :width]


class BundledAutoencoder:
    """`Autoencoder` over the networks of `bundled`. The linear paths stay float32 whatever `dtype` is.

    Thread-safe. Where the memory of its device does not suffice, its tiles become smaller, and at last it moves to the CPU, for good.
    """

    id = "bundled-1"
    factor = FACTOR
    channels = CHANNELS

    def __init__(
        self, weights: Mapping[str, Tensor], weights_sha256: str, device: torch.device, dtype: torch.dtype, *, tile: int = TILE
    ) -> None:
        """`weights` holds encoder.* and decoder.*, of any floating dtype. Where `dtype` turns out to be wrong here, float32 is used."""
        self.weights_sha256 = weights_sha256
        self._weights = weights
        self._shrinking = threading.Lock()
        self._networks = _Networks.load(weights, device, dtype, tile)

    @property
    def placed(self) -> tuple[torch.device, torch.dtype]:
        """The device and the number format of the networks, for now."""
        return self._networks.device, self._networks.decoder.from_linear.weight.dtype

    def encode(self, pixels: Pixels, quality: int) -> Latents:
        """(H, W, 3) uint8 -> (256, ceil(H/16), ceil(W/16)) float32. The last rows and columns are repeated up to a whole position."""
        return self._with_memory(lambda networks: networks.encode(pixels, quality))

    def decode(self, latents: Latents, quality: int, height: int, width: int) -> Pixels:
        """(256, h, w) float32 -> (height, width, 3) uint8, height <= 16h, width <= 16w."""
        return self._with_memory(lambda networks: networks.decode(latents, quality, height, width))

    def _with_memory(self, work: Callable[[_Networks], Result]) -> Result:
        while True:
            networks = self._networks
            try:
                return work(networks)
            except torch.OutOfMemoryError:
                if networks.tile <= SMALLEST_TILE and networks.device.type == "cpu":
                    raise
                with self._shrinking:
                    if self._networks is networks:  # no other thread did it meanwhile
                        self._networks = self._smaller(networks)

    def _smaller(self, networks: _Networks) -> _Networks:
        """What takes less of the device's memory than `networks`, which another thread may still use."""
        if networks.tile > SMALLEST_TILE:
            return replace(networks, tile=max(SMALLEST_TILE, networks.tile // 2))
        _log.warning("too little memory on %s: the CPU is used", networks.device)
        return _Networks.load(self._weights, torch.device("cpu"), fastest_dtype(), TILE)


def _noise() -> tuple[Latents, int, int, int]:
    """What a number format is tested with: something to decode, of all frequencies."""
    side = _TEST_SIDE // FACTOR
    latents = np.random.default_rng(0).normal(0, 100, (CHANNELS, side, side)).astype(np.float32)
    return latents, _TEST_QUALITY, _TEST_SIDE, _TEST_SIDE
