"""Local tone: how far decoded pixels are from the picture in the mean over cells, sent beside the latents and added back.

Group normalisation and attention see one tile at a time, so that two tiles of one sky come out in two shades, and many autoencoders
miss the colour of large areas anyway. A cell's three means cost a few bits and put it right, whatever the model.

Corrections lie at the middles of cells and are interpolated linearly between them. They are added to pixels that were rounded already:
encoder and decoder start from the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sdfs.codec.autoencoders.interface import Pixels

CELL = 64  # pixels, per side
STEPS = np.full(3, 2.0, np.float32)  # to which corrections are rounded, of 0 … 255

Tone = NDArray[np.float32]  # (3, ceil(H / CELL), ceil(W / CELL)), in units of pixels of 0 … 255


def measure(picture: Pixels, decoded: Pixels) -> Tone:
    """Of (H, W, 3) uint8 both: the mean of picture - decoded over each cell."""
    columns = np.arange(0, picture.shape[1], CELL)
    widths = np.diff([*columns, picture.shape[1]])
    rows = []
    for strip in _strips(len(picture)):
        error = (picture[strip].astype(np.int32) - decoded[strip]).sum(0)
        rows.append(np.add.reduceat(error, columns) / (widths[:, None] * (strip.stop - strip.start)))
    return np.stack(rows, 1).astype(np.float32).transpose(2, 1, 0)


def apply(pixels: Pixels, tone: Tone) -> Pixels:
    """(H, W, 3) uint8 -> the same, corrected."""
    height, width = pixels.shape[:2]
    across = _interpolated(tone, np.arange(width))
    corrected = np.empty_like(pixels)
    for strip in _strips(height):
        change = _interpolated(across.transpose(0, 2, 1), np.arange(strip.start, strip.stop))
        corrected[strip] = np.rint(np.clip(pixels[strip] + change.transpose(2, 1, 0), 0, 255))
    return corrected


def _interpolated(values: Tone, at: NDArray[np.intp]) -> Tone:
    """(3, n, cells) -> (3, n, len(at)): along the last axis, at pixels; beyond the outer cells' middles, theirs."""
    cells = values.shape[2]
    position = np.clip((at + 0.5) / CELL - 0.5, 0, cells - 1)
    low = position.astype(np.intp)
    part = (position - low).astype(np.float32)
    return values[:, :, low] * (1 - part) + values[:, :, np.minimum(low + 1, cells - 1)] * part


def _strips(height: int) -> Iterator[slice]:
    return (slice(top, min(top + CELL, height)) for top in range(0, height, CELL))
