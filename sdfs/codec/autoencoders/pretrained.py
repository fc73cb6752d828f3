"""Any of diffusers' image autoencoders as a resident model: AutoencoderKL, AutoencoderTiny, AutoencoderDC.

Their latents are used normalised, (z - shift_factor) * scaling_factor as the model's configuration says, which makes them about unit
variance, and those of a tiny autoencoder the same as those of the one that it imitates.

Most have attention over a whole tile, and group normalisation, so that the tiles' grid changes the result: see `blending`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import diffusers
import numpy as np
import torch
from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdfs.codec.autoencoders.blending import blend
from sdfs.codec.autoencoders.interface import Latents, Pixels
from sdfs.codec.autoencoders.runner import fastest_dtype
from sdfs.errors import ModelError

CLASSES = {name: getattr(diffusers, name) for name in ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")}
TILE_PIXELS = 512  # what SD was trained at; attention over more costs its square
_MOST_LAYERS = 64
_MOST_CHANNELS = 1 << 14
_PROBE_POSITIONS = 2
_LARGEST_LATENT = 1e4  # normalised ones are a few units large

_log = logging.getLogger(__name__)
logging.getLogger("diffusers").setLevel(logging.ERROR)


@dataclass(frozen=True)
class _Placed:
    """A diffusers autoencoder, ready to run."""

    model: Any
    device: torch.device
    dtype: torch.dtype
    is_resort: bool = False  # the copy for where the memory did not suffice

    @classmethod
    def on(cls, model: Any, device: torch.device, dtype: torch.dtype, *, is_resort: bool = False) -> Self:
        placed = model.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        return cls(placed.eval().requires_grad_(False), device, dtype, is_resort)

    def resort(self) -> Self:
        copy = type(self.model).from_config(self.model.config)
        copy.load_state_dict({name: value.cpu() for name, value in self.model.state_dict().items()})
        return self.on(copy, torch.device("cpu"), fastest_dtype(), is_resort=True)


class PretrainedAutoencoder:
    """`encode` and `decode` are deterministic on one machine, and differ in the last bits between machines.

    Thread-safe. Where the memory of its device does not suffice, it moves to the CPU, for good: smaller tiles would change the result.
    """

    def __init__(self, model: Any, id: str, weights_sha256: str, device: torch.device, dtype: torch.dtype) -> None:
        """`model`: a diffusers autoencoder. Raises ModelError where it does not work."""
        self.id, self.weights_sha256 = id, weights_sha256
        self._scaling = float(model.config.get("scaling_factor") or 1.0)
        self._shift = float(model.config.get("shift_factor") or 0.0)
        self._moving = threading.Lock()
        self._placed = _Placed.on(model, device, dtype)
        self.bytes_resident = sum(part.numel() * part.element_size() for part in model.parameters())
        self.factor, self.channels = self._probe()
        size = max(8, TILE_PIXELS // self.factor)
        self.tile = (size, size // 4)

    @classmethod
    def load(cls, folder: Path, id: str, weights_sha256: str, *, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """From a folder with config.json and safetensors; nothing is fetched. Raises ModelError."""
        try:
            config = json.loads((folder / "config.json").read_text())
            kind = CLASSES[config["_class_name"]]
            _check_size(kind, config, folder)
            loaded, report = kind.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
            )
        except (OSError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{id} cannot be loaded from {folder}: {_first_line(error)}") from error
        if missing := [*report["missing_keys"], *report["mismatched_keys"]]:
            raise ModelError(f"{id}: the weights do not fit the configuration: {missing[0]} is missing or of another shape")
        return cls(loaded, id, weights_sha256, device, dtype or _best_dtype(device, bool(config.get("force_upcast"))))

    @torch.inference_mode()
    def encode(self, pixels: Pixels) -> Latents:
        """(H, W, 3) uint8 -> (channels, ceil(H / factor), ceil(W / factor)) float32, normalised. Raises ModelError."""
        height, width = pixels.shape[:2]
        rows, columns = -(-height // self.factor), -(-width // self.factor)
        padded = _reflect(pixels, rows * self.factor - height, columns * self.factor - width)

        def make(top: int, left: int, high: int, wide: int) -> Latents:
            f = self.factor
            return self._encode_tile(padded[top * f : (top + high) * f, left * f : (left + wide) * f])

        bands = [band for _, band in blend(rows, columns, self.tile, 1, self.channels, make)]
        return np.concatenate(bands, 1)

    @torch.inference_mode()
    def decode(self, latents: Latents, height: int, width: int, tile: tuple[int, int] | None = None) -> Pixels:
        """(channels, h, w) -> (height, width, 3) uint8, height <= factor * h; `tile` as the encoder had it.

        Raises ModelError, and ValueError for latents or a grid that cannot be its.
        """
        channels, rows, columns = latents.shape
        if channels != self.channels:
            raise ValueError(f"{self.id} has latents of {self.channels} channels, not {channels}")
        grid = self.tile if tile is None else tile
        if max(grid) > 4 * max(self.tile):
            raise ValueError(f"tiles of {grid[0]} positions are larger than any that {self.id} makes")

        def make(top: int, left: int, high: int, wide: int) -> Latents:
            return self._decode_tile(latents[:, top : top + high, left : left + wide])

        pixels = np.empty((rows * self.factor, columns * self.factor, 3), np.uint8)
        for top, band in blend(rows, columns, grid, self.factor, 3, make):
            pixels[top : top + band.shape[1]] = np.rint(np.clip(band, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
        return pixels[:height, :width]

    def _encode_tile(self, pixels: Pixels) -> Latents:
        return self._with_memory(lambda placed: self._encode_on(placed, pixels))

    def _decode_tile(self, latents: Latents) -> Latents:
        return self._with_memory(lambda placed: self._decode_on(placed, latents))

    def _with_memory(self, work: Callable[[_Placed], Latents]) -> Latents:
        placed = self._placed
        try:
            return work(placed)
        except torch.OutOfMemoryError:
            if placed.is_resort:
                raise
        with self._moving:
            if self._placed is placed:  # no other thread did it meanwhile
                _log.warning("too little memory on %s for %s: the CPU is used", placed.device, self.id)
                self._placed = placed.resort()  # a copy, since another thread may still use the first
        return work(self._placed)

    def _encode_on(self, placed: _Placed, pixels: Pixels) -> Latents:
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(placed.device).permute(2, 0, 1)[None]
        x = (x.float() / 127.5 - 1).to(placed.dtype)
        out = placed.model.encode(x)
        z = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latents if hasattr(out, "latents") else out.latent
        normalised = (z[0].float() - self._shift) * self._scaling
        self._check(normalised, "latents", placed.dtype)
        return normalised.cpu().numpy()

    def _decode_on(self, placed: _Placed, latents: Latents) -> Latents:
        z = torch.from_numpy(np.ascontiguousarray(latents)).to(placed.device)[None] / self._scaling + self._shift
        out = placed.model.decode(z.to(placed.dtype)).sample[0].float()
        self._check(out, "pixels", placed.dtype)
        return ((out + 1) * 127.5).cpu().numpy()

    def _check(self, values: Tensor, what: str, dtype: torch.dtype) -> None:
        if not bool(values.abs().max() < _LARGEST_LATENT):  # false for NaN, too
            raise ModelError(f"{self.id} gives {what} that are no numbers, or huge ones, in {str(dtype).removeprefix('torch.')}")

    @torch.inference_mode()
    def _probe(self) -> tuple[int, int]:
        """Pixels a latent position, per side, and latent channels; by trying."""
        side = 32 * _PROBE_POSITIONS
        try:
            latents = self._encode_tile(np.full((side, side, 3), 128, np.uint8))
            channels, rows, columns = latents.shape
            if rows != columns or not rows or side % rows:
                raise ModelError(f"{self.id} makes {rows} x {columns} latent positions of {side} x {side} pixels")
            decoded = self._decode_tile(latents)
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise ModelError(f"{self.id} does not work: {_first_line(error)}") from error
        if decoded.shape != (3, side, side):
            raise ModelError(f"{self.id} decodes to {decoded.shape}, not to the {side} x {side} pixels that it encoded")
        return side // rows, channels


def _best_dtype(device: torch.device, overflows: bool) -> torch.dtype:
    """What is fast; `overflows`: the model says that float16's range is too small for it (SDXL)."""
    if device.type != "cuda":
        return fastest_dtype()
    if torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32 if overflows else torch.float16


