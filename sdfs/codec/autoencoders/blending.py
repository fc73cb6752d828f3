"""Tiles of an autoencoder whose result depends on all of a tile: overlapping ones, faded into each other.

Along one axis of L positions the tiles are `size` long and evenly spread, the first at the beginning, the last at the end, with at least
`overlap` in common. Around the middle of what two neighbours have in common, over `overlap` positions, the one fades out while the
other fades in, linearly. Everywhere else there is one tile only. So the weights sum to 1, and no more than two tiles ever meet, for
4 overlap <= size.

The grid changes the result: whoever decodes has to use the one that the blob names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Tile:
    """Along one axis: from `start` on, in positions; `weights` of what it gives, at `scale` samples a position."""

    start: int
    weights: Floats


def tiles(length: int, size: int, overlap: int, scale: int) -> list[Tile]:
    """Raises ValueError where the grid is none."""
    if not (0 <= 4 * overlap <= size and size >= 1):
        raise ValueError(f"tiles of {size} positions cannot overlap by {overlap}")
    if length <= size:
        return [Tile(0, np.ones(length * scale, np.float32))]
    count = -(-(length - overlap) // (size - overlap))
    starts = [round(index * (length - size) / (count - 1)) for index in range(count)]
    made = []
    for index, start in enumerate(starts):
        weights = np.ones(size * scale, np.float32)
        if index:
            weights *= _fade_in(starts[index - 1] + size - start, size, overlap, scale)
        if index + 1 < count:
            weights *= 1 - _fade_in(start + size - starts[index + 1], size, overlap, scale, starts[index + 1] - start)
        made.append(Tile(start, weights))
    return made


def _fade_in(common: int, size: int, overlap: int, scale: int, shift: int = 0) -> Floats:
    """From 0 to 1 in the middle of the `common` positions at the beginning of the later tile, which begins at `shift`."""
    at = np.arange(size * scale, dtype=np.float32) + 0.5 - (shift + common / 2 - overlap / 2) * scale
    return np.clip(at / max(overlap * scale, 1e-6), 0, 1, dtype=np.float32)


def blend(
    rows: int, columns: int, grid: tuple[int, int], scale: int, channels: int, make: Callable[[int, int, int, int], Floats]
) -> Iterator[tuple[int, Floats]]:
    """The tiles of a grid of `rows` x `columns` positions, put together: bands (channels, n, columns * scale), and the row each begins at.

    `make(top, left, height, width)`, in positions, gives a tile (channels, height * scale, width * scale). One row of tiles is in memory.
    """
    size, overlap = grid
    across = tiles(columns, size, overlap, scale)
    down = tiles(rows, size, overlap, scale)
    height = min(rows, size)
    band = np.zeros((channels, height * scale, columns * scale), np.float32)
    for index, row in enumerate(down):
        for column in across:
            width = len(column.weights) // scale
            tile = make(row.start, column.start, height, width)
            where = slice(column.start * scale, column.start * scale + len(column.weights))
            band[:, :, where] += tile * row.weights[:, None] * column.weights
        done = (down[index + 1].start - row.start if index + 1 < len(down) else height) * scale
        yield row.start * scale, band[:, :done]
        band = np.concatenate([band[:, done:], np.zeros((channels, done, columns * scale), np.float32)], 1)
