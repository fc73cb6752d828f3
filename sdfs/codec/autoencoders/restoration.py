"""The decoder's network: corrects what quantisation did to the linear reconstruction.

It works on cells of 8 x 8 pixels, whose samples are channels, in units of the quantisation step, and has no bias anywhere: where a cell
and its neighbours are flat it gets zeros, and gives zeros. So flat ground of any colour stays what the transform makes of it. Some 4,400
multiplications a pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.codec.autoencoders.lapped import COMPONENTS, FACTOR
from sdfs.codec.autoencoders.layout import DETAIL, LEVELS, interpolate

CELL = 8  # side of the pixels that are channels of one position to the network
CELL_CHANNELS = COMPONENTS * CELL**2
_FINE, _COARSE = 96, 128  # channels at 1/8 and 1/16
NEIGHBOURS = 4 * COMPONENTS
UNIT = 1 / CELL  # of a quantisation step: about what quantisation does to a sample


def _convolution(inputs: int, outputs: int, side: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)


def squash(x: Tensor) -> Tensor:
    """x for small x, the signed square root of large ones."""
    return x / x.abs().add_(1).sqrt_()


def squash_(x: Tensor) -> Tensor:
    """`squash` in place."""
    return x.div_(x.abs().add_(1).sqrt_())


class Residual(nn.Module):
    """x + mix(silu(around(x))); `mix` starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.around = _convolution(channels, channels, 3)
        self.mix = _convolution(channels, channels)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.silu(self.around(x)))


class Restoration(nn.Module):
    """The network. Its convolutions may be of another dtype than float32; the sum with what it corrects is float32."""

    def __init__(self) -> None:
        super().__init__()
        self.into = _convolution(CELL_CHANNELS + NEIGHBOURS, _FINE)
        self.latents = _convolution(DETAIL, _COARSE)
        self.latents_around = _convolution(_COARSE, _COARSE, 3)
        self.up = _convolution(_COARSE, 4 * _FINE)
        self.quality = nn.Parameter(torch.zeros(LEVELS, _FINE))
        self.short = nn.Parameter(torch.zeros(_FINE))
        self.body = nn.Sequential(Residual(_FINE), Residual(_FINE))
        self.out = _convolution(_FINE, CELL_CHANNELS)
        nn.init.zeros_(self.out.weight)

    def forward(self, components: Tensor, detail: Tensor, short: Tensor, step: Tensor, q: Tensor) -> Tensor:
        """Correct a linear reconstruction.

        components (B, 3, H, W) float32, H and W multiples of 16; detail (B, DETAIL, H/16, W/16): latents in symbol units, without the
        means of positions; short (B, H/16, W/16) bool; step (B,): of quantisation; q (B,) fineness -> (B, 3, H, W) float32.
        """
        cells = to_cells(components)
        dtype = self.into.weight.dtype
        unit = (step * UNIT)[:, None, None, None]
        x = squash((_deviations(cells) / unit).to(dtype)).permute(0, 3, 1, 2)
        y = squash(detail.to(dtype)).contiguous(memory_format=torch.channels_last)
        y = self.latents_around(F.silu(self.latents(y)))
        h = self.into(x) + F.pixel_shuffle(self.up(F.silu(y)), 2).contiguous(memory_format=torch.channels_last)
        gain = 1 + interpolate(self.quality, q)[:, :, None, None]
        fine = short.repeat_interleave(FACTOR // CELL, 1).repeat_interleave(FACTOR // CELL, 2)
        h = h * (gain + fine[:, None] * self.short[:, None, None]).to(dtype).contiguous(memory_format=torch.channels_last)
        correction = self.out(self.body(F.silu(h))).permute(0, 2, 3, 1).float()
        return from_cells(torch.addcmul(cells, correction, unit))


def to_cells(components: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H/8, W/8, 192): the samples of each cell, component by component, row by row."""
    batch, count, height, width = components.shape
    cells = components.reshape(batch, count, height // CELL, CELL, width // CELL, CELL)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3)


def from_cells(cells: Tensor) -> Tensor:
    """Inverse of `to_cells`."""
    batch, rows, columns, channels = cells.shape
    split = cells.reshape(batch, rows, columns, channels // CELL**2, CELL, CELL)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, rows * CELL, columns * CELL)


def _deviations(cells: Tensor) -> Tensor:
    """What a cell's samples have beyond its means, and its means beyond those of its four neighbours: (B, h, w, 192 + 12)."""
    grouped = cells.unflatten(3, (COMPONENTS, CELL**2))
    means = grouped.mean(4)
    beside = F.pad(means.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)
    around = (beside[:, :-2, 1:-1], beside[:, 2:, 1:-1], beside[:, 1:-1, :-2], beside[:, 1:-1, 2:])
    return torch.cat([(grouped - means[..., None]).flatten(3), *(means - other for other in around)], 3)
