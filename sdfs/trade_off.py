"""What error may cost in bits at each quality: what the bundled codec is trained for, and what its encoder decides by.

    lambda * (MSE + STRUCTURE * (1 - MS-SSIM of luma)) + bits a pixel

lambda rises with the quality, evenly in its logarithm. MSE is of pixels of 0 ... 255. Over most of the scale photos lose one and a half
times as much by MS-SSIM's term as by the MSE.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sdfs.autoencoders import Pixels
from sdfs.autoencoders.bundled import FACTOR
from sdfs.latent_coding import Worth
from sdfs.quality import C2, LUMA, Scores

LAMBDA_LOW, LAMBDA_HIGH = 0.00005, 0.025  # lambda at quality 0, and at 100
STRUCTURE = 5000.0

# What MS-SSIM takes off for a squared error at a place: 1 / (2 variance + SSIM's second constant), of which SHARE was best by trying.
_SHARE = 0.1
_CAUTION = 1.45  # times what error costs: quantisation changes the contexts of what follows, too
_BLOCK = 8  # pixels, per side, of a variance; a latent position sees 4 x 4 of them
_STRIP = 64  # positions at a time: bounds memory
Quality = TypeVar("Quality", float, Tensor)


def weight(quality: Quality) -> Quality:
    """lambda."""
    value: Quality = LAMBDA_LOW * (LAMBDA_HIGH / LAMBDA_LOW) ** (quality / 100)
    return value


def cost(scores: Scores, bits_a_pixel: float, quality: int) -> float:
    """The whole of it, of a picture."""
    squared_error = 255**2 / 10 ** (scores.psnr / 10)
    return weight(quality) * (squared_error + STRUCTURE * (1 - scores.ms_ssim)) + bits_a_pixel


def worth(pixels: Pixels, quality: float) -> Worth:
    """How many bits a squared error of 1 is worth in the latents of each position: (ceil(H / 16), ceil(W / 16)).

    Where luma varies little it is worth more, for there MS-SSIM, and whoever looks, sees it. Chroma is worth as much, though MS-SSIM
    does not look at it: otherwise flat areas would lose their colour first.
    """
    rows, columns = -(-pixels.shape[0] // FACTOR), -(-pixels.shape[1] // FACTOR)
    result = np.full((rows, columns), 1 / 3, np.float32)  # MSE is the mean of three samples
    for where, variance in _variances(pixels, rows, columns):
        result[where] += _SHARE * STRUCTURE / (2 * variance + C2)
    return result * np.float32(_CAUTION * weight(quality))


def _variances(pixels: Pixels, rows: int, columns: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Luma's variance within blocks, in the geometric mean over the 32 x 32 pixels around a position; strip by strip."""
    for top in range(0, rows, _STRIP):
        where = slice(top, min(top + _STRIP, rows))
        lines = np.arange(where.start * FACTOR - _BLOCK, where.stop * FACTOR + _BLOCK).clip(0, len(pixels) - 1)
        across = np.arange(-_BLOCK, columns * FACTOR + _BLOCK).clip(0, pixels.shape[1] - 1)
        luma = pixels[lines][:, across] @ LUMA
        blocks = luma.reshape(len(lines) // _BLOCK, _BLOCK, len(across) // _BLOCK, _BLOCK)
        # in logarithms, and with something added, so that one flat block does not make all of them flat
        logarithms = np.log(blocks.var((1, 3)) + 20)
        windows = np.lib.stride_tricks.sliding_window_view(logarithms, (4, 4))[::2, ::2]
        yield where, np.exp(windows.mean((2, 3))) - 20
