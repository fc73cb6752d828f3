"""Latents of the bundled autoencoder to bytes and back, through the learned prior and the entropy coder; exact on every machine.

Where the prior is sure that symbols are 0 they are not coded. A picture may know better: an edge in the sky, or a checkerboard of single
pixels, which photos do not have. So a slice begins with a list of the few symbols that are not 0 there all the same.

The grid is cut into slices of up to SLICE x SLICE positions, each coded by itself, which bounds the memory of a decode; its passes are
those of `priors.learned`. Positions that pad a slice to a multiple of GRID are class 0.

An encoder is told what error is worth: of a symbol and the next one towards 0 it then takes the one that costs less, in error and
bits together (rate-distortion optimised quantisation). Decoders do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.autoencoders.layout import Analysed, Group, Latents, fineness, last_group
from sdfs.codec.coding import slices
from sdfs.codec.coding.entropy import (
    CLASSES,
    FLAG_CLASSES,
    SYMBOL_LIMIT,
    Classes,
    Decoder,
    Symbols,
    Tables,
    cheaper,
    encode,
    flag_class,
    leb128,
    read_leb128,
    scale_class,
    unzigzag,
    zigzag,
)
from sdfs.codec.coding.learned_prior import GRID, LearnedPrior, Places, pick, scatter
from sdfs.codec.side_by_side import side_by_side
from sdfs.errors import DamagedError

SLICE = 64  # latent positions, per side
LATENT_LIMIT = 2000.0  # symbol units; latents are clamped to this when encoding, so that they fit int16
TABLES = CLASSES + FLAG_CLASSES
_ALWAYS_CODED = (Group.MEAN, Group.LOW)  # groups whose symbols are of class 1 at least, because a mean may be wrong
_OUTLIER_BITS = 40.0  # about what an outlier takes: what it has to be worth

Worth = NDArray[np.float32]  # (h, w): bits that a squared error of one symbol unit is worth


class LearnedCoder:
    """The bundled codec's way from latents to bytes."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """`weights` holds prior.* and entropy.*. Raises DamagedError where they would not be exact."""
        self._prior = LearnedPrior().requires_grad_(False)
        self._prior.load_state_dict({k.removeprefix("prior."): v.float() for k, v in weights.items() if k.startswith("prior.")})
        self._prior.check()
        reach, frequencies = (weights[f"entropy.{name}"].numpy().astype(np.int32) for name in ("reach", "frequencies"))
        self._tables = Tables(reach, frequencies, TABLES)
        self._bits = self._tables.bits()

    def encode(self, analysed: Analysed, quality: int, worth: Worth) -> tuple[bytes, Latents]:
        """The bytes of all slices, and what a decoder will get. `worth`, (h, w): as of `sdfs.codec.quality.rate_distortion`."""
        channels = last_group(fineness(quality)).channels.stop
        quantised = np.empty((*analysed.short.shape, channels), np.int16)

        def code(place: slices.Place) -> bytes:
            passes, outliers, quantised[place] = self._quantise(analysed, place, quality, worth)
            return _packed(outliers) + encode(passes, self._tables)

        return slices.join(side_by_side(code, _places(analysed))), Latents(quantised, analysed.short)

    def decode(self, data: bytes, rows: int, columns: int, quality: int, last: Group | None = None) -> Latents:
        """Inverse of `encode`. Raises DamagedError where `data` does not hold exactly these slices.

        `last`: groups after it are left out, their bytes unread and unchecked.
        """
        parts = slices.split(data, rows, columns, SLICE)
        channels = (last or last_group(fineness(quality))).channels.stop
        quantised, short = np.empty((rows, columns, channels), np.int16), np.zeros((rows, columns), np.bool_)

        def decode(place: slices.Place, part: bytes) -> None:
            height, width = place[0].stop - place[0].start, place[1].stop - place[1].start
            quantised[place], short[place] = self._decode_slice(part, height, width, quality, last)

        side_by_side(decode, list(slices.places(rows, columns, SLICE)), parts)
        return Latents(quantised, short)

    def symbols(self, analysed: Analysed, quality: int, worth: Worth) -> list[tuple[Symbols, Classes]]:
        """The symbols and classes of all passes of all slices: what calibration counts."""
        parts = (self._quantise(analysed, place, quality, worth)[0] for place in _places(analysed))
        return [one for passes in parts for one in passes]

    @torch.no_grad()
    def _quantise(
        self, analysed: Analysed, place: slices.Place, quality: int, worth: Worth
    ) -> tuple[list[tuple[Symbols, Classes]], Tensor, NDArray[np.int16]]:
        """The passes; outliers (channels, rows, columns); the values that a decoder will get."""
        grid = _Grid(*worth[place].shape)
        channels = last_group(fineness(quality)).channels.stop
        y = grid.padded(torch.from_numpy(analysed.latents[place][:, :, :channels]).permute(2, 0, 1)).clamp(-LATENT_LIMIT, LATENT_LIMIT)
        flags = grid.padded(torch.from_numpy(analysed.short[place])[None].float())
        prices = grid.padded(torch.from_numpy(worth[place])[None])
        passes: list[tuple[Symbols, Classes]] = []
        outliers = torch.zeros_like(y)

        def step(group: Group, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
            residuals = pick(y[:, group.channels], places) - mean
            classes = grid.classes(log2_scale, group, places, residuals.shape)
            coded, price = torch.from_numpy(classes.reshape(residuals.shape) > 0), pick(prices, places)
            symbols = self._cheapest(residuals, classes.reshape(residuals.shape), price) * coded
            passes.append((symbols.numpy().astype(np.int32).ravel(), classes))
            if group not in _ALWAYS_CODED:
                nearest = torch.round(residuals)
                saved = price * (residuals.square() - (residuals - nearest).square())
                rare = torch.where(~coded & grid.inside(places) & (saved > _OUTLIER_BITS), nearest, 0.0)
                scatter(outliers[:, group.channels], places, rare)
                symbols = symbols + rare
            return symbols + mean

        def windows(places: Places, logit: Tensor) -> Tensor:
            known = pick(flags, places)
            classes = grid.flag_classes(logit, places)
            passes.append((np.where(classes > 0, known.numpy().astype(np.int32).ravel() * 2 - 1, 0).astype(np.int32), classes))
            return known * torch.from_numpy(classes.reshape(known.shape) > 0)

        values = self._walk(grid, quality, step, windows)[0]
        return passes, outliers[0, :, : grid.rows, : grid.columns], values

    def _cheapest(self, residuals: Tensor, classes: Classes, prices: Tensor) -> Tensor:
        """Of the nearest symbols and the next ones towards 0 those that cost less."""
        magnitudes, worth = residuals.abs().numpy(), prices.numpy()
        nearest = np.floor(magnitudes + np.float32(0.5))
        likely = nearest > 0  # most are 0, and remain so
        chosen = nearest.copy()
        worth = np.broadcast_to(worth, nearest.shape)[likely]
        sizes = magnitudes[likely]
        chosen[likely], _ = cheaper(nearest[likely], classes[likely], self._bits, lambda symbols: worth * np.square(sizes - symbols))
        return residuals.sign() * torch.from_numpy(chosen)

    @torch.no_grad()
    def _decode_slice(
        self, data: bytes, rows: int, columns: int, quality: int, last: Group | None
    ) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        grid = _Grid(rows, columns)
        outliers, at = _unpacked(data, grid, last_group(fineness(quality)).channels.stop)
        decoder = Decoder(data[at:], self._tables)

        def step(group: Group, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
            shape = (1, group.size, *grid.shape(places))
            symbols = decoder.read(grid.classes(log2_scale, group, places, shape))
            values = torch.from_numpy(symbols.astype(np.float32).reshape(shape)) + mean
            return values if outliers is None else values + pick(outliers[:, group.channels], places)

        def windows(places: Places, logit: Tensor) -> Tensor:
            symbols = decoder.read(grid.flag_classes(logit, places))
            return torch.from_numpy((symbols > 0).astype(np.float32).reshape(logit.shape))

        found = self._walk(grid, quality, step, windows, last)
        if last is None:
            decoder.finish()
        return found

    def _walk(
        self,
        grid: _Grid,
        quality: int,
        step: Callable[[Group, Places, Tensor, Tensor], Tensor],
        windows: Callable[[Places, Tensor], Tensor],
        last: Group | None = None,
    ) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Go through the passes. Returns the values and the windows, without padding."""
        q = fineness(quality)
        values = torch.zeros(1, (last or last_group(q)).channels.stop, grid.height, grid.width)
        short = torch.zeros(1, 1, grid.height, grid.width)

        def kept(group: Group, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
            found = step(group, places, mean, log2_scale)
            scatter(values[:, group.channels], places, found)
            return found

        def kept_windows(places: Places, logit: Tensor) -> Tensor:
            found = windows(places, logit)
            scatter(short, places, found)
            return found

        self._prior.passes(kept, kept_windows, torch.tensor([q]), last=last or last_group(q))
        sixteenths = (values[0, :, : grid.rows, : grid.columns] * 16).clamp(-32768, 32767)
        return sixteenths.permute(1, 2, 0).numpy().astype(np.int16), short[0, 0, : grid.rows, : grid.columns].numpy() > 0


class _Grid:
    """Of a slice, padded to multiples of GRID."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.height, self.width = (-(-size // GRID) * GRID for size in (rows, columns))
        inside = torch.zeros(1, 1, self.height, self.width, dtype=torch.bool)
        inside[:, :, :rows, :columns] = True
        self._inside = {places: pick(inside, places) for places in Places}

    def padded(self, x: Tensor) -> Tensor:
        """(C, rows, columns) -> (1, C, height, width), the last rows and columns repeated."""
        return F.pad(x[None], (0, self.width - self.columns, 0, self.height - self.rows), mode="replicate")

    def shape(self, places: Places) -> tuple[int, int]:
        """Rows and columns as `pick` gives them."""
        found = self._inside[places].shape
        return found[2], found[3]

    def inside(self, places: Places) -> Tensor:
        """Which positions are not padding: (1, 1, h, w) bool, as `pick` gives them."""
        return self._inside[places]

    def classes(self, log2_scale: Tensor, group: Group, places: Places, shape: Sequence[int]) -> Classes:
        """Of a pass of this shape (1, C, h, w), by channel, row, column; 0 outside the slice."""
        classes = np.broadcast_to(scale_class(log2_scale.numpy()), tuple(shape))
        if group in _ALWAYS_CODED:
            classes = np.maximum(classes, np.uint8(1))
        return np.where(self._inside[places].numpy(), classes, np.uint8(0)).ravel()

    def flag_classes(self, logit: Tensor, places: Places) -> Classes:
        return np.where(self._inside[places].numpy(), flag_class(logit.numpy()), np.uint8(0)).ravel()


def _places(analysed: Analysed) -> list[slices.Place]:
    rows, columns = analysed.short.shape
    return list(slices.places(rows, columns, SLICE))


def _packed(outliers: Tensor) -> bytes:
    """A list of what is not 0 in (CHANNELS, rows, columns): how many, then of each how far it is from the one before, and its value."""
    flat = outliers.flatten().numpy()
    places = np.flatnonzero(flat)
    gaps = np.diff(places, prepend=-1) - 1
    packed = bytearray(leb128(len(places)))
    for gap, value in zip(gaps.tolist(), flat[places].tolist(), strict=True):
        packed += leb128(gap) + leb128(zigzag(int(value)))
    return bytes(packed)


def _unpacked(data: bytes, grid: _Grid, channels: int) -> tuple[Tensor | None, int]:
    """Inverse of `_packed`, of the first `channels`: (1, channels, height, width), or None where there are none; where the list ends.

    Raises DamagedError.
    """
    count, at = read_leb128(data, 0)
    if not count:
        return None, at
    flat, place = np.zeros(channels * grid.rows * grid.columns, np.float32), -1
    for _ in range(count):
        gap, at = read_leb128(data, at)
        value, at = read_leb128(data, at)
        place += gap + 1
        if place >= len(flat) or not 0 < value <= 2 * SYMBOL_LIMIT:
            raise DamagedError("latents: an outlier is out of range")
        flat[place] = unzigzag(value)
    values = torch.from_numpy(flat).reshape(1, channels, grid.rows, grid.columns)
    return F.pad(values, (0, grid.width - grid.columns, 0, grid.height - grid.rows)), at
