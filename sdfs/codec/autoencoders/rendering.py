"""Latents to pixels, fast: what `lapped.inverse` and `Restoration` say, of one picture, without gradients.

A tile is computed in two layouts: blocks around corners, as `synthesis` gives them, then cells of 8 x 8 pixels, as the network wants
them. What depends on the quality alone is multiplied into the weights of layers. Samples count units of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.autoencoders import layout
from sdfs.codec.autoencoders.corners import Border
from sdfs.codec.autoencoders.interface import Pixels
from sdfs.codec.autoencoders.lapped import COMPONENTS, FACTOR, from_components
from sdfs.codec.autoencoders.layout import DETAIL_CHANNELS, Latents
from sdfs.codec.autoencoders.restoration import CELL, CELL_CHANNELS, NEIGHBOURS, UNIT, Restoration, squash_
from sdfs.codec.autoencoders.synthesis import blocks
from sdfs.codec.autoencoders.tiles import Span, scaled

HALO = 2  # positions around a tile that its pixels depend on
_CELLS = FACTOR // CELL  # of a position, per side
_STRIP = 16  # rows of cells at a time: what these take stays in a processor's cache


@dataclass(frozen=True)
class _Side:
    """A tile along one side, in positions that count from the first one of its halo.

    The network sees one position more than the tile at each end. Where it sees garbage, the tile does not depend on it.
    """

    tile: slice
    seen: slice
    border: tuple[int, int]  # 1 where the picture ends where what is seen does

    @classmethod
    def of(cls, span: Span) -> Self:
        tile, size = span.kept, span.outer.stop - span.outer.start
        seen = slice(max(0, tile.start - 1), min(size, tile.stop + 1))
        return cls(tile, seen, (int(seen.start == 0), int(seen.stop == size)))

    @property
    def kept(self) -> slice:
        """The tile within what is seen, in cells."""
        return scaled(slice(self.tile.start - self.seen.start, self.tile.stop - self.seen.start), _CELLS)


class Rendering:
    """The network's weights for one quality."""

    def __init__(self, restoration: Restoration, quality: int) -> None:
        self._restoration = restoration
        self._device, self._dtype = restoration.into.weight.device, restoration.into.weight.dtype
        q = torch.tensor([layout.fineness(quality)])
        unit = float(torch.exp2(layout.log2_step(q))) * UNIT
        gain = 1 + layout.interpolate(restoration.quality, q.to(self._device))[0]
        up = restoration.up.weight.float().view(len(gain), _CELLS**2, -1) * gain[:, None, None]
        self._into = (restoration.into.weight.float().flatten(1) * gain[:, None]).to(self._dtype)
        self._up = up.transpose(0, 1).flatten(0, 1).to(self._dtype)  # of the four cells of a position one after the other
        self._short = ((gain + restoration.short) / gain).to(self._dtype)
        self._latents, self._out = restoration.latents.weight.flatten(1), restoration.out.weight.flatten(1)
        self._scale = (torch.exp2(layout.log2_steps(q))[0] / (16 * unit)).to(self._device)
        self._red, self._green, self._blue = (from_components() * unit).tolist()
        self._middle = 128.5 / self._red[0]  # so that it is rounding to truncate in the end

    @torch.inference_mode()
    def render(self, latents: Latents, rows: Span, columns: Span, picture: Pixels) -> None:
        """Write a tile, whose spans have HALO, into its place in a picture of whole positions."""
        values, short = latents.values[rows.outer, columns.outer], latents.short[rows.outer, columns.outer]
        y, x = _Side.of(rows), _Side.of(columns)
        cells = self._cells(values, short, (y.border, x.border))
        features = self._features(cells)
        self._add_latents(features, values, y.seen, x.seen)
        fine = short[y.seen, x.seen].repeat(_CELLS, 0).repeat(_CELLS, 1)
        features[torch.from_numpy(fine)] *= self._short
        features = self._body(features)[y.kept]
        linear, place = cells[1:-1, 1:-1][y.kept, x.kept], picture[scaled(rows.inner, FACTOR), scaled(columns.inner, FACTOR)]
        for top in range(0, len(linear), _STRIP):
            strip = slice(top, min(top + _STRIP, len(linear)))
            correction = F.linear(features[strip], self._out)[:, x.kept]
            self._write(linear[strip].add_(correction.unflatten(2, (COMPONENTS, -1))), place[scaled(strip, CELL)])

    def _cells(self, values: NDArray[np.int16], short: NDArray[np.bool_], border: Border) -> Tensor:
        """The linear reconstruction of what the network sees, and of a cell more around: (rows, columns, 3, 64) float32."""
        found = blocks(values, short, border, self._scale, self._middle)
        down, across = found.shape[:2]
        cells = torch.empty(down, 2, across, 2, COMPONENTS, CELL**2, device=self._device)
        cells.copy_(found.view(down, across, COMPONENTS, 2, 2, CELL**2).permute(0, 3, 1, 4, 2, 5))
        cells = cells.view(2 * down, 2 * across, COMPONENTS, CELL**2)
        for axis, ends in enumerate(border):  # what lies outside the picture is like what is beside it
            for absent, place, beside in zip(ends, (0, -1), (1, -2), strict=True):
                if absent:
                    cells.select(axis, place).copy_(cells.select(axis, beside))
        return cells

    def _features(self, cells: Tensor) -> Tensor:
        """What the first layer makes of deviations from means: (rows, columns, channels), of all cells but those around."""
        means = cells.mean(3)
        height, width = len(cells) - 2, cells.shape[1] - 2
        features = torch.empty(height, width, len(self._into), dtype=self._dtype, device=self._device)
        for top in range(0, height, _STRIP):
            bottom = min(top + _STRIP, height)
            around = means[top : bottom + 2]
            own = around[1:-1, 1:-1]
            x = torch.empty(bottom - top, width, CELL_CHANNELS + NEIGHBOURS, dtype=self._dtype, device=self._device)
            x[:, :, :CELL_CHANNELS].unflatten(2, (COMPONENTS, -1)).copy_(cells[top + 1 : bottom + 1, 1:-1] - own[..., None])
            beside = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
            x[:, :, CELL_CHANNELS:] = torch.cat([own - other for other in beside], 2)
            features[top:bottom] = F.linear(squash_(x), self._into)
        return features

    def _add_latents(self, features: Tensor, values: NDArray[np.int16], rows: slice, columns: slice) -> None:
        """Add what the latents themselves give: at rows and columns, from what lies around, too."""
        x = torch.from_numpy(values[:, :, DETAIL_CHANNELS]).to(self._device).float().mul_(1 / 16)
        x = F.silu(F.linear(squash_(x.to(self._dtype)), self._latents), inplace=True)
        x = self._restoration.latents_around(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        up = F.linear(F.silu(x[rows, columns]), self._up).unflatten(2, (_CELLS, _CELLS, -1))
        features.unflatten(1, (-1, _CELLS)).unflatten(0, (-1, _CELLS)).add_(up.transpose(1, 2))

    def _body(self, features: Tensor) -> Tensor:
        x = F.silu(features, inplace=True).permute(2, 0, 1)[None]
        block: Any
        for block in self._restoration.body:
            x = block.mix(F.silu(block.around(x), inplace=True)).add_(x)
        return x[0].permute(1, 2, 0)

    def _write(self, cells: Tensor, place: Pixels) -> None:
        """Components (rows, columns, 3, 64) as pixels (8 rows, 8 columns, 3)."""
        y, cb, cr = cells.unbind(2)
        rgb = torch.empty(COMPONENTS, *y.shape, device=self._device)
        of_y = self._red[0]
        torch.add(y, cr, alpha=self._red[2] / of_y, out=rgb[0])
        torch.add(y, cb, alpha=self._green[1] / of_y, out=rgb[1]).add_(cr, alpha=self._green[2] / of_y)
        torch.add(y, cb, alpha=self._blue[1] / of_y, out=rgb[2])
        samples = rgb.mul_(of_y).clamp_(0, 255).cpu().numpy().astype(np.uint8)
        lines = samples.view(np.int64).reshape(COMPONENTS, *y.shape[:2], CELL)  # a line of a cell is 8 bytes, which are moved at once
        planes = np.ascontiguousarray(lines.transpose(0, 1, 3, 2)).view(np.uint8).reshape(COMPONENTS, *place.shape[:2])
        for axis in range(COMPONENTS):
            place[:, :, axis] = planes[axis]
