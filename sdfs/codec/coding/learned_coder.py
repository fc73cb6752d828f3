"""Latents of the bundled autoencoder to bytes and back, through the learned prior and the entropy coder; exact on every machine.

Where the prior is sure that symbols are 0 they are not coded. A picture may know better: an edge in the sky, or a checkerboard of single
pixels, which photos do not have. So a slice begins with a list of the few symbols that are not 0 there all the same.

The grid is cut into slices of up to SLICE x SLICE positions, each coded by itself, which bounds the memory of a decode; its passes are
those of `learned_prior`. Positions that pad a slice to a multiple of GRID are class 0.

An encoder is told what error is worth: of a symbol and the next one towards 0 it then takes the one that costs less, in error and
bits together (rate-distortion optimised quantisation). Decoders do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.autoencoders.layout import Analysed, Group, Latents, fineness, last_group
from sdfs.codec.autoencoders.side_by_side import side_by_side
from sdfs.codec.coding import slices
from sdfs.codec.coding.entropy import CLASSES, FLAG_CLASSES, Classes, Decoder, Symbols, Tables, cheaper, encode, flag_class
from sdfs.codec.coding.grid import Grid, Indices, Outliers, padded
from sdfs.codec.coding.learned_prior import LearnedPrior, Places

SLICE = 64  # latent positions, per side
LATENT_LIMIT = 2000.0  # symbol units; latents are clamped to this when encoding, so that they fit int16
TABLES = CLASSES + FLAG_CLASSES
_OUTLIER_BITS = 40.0  # about what an outlier takes: what it has to be worth
_SPARSE = 8  # where only one value in so many is not 0, they are written one by one

Worth = NDArray[np.float32]  # (h, w): bits that a squared error of one symbol unit is worth
Floats = NDArray[np.float32]


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
        rows, columns = analysed.short.shape
        found = _Found(rows, columns, last_group(fineness(quality)))

        def code(place: slices.Place) -> bytes:
            encoding = self._encoding(analysed, place, quality, worth, found)
            return encoding.outliers.pack() + encode(encoding.passes, self._tables)

        return slices.join(side_by_side(code, list(slices.places(rows, columns, SLICE)))), found.latents()

    def decode(self, data: bytes, rows: int, columns: int, quality: int, last: Group | None = None) -> Latents:
        """Inverse of `encode`. Raises DamagedError where `data` does not hold exactly these slices.

        `last`: groups after it are left out, their bytes unread and unchecked.
        """
        parts = slices.split(data, rows, columns, SLICE)
        found = _Found(rows, columns, last or last_group(fineness(quality)))

        def decode(place: slices.Place, part: bytes) -> None:
            decoding = _Decoding(Grid(place), part, last_group(fineness(quality)).channels.stop, self._tables)
            self._walk(decoding, place, quality, found)
            if last is None:
                decoding.decoder.finish()

        side_by_side(decode, list(slices.places(rows, columns, SLICE)), parts)
        return found.latents()

    def symbols(self, analysed: Analysed, quality: int, worth: Worth) -> list[tuple[Symbols, Classes]]:
        """The symbols and classes of all passes of all slices: what calibration counts."""
        rows, columns = analysed.short.shape
        found = _Found(rows, columns, last_group(fineness(quality)))
        return [
            one for place in slices.places(rows, columns, SLICE) for one in self._encoding(analysed, place, quality, worth, found).passes
        ]

    def _encoding(self, analysed: Analysed, place: slices.Place, quality: int, worth: Worth, found: _Found) -> _Encoding:
        encoding = _Encoding(Grid(place), analysed.latents[place][:, :, : found.channels], analysed.short[place], worth[place], self._bits)
        self._walk(encoding, place, quality, found)
        return encoding

    @torch.inference_mode()
    def _walk(self, way: _Way, place: slices.Place, quality: int, found: _Found) -> None:
        """Go through the passes of a slice, and keep what a decoder gets."""
        values, short = found.of(place)

        def step(group: Group, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
            shape = (*way.grid.positions(places).shape, group.size)
            passed, changed = way.values(group, places, _channels_last(mean), np.broadcast_to(_channels_last(log2_scale), shape))
            _keep(values[:, :, group.channels], way.grid.positions(places), passed, changed)
            return torch.from_numpy(passed.reshape(1, *shape)).permute(0, 3, 1, 2)

        def windows(places: Places, logit: Tensor) -> Tensor:
            positions = way.grid.positions(places)
            flags = way.windows(positions.ravel(), flag_class(_channels_last(logit).ravel()))
            short[divmod(positions.ravel(), way.grid.width)] = flags
            return torch.from_numpy(flags.astype(np.float32).reshape(logit.shape))

        self._prior.passes(step, windows, torch.tensor([fineness(quality)]), last=found.last)


class _Found:
    """The latents of a picture while they are found. Its sides are padded, so that slices are."""

    def __init__(self, rows: int, columns: int, last: Group) -> None:
        self._rows, self._columns, self.last, self.channels = rows, columns, last, last.channels.stop
        self._values = np.zeros((padded(rows), padded(columns), self.channels), np.int16)
        self._short = np.zeros((padded(rows), padded(columns)), np.bool_)

    def of(self, place: slices.Place) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Of a slice, padded: values (h, w, channels), windows (h, w)."""
        rows, columns = (slice(part.start, padded(part.stop)) for part in place)
        return self._values[rows, columns], self._short[rows, columns]

    def latents(self) -> Latents:
        inside = slice(self._rows), slice(self._columns)
        return Latents(self._values[inside], self._short[inside])


