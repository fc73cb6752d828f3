"""The generic prior: which scale class and mean each symbol of any autoencoder's latents has, given what is decoded already.

Planes of one channel each are decoded from coarse to fine: first every 16th position of every 16th row, then, LEVELS times, a grid
of twice the density in three passes of all channels together:

    .   B   .      . known    1st pass: A, from its diagonal neighbours
    C   A   C                 2nd pass: B, from its neighbours of both kinds
    .   B   .                 3rd pass: C, from all three

A mean is a weighted sum of neighbours. A scale is a weighted sum of how far the nearest four are from that mean, in the channel
itself and on average over all channels. The weights of a channel at a level are one of PROFILES committed sets, chosen by the
encoder; they run from white noise to smooth surfaces. All arithmetic is in 32-bit integers, and none overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdfs.codec.coding.entropy import CLASSES, Classes, Symbols

LEVELS = 4
BASE = 1 << LEVELS  # the coarsest grid has every BASE-th position, per side
PROFILES = 32
UNITS = (16, 16, 13, 11, 11)  # 1/16 symbol units a symbol stands for, by level: errors of coarse levels spread to finer ones
VALUE_LIMIT = 1 << 16  # means and values are clamped to this, in 1/16 symbol units
SHIFT_LIMIT = 24
CLASS_OFFSETS = (0, 0, 1, 2, 2)  # what UNITS add to a class
_REACH = 3  # no neighbour is farther away
_WEIGHT_BITS = 8  # weights are multiples of 2^-8
_TAP_LIMIT = 1 << 14  # on the sum of |weights|: sums of neighbours then stay below 2^31
_CONTEXT_LIMITS = (1 << 20, 1 << 10, 1 << 10)

Planes = NDArray[np.int32]  # (C, h, w), in 1/16 symbol units
Channels = NDArray[np.int32]  # (C,)
Offset = tuple[int, int]  # rows, columns
Groups = tuple[tuple[Offset, ...], ...]
Where = tuple[slice, ...]


class Pass(NamedTuple):
    """Where a pass decodes, within each 2 x 2 positions of its grid, and its neighbours; those of a group share a weight."""

    at: Offset
    groups: Groups  # the first two are the four nearest neighbours

    def where(self, stride: int) -> Where:
        """The positions of the pass in planes whose grid has this stride."""
        return slice(None), *(slice(start * stride, None, 2 * stride) for start in self.at)


_AXES: Groups = (((0, -1), (0, 1)), ((-1, 0), (1, 0)))
_DIAGONALS: Groups = (((-1, -1), (1, 1)), ((-1, 1), (1, -1)))
_KNIGHTS: Groups = (((-2, -1), (-2, 1), (2, -1), (2, 1)), ((-1, -2), (-1, 2), (1, -2), (1, 2)))
_FAR_AXES: Groups = (((0, -3), (0, 3)), ((-3, 0), (3, 0)))
_FAR_DIAGONALS: Groups = (((-1, -3), (-1, 3), (1, -3), (1, 3)), ((-3, -1), (-3, 1), (3, -1), (3, 1)))
PASSES = (
    Pass((1, 1), _DIAGONALS + _FAR_DIAGONALS),
    Pass((0, 1), _AXES + _KNIGHTS + _FAR_AXES),
    Pass((1, 0), _AXES + _KNIGHTS + _FAR_AXES + _DIAGONALS),
)

# Class k begins at a scale of 2^((k - 1)/4 - 3) symbol units; the scale as computed counts 2^-12: floor(2^(9 + (k - 1)/4))
_THRESHOLDS = np.array([math.isqrt(math.isqrt(1 << (35 + k))) for k in range(1, CLASSES)], np.int32)


class Activity(NamedTuple):
    """What a pass knows before it decodes, each (C, n, m) int32 in 1/16 symbol units, `shared` (n, m)."""

    means: Planes
    own: Planes  # how far the four nearest neighbours are from the mean, summed
    shared: NDArray[np.int32]  # `own` on average over the channels


class GenericPrior:
    """The committed weights: int32 multiples of 2^-8."""

    def __init__(self, tensors: Mapping[str, NDArray[np.int32]]) -> None:
        """prior.taps.0, .1, .2: (PROFILES, groups), by pass; prior.contexts: (PROFILES, 9), by pass a constant and two weights."""
        self.taps = [tensors[f"prior.taps.{number}"] for number in range(len(PASSES))]
        self.contexts = tensors["prior.contexts"].reshape(-1, len(PASSES), 3)
        for taps, one in zip(self.taps, PASSES, strict=True):
            sizes = np.array([len(group) for group in one.groups])
            if taps.shape != (PROFILES, len(sizes)) or (np.abs(taps) @ sizes).max() > _TAP_LIMIT:
                raise ValueError("generic prior: taps of a wrong shape or too large")
        if self.contexts.shape != (PROFILES, len(PASSES), 3) or self.contexts.min() < 0 or (self.contexts > _CONTEXT_LIMITS).any():
            raise ValueError("generic prior: contexts of a wrong shape or out of range")

    def activity(self, grid: Planes, number: int, profiles: Channels) -> Activity:
        """What pass `number` knows of the positions that it decodes. grid: every 2^level-th position; profiles (C,)."""
        groups = neighbours(grid, PASSES[number])
        weights = self.taps[number][profiles]
        total = np.full(groups[0][0].shape, 1 << (_WEIGHT_BITS - 1), np.int32)
        for group, weight in zip(groups, weights.T, strict=True):
            total += weight[:, None, None] * sum(group[1:], start=group[0])
        means = np.clip(total >> _WEIGHT_BITS, -VALUE_LIMIT, VALUE_LIMIT)
        own = sum((np.abs(near - means) for near in groups[0][1:] + groups[1]), start=np.abs(groups[0][0] - means))
        return Activity(means, own, (own.sum(0, dtype=np.int64) // len(own)).astype(np.int32))

    def classes(self, activity: Activity, level: int, number: int, profiles: Channels, shifts: Channels) -> Classes:
        """The scale class of each symbol: never 0. shifts (C,)."""
        constant, own, shared = (weight[:, None, None] for weight in self.contexts[profiles, number].T)
        scales = constant + own * activity.own + shared * activity.shared
        classes = np.searchsorted(_THRESHOLDS, scales, side="right") + (shifts + CLASS_OFFSETS[level])[:, None, None]
        return np.clip(classes, 1, CLASSES - 1).astype(np.uint8)

    def walk(
        self,
        planes: Planes,
        bases: Channels,
        parameters_of: Callable[[int], tuple[Channels, Channels]],
        code: Callable[[Where, Planes, Classes, int], Symbols],
    ) -> None:
        """Fill `planes` (C, h, w), which are 0: the one order that encoder and decoder share.

        bases (C,): classes of the coarsest grid. parameters_of(level): profiles and shifts, asked for when the coarser levels are there.
        code(where, means, classes, unit): the symbols of a pass; a value is its mean and `unit` times its symbol.
        """

        def step(where: Where, means: Planes, classes: Classes, unit: int) -> None:
            planes[where] = np.clip(means + unit * code(where, means, classes, unit), -VALUE_LIMIT, VALUE_LIMIT)

        coarsest = (slice(None), slice(None, None, BASE), slice(None, None, BASE))
        classes = np.broadcast_to(bases.astype(np.uint8)[:, None, None], planes[coarsest].shape)
        step(coarsest, np.zeros(classes.shape, np.int32), classes, UNITS[LEVELS])
        for level in reversed(range(LEVELS)):
            stride = 1 << level
            profiles, shifts = parameters_of(level)
            for number, one in enumerate(PASSES):
                activity = self.activity(planes[:, ::stride, ::stride], number, profiles)
                step(one.where(stride), activity.means, self.classes(activity, level, number, profiles, shifts), UNITS[level])


def neighbours(grid: Planes, one: Pass) -> list[list[Planes]]:
    """By group, the neighbours of the positions that a pass decodes, each (C, n, m); the grid is mirrored at its borders."""
    rows, columns = grid.shape[1:]
    padded = grid[:, _mirrored(rows)][:, :, _mirrored(columns)]

    def moved(offset: Offset) -> Planes:
        top, left = (_REACH + at + by for at, by in zip(one.at, offset, strict=True))
        return padded[:, top : top + rows - one.at[0] : 2, left : left + columns - one.at[1] : 2]

    return [[moved(offset) for offset in group] for group in one.groups]


def _mirrored(length: int) -> NDArray[np.intp]:
    """The positions -_REACH ... length - 1 + _REACH, mirrored at the first and at the last."""
    period = max(1, 2 * length - 2)
    folded = np.abs(np.arange(-_REACH, length + _REACH)) % period
    return np.minimum(folded, period - folded)
