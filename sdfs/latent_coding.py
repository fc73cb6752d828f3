"""Latents of the bundled autoencoder to bytes and back, through the learned prior and the entropy coder; exact on every machine.

The grid is cut into slices of up to SLICE x SLICE positions, each coded by itself, which bounds the memory of a decode. A slice
is coded in eight passes: hyperlatents, then the seven of `priors.learned`. Positions that pad a slice to a multiple of
HYPER_FACTOR are class 0.

An encoder may be told what error is worth: of a symbol and the next one towards 0 it then takes the one that costs less, in error and
bits together (rate-distortion optimised quantisation). Decoders do not know.

The quantised latents are int16 multiples of 1/16 symbol unit; dequantised, they are latents again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdfs import slices
from sdfs.autoencoders.bundled import CHANNELS
from sdfs.entropy import Classes, Decoder, Symbols, Tables, cheaper, encode, scale_class
from sdfs.priors.learned import HYPER, HYPER_FACTOR, ExactPrior, HyperEncoder, Places, pick

SLICE = 64  # latent positions, per side
LATENT_LIMIT = 2000.0  # symbol units; quantised latents are clamped to this when encoding, so that they fit int16
_HYPER_SYMBOL_LIMIT = 63
_MOST_THREADS = 4  # each takes some 30 MB for its slice
_LEAST_LUMA = 320.0  # of a calm position, as the hyper encoder is shown it: 33 levels from mid-grey
_CALM = 3.0  # symbol units

Quantised = NDArray[np.int16]  # (256, h, w), in 1/16 symbol units
Result = TypeVar("Result")
Worth = NDArray[np.float32]  # (h, w): bits that a squared error of 1 is worth, in the latents of a position


class LearnedCoder:
    """The bundled codec's way from latents to bytes."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """`weights` holds hyper_encoder.*, prior.* and entropy.*."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}

        self._prior = ExactPrior(part("prior."))
        self._hyper_encoder = HyperEncoder()
        self._hyper_encoder.load_state_dict({k: v.float() for k, v in part("hyper_encoder.").items()})
        self._hyper_encoder.requires_grad_(False)
        self._tables = Tables(*(weights[f"entropy.{name}"].numpy().astype(np.int32) for name in ("reach", "frequencies")))
        self._bits = self._tables.bits()

    def encode(self, latents: NDArray[np.float32], quality: int, worth: Worth | None = None) -> tuple[bytes, Quantised]:
        """(256, h, w) float32 -> the bytes of all slices, and the latents a decoder will get.

        `worth`: as of `sdfs.trade_off`; without, latents are rounded to the nearest.
        """
        quantised = np.empty(latents.shape, np.int16)

        def code(place: slices.Place) -> bytes:
            part = None if worth is None else worth[place]
            passes, quantised[:, *place] = self._quantise(latents[:, *place], quality, part)
            return encode(passes, self._tables)

        rows, columns = latents.shape[1:]
        return slices.join(_side_by_side(code, list(slices.places(rows, columns, SLICE)))), quantised

    def decode(self, data: bytes, rows: int, columns: int, quality: int) -> Quantised:
        """Inverse of `encode`. Raises DamagedError where `data` does not hold exactly these slices."""
        parts = slices.split(data, rows, columns, SLICE)
        quantised = np.empty((CHANNELS, rows, columns), np.int16)

        def decode(place: slices.Place, part: bytes) -> None:
            height, width = place[0].stop - place[0].start, place[1].stop - place[1].start
            quantised[:, *place] = self._decode_slice(part, height, width, quality)

        _side_by_side(decode, list(slices.places(rows, columns, SLICE)), parts)
        return quantised

    def dequantise(self, quantised: Quantised, quality: int) -> NDArray[np.float32]:
        """Quantised latents -> latents (256, h, w) float32."""
        steps = np.exp2(-self._prior.gains(torch.tensor([quality]))[0].numpy()) / 16
        return quantised.astype(np.float32) * steps.astype(np.float32)[:, None, None]

    def symbols(self, latents: NDArray[np.float32], quality: int, worth: Worth) -> list[tuple[Symbols, Classes]]:
        """The symbols and classes of all passes of all slices: what calibration counts."""
        places = slices.places(latents.shape[1], latents.shape[2], SLICE)
        parts = (self._quantise(latents[:, *place], quality, worth[place])[0] for place in places)
        return [one for passes in parts for one in passes]

    @torch.no_grad()
    def _quantise(self, latents: NDArray[np.float32], quality: int, worth: Worth | None) -> tuple[list[tuple[Symbols, Classes]], Quantised]:
        rows, columns = latents.shape[1:]
        gain = torch.exp2(self._prior.gains(torch.tensor([quality]))).float()[:, :, None, None]
        y = (torch.from_numpy(latents)[None] * gain).clamp(-LATENT_LIMIT, LATENT_LIMIT)
        y = F.pad(y, (0, -columns % HYPER_FACTOR, 0, -rows % HYPER_FACTOR), mode="replicate")
        inside = _inside(rows, columns, y.shape[2], y.shape[3])
        hyper_classes = self._hyper_classes(quality, y.shape[2] // HYPER_FACTOR, y.shape[3] // HYPER_FACTOR)
        hyper = (
            self._hyper_encoder(_off_grey(y, gain), torch.tensor([float(quality)])).round().clamp(-_HYPER_SYMBOL_LIMIT, _HYPER_SYMBOL_LIMIT)
        )
        hyper = hyper.double() * torch.from_numpy(hyper_classes.reshape(hyper.shape) > 0)
        passes = [(hyper.numpy().astype(np.int32).ravel(), hyper_classes)]
        y = y.double()
        prices = None if worth is None else self._prices(worth, gain, y.shape[2], y.shape[3])

        def step(channels: slice, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
            classes = _classes(log2_scale, inside[places])
            residuals = pick(y[:, channels], places) - mean
            if prices is None:
                symbols = torch.floor(residuals + 0.5)
            else:
                symbols = self._cheapest(residuals, classes.reshape(mean.shape), pick(prices[:, channels], places))
            symbols = symbols * torch.from_numpy(classes.reshape(mean.shape) > 0)
            passes.append((symbols.numpy().astype(np.int32).ravel(), classes))
            return symbols + mean

        decoded = self._prior.walk(hyper, quality, step)
        return passes, _to_quantised(decoded, rows, columns)

    @staticmethod
    def _prices(worth: Worth, gain: Tensor, height: int, width: int) -> Tensor:
        """(1, 256, height, width) float32: what a squared error of one symbol unit is worth, in bits."""
        padded = np.pad(worth, ((0, height - worth.shape[0]), (0, width - worth.shape[1])), mode="edge")
        return torch.from_numpy(padded) / gain.square()

    def _cheapest(self, residuals: Tensor, classes: Classes, prices: Tensor) -> Tensor:
        """Of the nearest symbols and the next ones towards 0 those that cost less."""
        magnitudes, worth = residuals.abs().numpy(), prices.numpy()
        nearest = np.floor(magnitudes + 0.5)
        chosen, _ = cheaper(nearest, classes, self._bits, lambda symbols: worth * np.square(magnitudes - symbols))
        return residuals.sign() * torch.from_numpy(chosen)

    @torch.no_grad()
    def _decode_slice(self, data: bytes, rows: int, columns: int, quality: int) -> Quantised:
        decoder = Decoder(data, self._tables)
        height, width = -(-rows // HYPER_FACTOR), -(-columns // HYPER_FACTOR)
        inside = _inside(rows, columns, height * HYPER_FACTOR, width * HYPER_FACTOR)
        hyper = decoder.read(self._hyper_classes(quality, height, width)).reshape(1, HYPER, height, width)

        def step(channels: slice, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
            symbols: Symbols = decoder.read(_classes(log2_scale, inside[places]))
            return torch.from_numpy(symbols.reshape(mean.shape)).double() + mean

        decoded = self._prior.walk(torch.from_numpy(hyper).double(), quality, step)
        decoder.finish()
        return _to_quantised(decoded, rows, columns)

    def _hyper_classes(self, quality: int, height: int, width: int) -> Classes:
        classes = scale_class(self._prior.hyper_scales(torch.tensor([quality]))[0].numpy())
        return np.repeat(classes, height * width)


def _side_by_side(work: Callable[..., Result], *arguments: Sequence[Any]) -> list[Result]:
    """What `map` gives, by all processors: what is done for a slice is too small to occupy more than one."""
    if len(arguments[0]) == 1:  # as of most pictures: a thread, and those that torch would start from it, are not worth it
        return list(map(work, *arguments))
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        return list(threads.map(work, *arguments))


def _off_grey(y: Tensor, gain: Tensor) -> Tensor:
    """What the hyper encoder is shown of latents in symbol units (1, 256, h, w): calm mid-grey as if it were lighter or darker.

    It was not trained with latents that are all about 0, and has the prior expect large ones there: 20 times the bytes.
    """
    luma, others = y[:, :1], y[:, 1:]
    calm = others.abs().amax(1, keepdim=True) < _CALM
    moved = torch.where(luma < 0, -1.0, 1.0) * luma.abs().maximum(_LEAST_LUMA * gain[:, :1])
    return torch.cat([torch.where(calm, moved, luma), others], 1)


def _inside(rows: int, columns: int, padded_rows: int, padded_columns: int) -> dict[Places, NDArray[np.bool_]]:
    """Which positions of each pass are not padding."""
    mask = torch.zeros(1, 1, padded_rows, padded_columns, dtype=torch.bool)
    mask[:, :, :rows, :columns] = True
    return {places: pick(mask, places).numpy().ravel() for places in Places}


def _classes(log2_scale: Tensor, inside: NDArray[np.bool_]) -> Classes:
    channels = log2_scale.shape[1]
    classes = scale_class(log2_scale.numpy()).reshape(channels, -1)
    return np.where(inside, classes, np.uint8(0)).ravel()


def _to_quantised(decoded: Tensor, rows: int, columns: int) -> Quantised:
    sixteenths = (decoded[0, :, :rows, :columns] * 16).numpy()
    return np.clip(sixteenths, -32768, 32767).astype(np.int16)
