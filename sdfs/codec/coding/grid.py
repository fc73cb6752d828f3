"""The grid of a slice: which of its positions a pass has, and which of a pass's symbols are coded."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from sdfs.codec.autoencoders.layout import Group
from sdfs.codec.coding.entropy import FIRST_SCALE, SYMBOL_LIMIT, Classes, leb128, read_leb128, scale_class, unzigzag, zigzag
from sdfs.codec.coding.learned_prior import GRID, Places, pick
from sdfs.codec.coding.slices import Place
from sdfs.errors import DamagedError

_ALWAYS_CODED = (Group.MEAN, Group.LOW)  # groups whose symbols are of class 1 at least, because a mean may be wrong
_LEAST_CODED = np.float32((FIRST_SCALE - 0.5) / 16)  # the smallest scale that is not of class 0

Indices = NDArray[np.intp]


@functools.lru_cache(256)
def _positions(height: int, width: int, places: Places) -> tuple[Indices, Indices]:
    """Numbers, row by row, of the positions that a pass has (h, w), as `pick` gives them; and of each position its place there, or -1."""
    numbers = pick(torch.arange(height * width).view(1, 1, height, width), places)[0, 0].numpy()
    inverse = np.full(height * width, -1)
    inverse[numbers.ravel()] = np.arange(numbers.size)
    return numbers, inverse


class Grid:
    """Of a slice, padded to multiples of GRID."""

    def __init__(self, place: Place) -> None:
        self.rows, self.columns = (part.stop - part.start for part in place)
        self.height, self.width = padded(self.rows), padded(self.columns)

    def positions(self, places: Places) -> Indices:
        """Numbers of the positions of a pass: (h, w), as `pick` gives them."""
        return _positions(self.height, self.width, places)[0]

    def inside(self, positions: Indices) -> NDArray[np.bool_]:
        """Which are no padding."""
        found: NDArray[np.bool_] = (positions // self.width < self.rows) & (positions % self.width < self.columns)
        return found

    def coded(self, log2_scale: NDArray[np.float32], group: Group, places: Places) -> tuple[Indices, Classes]:
        """Which symbols of a pass (h, w, channels) are coded, and their classes; scales are not rounded yet."""
        scales = log2_scale.ravel()
        if group in _ALWAYS_CODED:
            chosen, least = np.arange(len(scales)), 1
        else:
            chosen, least = np.flatnonzero(scales >= _LEAST_CODED), 0
        if (self.height, self.width) != (self.rows, self.columns):
            chosen = chosen[self.inside(self.positions(places).ravel())[chosen // group.size]]
        classes = scale_class(np.floor(scales[chosen] * 16 + np.float32(0.5)) * np.float32(1 / 16))
        return chosen, np.maximum(classes, np.uint8(least))


def padded(size: int) -> int:
    return -(-size // GRID) * GRID


class Outliers:
    """The few symbols that are not 0 where the prior is sure that they are, of a slice, by row, column, channel."""

    def __init__(self, grid: Grid, channels: int) -> None:
        self._grid, self._channels = grid, channels
        self.positions, self.channels, self.values = (np.zeros(0, np.intp) for _ in range(3))

    def add(self, positions: Indices, channels: Indices, values: Indices) -> None:
        self.positions = np.concatenate([self.positions, positions])
        self.channels = np.concatenate([self.channels, channels])
        self.values = np.concatenate([self.values, values])

    def of(self, group: Group, places: Places) -> tuple[Indices, Indices]:
        """Where they are in a pass (h, w, channels), and their values."""
        here = np.flatnonzero((self.channels >= group.channels.start) & (self.channels < group.channels.stop))
        there = _positions(self._grid.height, self._grid.width, places)[1][self.positions[here]]
        here, there = here[there >= 0], there[there >= 0]
        return there * group.size + self.channels[here] - group.channels.start, self.values[here]

    def pack(self) -> bytes:
        """How many; then of each how far it is from the one before, and its value."""
        row, column = divmod(self.positions, self._grid.width)
        places = (row * self._grid.columns + column) * self._channels + self.channels
        order = np.argsort(places)
        gaps = np.diff(places[order], prepend=-1) - 1
        packed = bytearray(leb128(len(places)))
        for gap, value in zip(gaps.tolist(), self.values[order].tolist(), strict=True):
            packed += leb128(gap) + leb128(zigzag(value))
        return bytes(packed)

    def unpack(self, data: bytes) -> int:
        """Inverse of `pack`: where the list ends. Raises DamagedError."""
        count, at = read_leb128(data, 0)
        place, places, values = -1, list[int](), list[int]()
        for _ in range(count):
            gap, at = read_leb128(data, at)
            value, at = read_leb128(data, at)
            place += gap + 1
            if place >= self._grid.rows * self._grid.columns * self._channels or not 0 < value <= 2 * SYMBOL_LIMIT:
                raise DamagedError("latents: an outlier is out of range")
            places.append(place)
            values.append(unzigzag(value))
        if count:
            position, channels = divmod(np.array(places), self._channels)
            row, column = divmod(position, self._grid.columns)
            self.add(row * self._grid.width + column, channels, np.array(values))
        return at
