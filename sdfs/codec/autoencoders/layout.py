"""Which latents there are: groups of the transform's coefficients, and how finely each is quantised.

Latents are coefficients in units of their quantisation step. Channels are coded group by group, low frequencies first; what a group holds
is a share of each component's bands.

| Group  | Y        | Cb, Cr   | channels |
|--------|----------|----------|---------:|
| MEAN   | 0        | 0        |        3 |
| LOW    | 1...15   | 1...5    |       25 |
| MIDDLE | 16...71  | 6...23   |       92 |
| HIGH   | 72...255 | 24...79  |      296 |
| CHROMA |          | 80...255 |      352 |
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.autoencoders.lapped import BANDS, COMPONENTS, frequencies

QUALITIES = 101  # 0..100
LEVELS = 9  # per-level parameters are interpolated between LEVELS points of the scale of fineness
CHROMA_FROM = 65.0  # below this fineness the CHROMA group is not coded: hardly a symbol of it would not be zero
_Y_ENDS = (1, 16, 72, BANDS, BANDS)
_CHROMA_ENDS = (1, 6, 24, 80, BANDS)


class Group(Enum):
    """Channels that are coded together."""

    MEAN = 0
    LOW = 1
    MIDDLE = 2
    HIGH = 3
    CHROMA = 4

    @property
    def bands(self) -> tuple[slice, slice, slice]:
        """Of Y, Cb and Cr."""
        begins = [ends[self.value - 1] if self.value else 0 for ends in (_Y_ENDS, _CHROMA_ENDS)]
        luma, chroma = slice(begins[0], _Y_ENDS[self.value]), slice(begins[1], _CHROMA_ENDS[self.value])
        return luma, chroma, chroma

    @property
    def ends(self) -> tuple[int, int, int]:
        """How many of the lowest bands of Y, Cb and Cr this group and those before it hold."""
        return _Y_ENDS[self.value], _CHROMA_ENDS[self.value], _CHROMA_ENDS[self.value]

    @property
    def size(self) -> int:
        return sum(part.stop - part.start for part in self.bands)

    @property
    def channels(self) -> slice:
        """Where it stands among all channels."""
        before = sum(group.size for group in Group if group.value < self.value)
        return slice(before, before + self.size)


CHANNELS = COMPONENTS * BANDS
DETAIL = Group.LOW.size + Group.MIDDLE.size  # channels that the decoder's network sees beside the linear reconstruction
DETAIL_CHANNELS = slice(Group.LOW.channels.start, Group.MIDDLE.channels.stop)


@dataclass(frozen=True)
class Latents:
    """What is coded of a picture, on a grid of (h, w) positions."""

    values: NDArray[np.int16]  # (h, w, channels), those of the first groups, in 1/16 symbol units
    short: NDArray[np.bool_]  # (h, w): positions with short windows

    def crc32(self) -> int:
        """Of the values, little-endian, then of the windows, a byte each."""
        found = 0
        for row in self.values:
            found = zlib.crc32(np.ascontiguousarray(row, "<i2").data, found)
        return zlib.crc32(np.ascontiguousarray(self.short, np.uint8).data, found)


@dataclass(frozen=True)
class Analysed:
    """A picture whose latents are not quantised yet, on a grid of (h, w) positions."""

    latents: NDArray[np.float32]  # (h, w, channels), those that the quality has, in symbol units
    short: NDArray[np.bool_]  # (h, w)


def parts(channels: int) -> Iterator[tuple[slice, int, slice]]:
    """Which channels, of the first `channels`, are which bands of which component: the groups, part by part."""
    for group in Group:
        at = group.channels.start
        for axis, bands in enumerate(group.bands):
            size = bands.stop - bands.start
            if size and at < channels:
                yield slice(at, at + size), axis, bands
            at += size


def to_channels(coefficients: Tensor) -> Tensor:
    """Coefficients (B, 3, h, w, BANDS) -> latents' order (B, CHANNELS, h, w)."""
    parts = [coefficients[:, axis, :, :, part] for group in Group for axis, part in enumerate(group.bands)]
    return torch.cat(parts, 3).permute(0, 3, 1, 2)


def to_coefficients(channels: Tensor, bands: int = BANDS) -> Tensor:
    """Inverse of `to_channels`, for the lowest `bands`: (B, 3, h, w, bands). Channels that are not there, at the end, are 0."""
    last = channels.permute(0, 2, 3, 1)
    coefficients = last.new_zeros(len(last), COMPONENTS, *last.shape[1:3], bands)
    at = 0
    for group in Group:
        for axis, part in enumerate(group.bands):
            if part.start < bands and at < last.shape[3]:
                wanted = min(part.stop, bands) - part.start
                coefficients[:, axis, :, :, part.start : part.start + wanted] = last[..., at : at + wanted]
            at += part.stop - part.start
    return coefficients


@functools.cache
@torch.inference_mode(False)  # or whoever trains later could not use it
def _tilt(device: torch.device) -> Tensor:
    """(CHANNELS,) in octaves: how much finer than the base a channel is quantised. Found by trying: docs/JOURNAL.md."""
    found = []
    for group in Group:
        for axis, part in enumerate(group.bands):
            for u, v in frequencies()[part]:
                octaves = ((3 if axis else 8) - math.hypot(u, v)) / 8
                found.append(min(max(octaves, -0.75), 0.75))
    return torch.tensor(found, device=device)


# What the transform, prior and network go by is the fineness q of quantisation, from 0 to 100, even in the logarithm of the step. At
# qualities 0, 10, ..., 100 it is
_FINENESS = (0, 3, 7, 12, 19, 27, 36, 46, 57, 73, 100)


def fineness(quality: int) -> float:
    """Of a quality 0 ... 100: a multiple of 1/8."""
    low, part = divmod(quality, 10)
    return round(8 * (_FINENESS[low] + (part and (_FINENESS[low + 1] - _FINENESS[low]) * part / 10))) / 8


def log2_step(q: Tensor) -> Tensor:
    """Of the base step at fineness q (B,): (B,)."""
    return 8.2 - 0.05 * q


def log2_steps(q: Tensor) -> Tensor:
    """Of the quantisation step of each channel at fineness q (B,): (B, CHANNELS), multiples of 1/16."""
    return torch.round((log2_step(q)[:, None] - _tilt(q.device)) * 16) / 16


def interpolate(levels: Tensor, q: Tensor) -> Tensor:
    """Rows of `levels` (LEVELS, C) at fineness q (B,) in [0, 100], linearly: (B, C)."""
    position = q * ((LEVELS - 1) / (QUALITIES - 1))
    low = position.floor().long().clamp(0, LEVELS - 2)
    part = (position - low).unsqueeze(1)
    return levels[low] * (1 - part) + levels[low + 1] * part


def last_group(q: float) -> Group:
    """The last group that has symbols at a fineness."""
    return Group.CHROMA if q >= CHROMA_FROM else Group.HIGH
