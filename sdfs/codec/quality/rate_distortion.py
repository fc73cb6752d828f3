"""What an error is worth, in bits: how an encoder chooses between symbols."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdfs.codec.autoencoders.interface import Pixels
from sdfs.codec.autoencoders.lapped import FACTOR
from sdfs.codec.autoencoders.side_by_side import side_by_side
from sdfs.codec.coding.learned_coder import Worth
from sdfs.codec.quality.scores import LUMA, Scores

PRICE = 6.0  # bits that a squared error of one quantisation step is worth in a place of middling texture
_LEAST, _MOST = 0.9, 6.0  # times PRICE
_CELL = 8  # pixels, per side, of a variance
_SSIM_C2 = (0.03 * 255) ** 2
_STRUCTURE = 800.0  # weight of what SSIM takes off for a squared error, 1 / (2 variance + C2), beside the error itself, which weighs 1/3
_STRIP = 16  # positions at a time: bounds memory
_MARGIN = 1  # positions around a strip that it depends on


def worth(pixels: Pixels) -> Worth:
    """`price` of a picture (H, W, 3): (ceil(H / 16), ceil(W / 16))."""
    rows, columns = -(-pixels.shape[0] // FACTOR), -(-pixels.shape[1] // FACTOR)
    result = np.empty((rows, columns), np.float32)
    across = np.arange(columns * FACTOR).clip(0, pixels.shape[1] - 1)

    def price_strip(top: int) -> None:
        first, last = max(0, top - _MARGIN), min(rows, top + _STRIP + _MARGIN)
        lines = np.arange(first * FACTOR, last * FACTOR).clip(0, pixels.shape[0] - 1)
        luma = torch.from_numpy(pixels[lines][:, across] @ LUMA)
        found = price(luma[None, None])[0, 0].numpy()
        result[top : top + _STRIP] = found[top - first : top - first + _STRIP]

    side_by_side(price_strip, range(0, rows, _STRIP))
    return result


def cost(scores: Scores, bits_a_pixel: float, log2_step: float) -> float:
    """What a picture costs as a whole, in bits a pixel: its bits, and what its errors are worth at this quantisation step."""
    squared_error = 255**2 / 10 ** (scores.psnr / 10)
    return bits_a_pixel + PRICE * 4**-log2_step * (squared_error + _STRUCTURE * 10 * (1 - scores.ms_ssim))


def price(luma: Tensor) -> Tensor:
    """Bits that a squared error of one step is worth at each position: (B, 1, H/16, W/16) for luma (B, 1, H, W) in 0..255.

    Taken from the least masked of the cells in and around a position: beside an edge, whoever looks sees the calm side.
    """
    mean = F.avg_pool2d(luma, _CELL)
    variance = (F.avg_pool2d(luma * luma, _CELL) - mean * mean).clamp(min=0)
    least = -F.max_pool2d(F.pad(-variance, (1, 1, 1, 1), mode="replicate"), 3, 1)
    # the geometric mean over a position, with something added, so that one flat cell does not make all of it flat
    typical = torch.exp(F.avg_pool2d(torch.log(least + 20), FACTOR // _CELL)) - 20
    return PRICE * (1 / 3 + _STRUCTURE / (2 * typical + _SSIM_C2)).clamp(_LEAST, _MOST)
