"""Corners between positions, and the kinds of them: which windows the four positions have that share it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.autoencoders.lapped import Window, Windows

_DIGITS = (27, 9, 3, 1)

Border = tuple[tuple[int, int], tuple[int, int]]  # positions that are absent: above and below, left and right


def of_corners(x: Tensor) -> Tensor:
    """What the four positions around each corner have: (R, C, n) -> ((R - 1) * (C - 1), 4 n)."""
    return torch.cat([x[:-1, :-1], x[:-1, 1:], x[1:, :-1], x[1:, 1:]], 2).flatten(0, 1)


def kinds_of(short: NDArray[np.bool_], border: Border) -> Tensor:
    """The kind of each corner between positions (R, C), and of those at the border: (n,) int64."""
    windows = np.pad(short.astype(np.float32), border, constant_values=Window.ABSENT)
    return (of_corners(torch.from_numpy(windows)[:, :, None]) @ torch.tensor(_DIGITS, dtype=torch.float32)).long()


def windows_of(kind: int) -> Windows:
    upper_left, upper_right, lower_left, lower_right = (Window(kind // digit % 3) for digit in _DIGITS)
    return upper_left, upper_right, lower_left, lower_right
