"""The bundled autoencoder as a resident model: device, number format, tiles."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from sdfs.codec.autoencoders import lapped, layout
from sdfs.codec.autoencoders.analysis import analyse
from sdfs.codec.autoencoders.interface import Pixels
from sdfs.codec.autoencoders.lapped import COMPONENTS, FACTOR
from sdfs.codec.autoencoders.layout import Analysed, Group, Latents
from sdfs.codec.autoencoders.rendering import HALO, Rendering
from sdfs.codec.autoencoders.restoration import Restoration
from sdfs.codec.autoencoders.side_by_side import side_by_side
from sdfs.codec.autoencoders.tiles import Span, scaled, spans

TILE = 1024 // FACTOR  # latent positions a tile, per side: bounds memory at about 60 MB a processor
SMALLEST_TILE = 192 // FACTOR
LARGEST_ERROR = 4  # of 0…255: what another number format than float32 may do to a pixel. bfloat16 does 1
_ENCODE_HALO = 2  # positions: the windows of one beside the tile shape it, and are chosen by what lies around that one
_TEST_SIDE, _TEST_QUALITY = 64, 50
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware (twice as fast as float32, or more), else float32.

    Decided by what the processor has and not by timing, so that a machine always renders the same pixels.
    """
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if has.get("amx_bf16") or has.get("avx512_bf16") else torch.float32


@dataclass(frozen=True)
class _Network:
    """On its device, with tiles of `tile` latent positions per side."""

    device: torch.device
    restoration: Restoration
    tile: int

    @classmethod
    def load(cls, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, tile: int) -> Self:
        """In float32 where `dtype` turns out to be wrong here."""
        network = cls._in_float32(weights, device, tile)
        if dtype == torch.float32:
            return network
        exact = network.decode(*_noise())
        for layer in network.restoration.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.to(dtype)
        error = int(np.abs(np.subtract(network.decode(*_noise()), exact, dtype=int)).max())
        if error <= LARGEST_ERROR:
            return network
        _log.warning("%s on %s is off by %d of 255: float32 is used", str(dtype).removeprefix("torch."), device, error)
        return cls._in_float32(weights, device, tile)

    @classmethod
    def _in_float32(cls, weights: Mapping[str, Tensor], device: torch.device, tile: int) -> Self:
        restoration = Restoration()
        restoration.load_state_dict({k.removeprefix("restoration."): v.float() for k, v in weights.items() if k.startswith("restoration.")})
        restoration.requires_grad_(False)
        restoration.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(device, restoration, tile)

    def decode(self, latents: Latents, quality: int, height: int, width: int) -> Pixels:
        rows, columns = latents.short.shape
        pixels = np.empty((rows * FACTOR, columns * FACTOR, COMPONENTS), np.uint8)
        rendering = Rendering(self.restoration, quality)
        tiles = list(itertools.product(spans(rows, self.tile, HALO), spans(columns, self.tile, HALO)))
        side_by_side(lambda tile: rendering.render(latents, tile[0], tile[1], pixels), tiles)
        return pixels[:height, :width]


def thumbnail(latents: Latents, quality: int, factor: int) -> Pixels:
    """A picture reduced by `factor`, 16 or 8, from its lowest bands alone, without the network: (16h / factor, 16w / factor, 3) uint8.

    `latents` need no more than the groups MEAN and, for 8, LOW.
    """
    used = (Group.MEAN if factor == FACTOR else Group.LOW).channels.stop
    side = FACTOR // factor
    steps = torch.exp2(layout.log2_steps(torch.tensor([layout.fineness(quality)])))[0, :used] / 16
    values = (torch.from_numpy(latents.values[:, :, :used]).float() * steps).permute(2, 0, 1)[None]
    rgb = lapped.to_rgb(lapped.reduced(layout.to_coefficients(values, side**2), side)).clamp_(0, 255).round_().to(torch.uint8)
    return rgb[0].permute(1, 2, 0).numpy()


