"""How a picture is coded: at which quality its coder gives the score that is asked for, and which coder takes the fewest bytes for it.

The score is a promise (`Asked`): of the whole picture, and of its worst places. What a coder has to be told for it differs from picture to
picture, so it is tried on a sample (`sdfs.codec.quality.sample`), and measured when the picture is coded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdfs.codec.patches import Patch
from sdfs.codec.quality.sample import Judgement, Sample
from sdfs.codec.resident.model import ResidentModel
from sdfs.settings import Effort

ALLOWANCE = 12.0  # points that the worst square may be below what is asked
LETTERS = 80.0  # points, for squares with letters
_SLOPE = 0.6  # points of score that one step of quality is worth, about
_TRIES = 3
_CLOSE = 1.0  # points above what is asked that are near enough

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Asked:
    """What a reader is promised: SSIMULACRA2's score at least, and what its worst square of 256 x 256 pixels may be below it.

    Of squares with letters the score is at least LETTERS, whatever is asked.
    """

    score: float
    letters: bool = True  # whether squares with letters are looked at

    def excess(self, judged: Judgement) -> float:
        """Points, to a tenth, by which the promise is more than kept; below 0 it is broken."""
        least = min(judged.score - self.score, judged.worst - self.score + ALLOWANCE)
        least = min(least, judged.letters - max(self.score, LETTERS)) if self.letters else least
        return round(least, 1)


@dataclass(frozen=True)
class Tried:
    """What a sample takes at a quality."""

    quality: int
    size: int  # bytes
    excess: float


@dataclass(frozen=True)
class Plan:
    """A coder, what it is to be told, and about how many bytes the picture will take."""

    coder: ResidentModel
    quality: int
    size: float
    patches: tuple[Patch, ...] = ()  # squares that are coded by themselves


def plan(coder: ResidentModel, sample: Sample, asked: Asked, seen: Callable[[Pixels], Pixels], start: int) -> Plan | None:
    """Find the lowest quality at which the sample keeps the promise; None where none does.

    `seen`: what a reader gets of decoded pixels. `start`: the quality that is tried first.
    """
    tried: dict[int, Tried] = {}
    quality = min(100, max(0, start))
    while quality not in tried and len(tried) < _TRIES:
        encoded = coder.encode(to_rgb(sample.picture), quality, Effort.FAST)
        tried[quality] = Tried(quality, len(encoded.section), asked.excess(sample.judge_sample(seen(encoded.pixels))))
        if 0 <= tried[quality].excess < _CLOSE:
            break
        quality = _next(sorted(tried.values(), key=lambda one: one.quality))
    best = min((one for one in tried.values() if one.excess >= 0), key=lambda one: one.quality, default=None)
    below = max((one for one in tried.values() if one.excess < 0), key=lambda one: one.quality, default=None)
    if best is None:
        return None
    if below is not None and best.excess >= _CLOSE:
        best = _between(below, best)
    return Plan(coder, best.quality, best.size / sample.share)


def _next(tried: list[Tried]) -> int:
    """The quality at which the promise should just be kept."""
    above = next((one for one in tried if one.excess >= 0), None)
    below = next((one for one in reversed(tried) if one.excess < 0), None)
    if above is not None and below is not None:
        return _between(below, above).quality
    known = above or below
    assert known is not None
    slope = _SLOPE
    if len(tried) > 1:
        first, second = tried[0], tried[-1]
        slope = max(0.2, (second.excess - first.excess) / (second.quality - first.quality))
    step = (known.excess - _CLOSE / 2) / slope
    return min(100, max(0, round(known.quality - step)))


def _between(below: Tried, above: Tried) -> Tried:
    """By interpolation."""
    part = (_CLOSE / 2 - below.excess) / (above.excess - below.excess)
    quality = math.ceil(below.quality + part * (above.quality - below.quality))
    quality = min(max(quality, below.quality + 1), above.quality)
    size = math.exp(np.interp(quality, [below.quality, above.quality], np.log([below.size, above.size])))
    return Tried(quality, round(size), float(np.interp(quality, [below.quality, above.quality], [below.excess, above.excess])))


def to_rgb(pixels: Pixels) -> Pixels:
    """(H, W, 3) of a picture that may be grey, (H, W)."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
