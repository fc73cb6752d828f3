"""Where a picture has letters, which a reader must be able to read: strokes of two tones, which an error of a pixel turns into others.

A block of 16 x 16 pixels is of letters if its pixels fall into two tones that are far apart, most of them in one, and the border between
them is crossed often both ways; and if blocks beside it are alike, for letters come in lines. Large letters, whose strokes fill blocks,
are none of these: what blurs a pixel does not harm them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdfs.codec.quality.sample import SIDE, Corner
from sdfs.codec.quality.scores import LUMA

_BLOCK = 16
_CONTRAST = 45.0  # levels between the means of both tones
_BIMODAL = 0.78  # of the variance, what lies between the tones
_INK = (0.04, 0.5)  # share of the rarer tone
_CROSSED = (1.2, 0.8)  # borders along a row, and along a column, at least
_BESIDE = 2  # of eight neighbours
_SHARE = 0.05  # of a square's blocks: nearly all documents have more in their densest square; of photos, railings and facades do
_STRIP = 64  # blocks of rows done at a time


def squares_with_text(pixels: NDArray[np.uint8], most: int) -> list[Corner]:
    """Corners of the squares of SIDE x SIDE pixels that have most letters, the densest first. pixels (H, W, 3) or (H, W)."""
    height, width = pixels.shape[:2]
    strips = range(0, height // _BLOCK, _STRIP)
    if not strips or width < _BLOCK:
        return []
    letters = _with_neighbours(np.concatenate([_letters(pixels[_BLOCK * i : _BLOCK * min(i + _STRIP, height // _BLOCK)]) for i in strips]))
    side = SIDE // _BLOCK
    rows, columns = (np.arange(0, n, side) for n in letters.shape)
    sums = np.add.reduceat(np.add.reduceat(letters.astype(np.int32), rows, 0), columns, 1)
    dense = sorted(((int(n), r, c) for (r, c), n in np.ndenumerate(sums) if n > _SHARE * side**2), reverse=True)
    return [Corner(r * SIDE, c * SIDE) for _, r, c in dense[:most]]


def _letters(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Of rows of blocks: which are of letters."""
    luma = np.rint(pixels @ LUMA).astype(np.uint8) if pixels.ndim == 3 else pixels
    rows, columns = luma.shape[0] // _BLOCK, luma.shape[1] // _BLOCK
    blocks = luma[:, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    middle = (blocks.max(1).max(2).astype(np.float32) + blocks.min(1).min(2)) / 2
    bright = blocks > middle[:, None, :, None]
    values, squares = blocks.astype(np.float32), np.square(blocks, dtype=np.float32)
    area = _BLOCK**2
    above, total, square = bright.sum((1, 3), dtype=np.float32), values.sum((1, 3)), squares.sum((1, 3))
    sum_above = np.where(bright, values, 0).sum((1, 3))
    below = area - above
    contrast = sum_above / np.maximum(above, 1) - (total - sum_above) / np.maximum(below, 1)
    variance = square / area - (total / area) ** 2
    between = above * below / area**2 * contrast**2
    ink = np.minimum(above, below) / area
    along_rows = (bright[:, :, :, 1:] != bright[:, :, :, :-1]).sum((1, 3)) / _BLOCK
    along_columns = (bright[:, 1:] != bright[:, :-1]).sum((1, 3)) / _BLOCK
    found: NDArray[np.bool_] = (contrast > _CONTRAST) & (between > _BIMODAL * variance) & (ink > _INK[0]) & (ink < _INK[1])
    return found & (along_rows > _CROSSED[0]) & (along_columns > _CROSSED[1])


def _with_neighbours(letters: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(letters, 1).astype(np.uint8)
    height, width = letters.shape
    around = sum(padded[top : top + height, left : left + width] for top in range(3) for left in range(3))
    return letters & (around > _BESIDE)