def _keep(values: NDArray[np.int16], positions: Indices, passed: Floats, changed: Indices | None) -> None:
    """Put what a pass gave, flat, into values (h, w, channels). `changed`: which of it is not 0; None: any."""
    width, channels = values.shape[1:]
    if changed is None or len(changed) * _SPARSE > len(passed):
        values[divmod(positions.ravel(), width)] = _sixteenths(passed).reshape(-1, channels)
    else:
        number, channel = divmod(changed, channels)
        values[*divmod(positions.ravel()[number], width), channel] = _sixteenths(passed[changed])


def _sixteenths(values: Floats) -> NDArray[np.int16]:
    return np.clip(values * 16, -32768, 32767).astype(np.int16)


def _channels_last(x: Tensor) -> Floats:
    """(1, C, h, w) -> (h, w, C)."""
    found: Floats = x[0].permute(1, 2, 0).numpy()
    return found


class _Way(Protocol):
    """Encoding or decoding of one slice."""

    grid: Grid

    def values(self, group: Group, places: Places, mean: Floats, log2_scale: Floats) -> tuple[Floats, Indices | None]:
        """Of a pass (h, w, channels), flat, and which of them are not 0, or None where any may be; a mean of one number is 0."""

    def windows(self, positions: Indices, classes: Classes) -> NDArray[np.bool_]:
        """Of a pass (n,)."""


def _expected(mean: Floats, shape: tuple[int, ...]) -> Floats:
    """A mean for all symbols of a pass, flat, to be changed."""
    return np.zeros(int(np.prod(shape)), np.float32) if mean.size == 1 else np.broadcast_to(mean, shape).flatten()


class _Decoding:
    def __init__(self, grid: Grid, data: bytes, channels: int, tables: Tables) -> None:
        """Raises DamagedError."""
        self.grid, self._outliers = grid, Outliers(grid, channels)
        self.decoder = Decoder(data[self._outliers.unpack(data) :], tables)

    def values(self, group: Group, places: Places, mean: Floats, log2_scale: Floats) -> tuple[Floats, Indices | None]:
        coded, classes = self.grid.coded(log2_scale, group, places)
        symbols = self.decoder.read(classes)
        values = _expected(mean, log2_scale.shape)
        values[coded] += symbols
        rare, sizes = self._outliers.of(group, places)
        values[rare] += sizes
        return values, np.concatenate([coded[symbols != 0], rare]) if mean.size == 1 else None

    def windows(self, positions: Indices, classes: Classes) -> NDArray[np.bool_]:
        inside = self.grid.inside(positions)
        flags = np.zeros(len(positions), np.bool_)
        flags[inside] = self.decoder.read(classes[inside]) > 0
        return flags


class _Encoding:
    def __init__(self, grid: Grid, latents: Floats, short: NDArray[np.bool_], worth: Worth, bits: Floats) -> None:
        self.grid, self._bits = grid, bits
        border = ((0, grid.height - grid.rows), (0, grid.width - grid.columns))
        wanted = np.pad(latents, (*border, (0, 0)), mode="edge").clip(-LATENT_LIMIT, LATENT_LIMIT)
        self._latents, self._short = wanted.reshape(-1, latents.shape[2]), np.pad(short, border).ravel()
        self._worth = np.pad(worth, border).ravel()
        self.passes: list[tuple[Symbols, Classes]] = []
        self.outliers = Outliers(grid, latents.shape[2])

    def values(self, group: Group, places: Places, mean: Floats, log2_scale: Floats) -> tuple[Floats, Indices | None]:
        positions = self.grid.positions(places).ravel()
        values = _expected(mean, log2_scale.shape)
        residuals = self._latents[positions, group.channels].ravel() - values
        coded, classes = self.grid.coded(log2_scale, group, places)
        symbols = self._cheapest(residuals[coded], classes, self._worth[positions[coded // group.size]])
        self.passes.append((symbols, classes))
        values[coded] += symbols
        if mean.size > 1:
            return values, None
        rare, sizes = self._rare(residuals, coded, positions, group)
        values[rare] += sizes
        return values, np.concatenate([coded[symbols != 0], rare])

    def _cheapest(self, residuals: Floats, classes: Classes, worth: Floats) -> Symbols:
        """Of the nearest symbols and the next ones towards 0 those that cost less."""
        sizes = np.abs(residuals)
        chosen = np.floor(sizes + np.float32(0.5))
        likely = np.flatnonzero(chosen)  # most are 0, and remain so
        of_these, price = sizes[likely], worth[likely]
        chosen[likely], _ = cheaper(chosen[likely], classes[likely], self._bits, lambda symbols: price * np.square(of_these - symbols))
        return np.copysign(chosen, residuals).astype(np.int32)

    def _rare(self, residuals: Floats, coded: Indices, positions: Indices, group: Group) -> tuple[Indices, Indices]:
        """Which symbols that are not coded become outliers, and their values."""
        far = np.abs(residuals) > 0.5
        far[coded] = False
        rare = np.flatnonzero(far)
        where, left = positions[rare // group.size], residuals[rare]
        nearest = np.rint(left)
        saved = self._worth[where] * (np.square(left) - np.square(left - nearest))
        worth_it = self.grid.inside(where) & (saved > _OUTLIER_BITS)
        rare, where, nearest = rare[worth_it], where[worth_it], nearest[worth_it].astype(np.intp)
        self.outliers.add(where, group.channels.start + rare % group.size, nearest)
        return rare, nearest

    def windows(self, positions: Indices, classes: Classes) -> NDArray[np.bool_]:
        inside, flags = self.grid.inside(positions), self._short[positions]
        self.passes.append((flags[inside].astype(np.int32) * 2 - 1, classes[inside]))
        return flags
