"""The inverse of the lapped transform as few large products of matrices.

The samples around the corner that four positions share depend on these four alone (`lapped.around_corner`): one matrix for each way to
choose their windows. Nearly all corners of a picture lie between long windows. Nearly all latents beyond the group MIDDLE are 0: they are
added where one of the four positions has any.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.autoencoders.corners import Border, kinds_of, of_corners, windows_of
from sdfs.codec.autoencoders.lapped import COMPONENTS, FACTOR, around_corner
from sdfs.codec.autoencoders.layout import Group

DENSE = Group.MIDDLE.channels.stop  # channels of which most positions have some that are not 0
_DENSE_GROUPS, _RARE_GROUPS = (Group.MEAN, Group.LOW, Group.MIDDLE), (Group.HIGH, Group.CHROMA)


@functools.cache
@torch.inference_mode(False)
def _matrix(kind: int, first: int, last: int, device: torch.device) -> Tensor:
    """Of the bands first … last - 1 of four positions: (4 * bands, 256) float32."""
    bands = around_corner(windows_of(kind))[:, first:last]
    return bands.flatten(0, 1).contiguous().to(device)


def _component(x: Tensor, groups: tuple[Group, ...], axis: int) -> Tensor:
    """The bands of one component among the channels of neighbouring groups (..., channels)."""
    start = groups[0].channels.start
    parts = []
    for group in groups:
        sizes = [bands.stop - bands.start for bands in group.bands]
        at = group.channels.start - start + sum(sizes[:axis])
        parts.append(x[..., at : at + sizes[axis]])
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


def blocks(values: NDArray[np.int16], short: NDArray[np.bool_], border: Border, scale: Tensor, middle: float) -> Tensor:
    """The samples around corners: (corners down, corners across, COMPONENTS, 256) float32, each as `around_corner` has them.

    values (R, C, channels), short (R, C); `border`: where positions beyond these are outside the picture, so that corners at its border
    come out, too; scale (channels,): of a unit of each value; `middle`: added to what all samples of Y are.
    """
    device = scale.device
    kinds = kinds_of(short, border).to(device)
    down, across = (size - 1 + sum(absent) for size, absent in zip(short.shape, border, strict=True))
    found = torch.empty(len(kinds), COMPONENTS, FACTOR**2, device=device)
    dense = torch.from_numpy(np.pad(values[:, :, :DENSE], (*border, (0, 0)))).to(device).float().mul_(scale[:DENSE])
    dense[:, :, 0] += middle * FACTOR
    counts = torch.bincount(kinds)
    usual = int(counts.argmax())
    others = [(kind, torch.nonzero(kinds == kind)[:, 0]) for kind in torch.nonzero(counts)[:, 0].tolist() if kind != usual]
    for axis in range(COMPONENTS):
        four = of_corners(_component(dense, _DENSE_GROUPS, axis))
        bands = four.shape[1] // 4
        torch.mm(four, _matrix(usual, 0, bands, device), out=found[:, axis])
        for kind, corners in others:
            found[:, axis].index_copy_(0, corners, four[corners] @ _matrix(kind, 0, bands, device))
    for group in _RARE_GROUPS:
        if group.channels.start < values.shape[2]:
            _add_rare(found, values, border, kinds, group, scale)
    return found.view(down, across, COMPONENTS, FACTOR**2)


def _add_rare(found: Tensor, values: NDArray[np.int16], border: Border, kinds: Tensor, group: Group, scale: Tensor) -> None:
    """Add what a group has, at corners where it has any."""
    rows, columns = values.shape[:2]
    any_there = np.bitwise_or.reduce(values[:, :, group.channels].view(np.int64), axis=2) != 0  # four values at once
    padded = torch.from_numpy(np.pad(any_there, border))[:, :, None]
    corners = torch.nonzero(of_corners(padded).any(1))[:, 0]
    if not len(corners):
        return
    row, column = divmod(corners.numpy(), padded.shape[1] - 1)
    # of an absent position any will do: its part of the matrix is 0
    four_rows = (row[:, None] + (0, 0, 1, 1) - border[0][0]).clip(0, rows - 1)
    four_columns = (column[:, None] + (0, 1, 0, 1) - border[1][0]).clip(0, columns - 1)
    chosen = values[four_rows, four_columns, group.channels]
    units = torch.from_numpy(chosen).to(found.device).float().mul_(scale[group.channels])
    corners = corners.to(found.device)
    kinds_there = kinds[corners]
    for kind in torch.unique(kinds_there).tolist():
        here = torch.nonzero(kinds_there == kind)[:, 0]
        for axis, bands in enumerate(group.bands):
            if bands.stop > bands.start:
                part = _component(units[here], (group,), axis).flatten(1)
                found[:, axis].index_add_(0, corners[here], part @ _matrix(kind, bands.start, bands.stop, found.device))