class BundledAutoencoder:
    """The transform and the network. Thread-safe.

    Where the memory of its device does not suffice, its tiles become smaller, and at last it moves to the CPU, for good.
    """

    id = "bundled-2"
    factor = FACTOR
    channels = layout.CHANNELS

    def __init__(
        self, weights: Mapping[str, Tensor], weights_sha256: str, device: torch.device, dtype: torch.dtype, *, tile: int = TILE
    ) -> None:
        """`weights` holds restoration.*, of any floating dtype. Where `dtype` turns out to be wrong here, float32 is used."""
        self.weights_sha256 = weights_sha256
        self._weights = weights
        self._tile = tile
        self._shrinking = threading.Lock()
        self._network = _Network.load(weights, device, dtype, tile)

    @property
    def placed(self) -> tuple[torch.device, torch.dtype]:
        """The device and the number format of the network, for now."""
        return self._network.device, self._network.restoration.into.weight.dtype

    @torch.inference_mode()
    def encode(self, pixels: Pixels, quality: int) -> Analysed:
        """(H, W, 3) uint8 -> a grid of ceil(H/16), ceil(W/16) positions. The last rows and columns are repeated up to a whole position."""
        height, width = pixels.shape[:2]
        rows, columns = -(-height // FACTOR), -(-width // FACTOR)
        padded = np.pad(pixels, ((0, rows * FACTOR - height), (0, columns * FACTOR - width), (0, 0)), mode="edge")
        fineness = layout.fineness(quality)
        q, channels = torch.tensor([fineness]), layout.last_group(fineness).channels.stop
        latents, short = np.empty((rows, columns, channels), np.float32), np.empty((rows, columns), np.bool_)
        step, steps = torch.exp2(layout.log2_step(q)), torch.exp2(layout.log2_steps(q))[0]

        def analyse_tile(tile: tuple[Span, Span]) -> None:
            y, x = tile
            part = padded[scaled(y.outer, FACTOR), scaled(x.outer, FACTOR)]
            coefficients, windows = analyse(part, step, layout.last_group(fineness).ends, self.placed[1])
            place = torch.from_numpy(latents[y.inner, x.inner])
            for channel, axis, bands in layout.parts(channels):
                torch.div(coefficients[axis][y.kept, x.kept, bands], steps[channel], out=place[:, :, channel])
            short[y.inner, x.inner] = windows[y.kept, x.kept]

        side_by_side(analyse_tile, list(itertools.product(spans(rows, self._tile, _ENCODE_HALO), spans(columns, self._tile, _ENCODE_HALO))))
        return Analysed(latents, short)

    def decode(self, latents: Latents, quality: int, height: int, width: int) -> Pixels:
        """Latents on (h, w) -> (height, width, 3) uint8, height <= 16h, width <= 16w."""
        return self._with_memory(lambda network: network.decode(latents, quality, height, width))

    def _with_memory(self, work: Callable[[_Network], Result]) -> Result:
        while True:
            network = self._network
            try:
                return work(network)
            except torch.OutOfMemoryError:
                if network.tile <= SMALLEST_TILE and network.device.type == "cpu":
                    raise
                with self._shrinking:
                    if self._network is network:  # no other thread did it meanwhile
                        self._network = self._smaller(network)

    def _smaller(self, network: _Network) -> _Network:
        """What takes less of the device's memory than `network`, which another thread may still use."""
        if network.tile > SMALLEST_TILE:
            return replace(network, tile=max(SMALLEST_TILE, network.tile // 2))
        _log.warning("too little memory on %s: the CPU is used", network.device)
        return _Network.load(self._weights, torch.device("cpu"), fastest_dtype(), TILE)


def _noise() -> tuple[Latents, int, int, int]:
    """What a number format is tested with: something to decode, of all frequencies."""
    side = _TEST_SIDE // FACTOR
    random = np.random.default_rng(0)
    values = np.clip(random.laplace(0, 16, (side, side, layout.CHANNELS)), -2000, 2000).astype(np.int16)
    return Latents(values, random.random((side, side)) < 0.5), _TEST_QUALITY, _TEST_SIDE, _TEST_SIDE