def _check_size(kind: Any, config: dict[str, Any], folder: Path) -> None:
    """A configuration must not claim more than its weights hold: nothing is allocated for that. Raises ValueError."""
    for name, value in config.items():
        numbers = value if isinstance(value, list) else [value]
        most = _MOST_LAYERS if "layers" in name or "num_blocks" in name else _MOST_CHANNELS
        if len(numbers) > 32 or any(isinstance(number, int) and number > most for number in numbers):
            raise ValueError(f"its configuration has {name} = {value}")
    with torch.device("meta"):
        claimed = sum(part.numel() for part in kind.from_config(config).parameters())
    with safe_open(folder / SAFETENSORS_WEIGHTS_NAME, framework="numpy") as file:
        held = sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())  # noqa: SIM118
    if claimed > held:
        raise ValueError(f"its configuration claims {claimed} weights, {SAFETENSORS_WEIGHTS_NAME} holds {held}")


def _reflect(pixels: Pixels, down: int, right: int) -> Pixels:
    """Reflected beyond the last row and column; as often as it takes."""
    while down or right:
        more = min(down, pixels.shape[0] - 1), min(right, pixels.shape[1] - 1)
        if more == (0, 0):
            return np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
        pixels = np.pad(pixels, ((0, more[0]), (0, more[1]), (0, 0)), mode="reflect")
        down, right = down - more[0], right - more[1]
    return pixels


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
