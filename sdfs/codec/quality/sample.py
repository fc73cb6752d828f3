"""Squares of a picture, spread evenly over it: what stands for all of it where looking at all of it would take too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.quality import ssimulacra2

SIDE = 256  # pixels of a square
_ACROSS = 4  # squares along each side of a mosaic
_MARGIN = 16  # pixels around a square of a mosaic: what a coder makes of its border is not looked at
_TOGETHER = 4  # squares scored at once: small enough to stay in a processor's cache


class Corner(NamedTuple):
    """Where a square begins."""

    top: int
    left: int


@dataclass(frozen=True)
class Judgement:
    """SSIMULACRA2's scores: of the squares together, of the worst of them, and of the worst of those with letters, which are apart."""

    score: float
    worst: float
    at: Corner  # where the worst one begins
    letters: float  # 100 where no square has any

    def as_dict(self) -> dict[str, float]:
        found = {"score": self.score, "worst_score": self.worst} | ({"letters_score": self.letters} if self.letters < 100 else {})
        return {name: round(value, 1) for name, value in found.items()}

    def __str__(self) -> str:
        letters = f", of letters {self.letters:.1f}" if self.letters < 100 else ""
        return f"{self.score:.1f}, {self.worst:.1f} around pixel ({self.at.left}, {self.at.top}){letters}"


class Sample:
    """Of a picture (H, W, 3) or (H, W) uint8. One of up to 16 squares is looked at as a whole.

    `letters`: corners of squares that have letters; they count as squares of their own.
    """

    def __init__(self, pixels: NDArray[np.uint8], letters: Sequence[Corner] = ()) -> None:
        self._pixels = pixels
        height, width = pixels.shape[:2]
        self._sides = min(SIDE, height), min(SIDE, width)
        rows, columns = -(-height // SIDE), -(-width // SIDE)
        self.is_whole = rows * columns <= _ACROSS**2 or min(height, width) < SIDE + 2 * _MARGIN
        if not self.is_whole:
            rows, columns = min(rows, _ACROSS), min(columns, _ACROSS)
        tops, lefts = _spread(height, self._sides[0], rows), _spread(width, self._sides[1], columns)
        self._even = [Corner(top, left) for top in tops for left in lefts]
        self._letters = [self._within(corner) for corner in letters]
        self.picture = pixels if self.is_whole else self._mosaic()

    @property
    def letters(self) -> dict[Corner, NDArray[np.uint8]]:
        """The squares with letters, by where they begin."""
        return dict(zip(self._letters, self._cut(self._pixels, self._letters), strict=True))

    @property
    def share(self) -> float:
        """Of the picture's area that `picture` has."""
        return self.picture.shape[0] * self.picture.shape[1] / (self._pixels.shape[0] * self._pixels.shape[1])

    def judge(self, rendered: NDArray[np.uint8], also: Sequence[Corner] = ()) -> Judgement:
        """Of a whole picture, and of further squares, which count as worst ones alone."""
        corners = [*self._even, *self._letters, *map(self._within, also)]
        return self._judged(self._cut(self._pixels, corners), self._cut(rendered, corners), corners)

    def judge_sample(self, rendered: NDArray[np.uint8]) -> Judgement:
        """Of what became of `picture`."""
        if self.is_whole:
            return self.judge(rendered)
        corners = [*self._even, *self._letters]
        height, width = (side + 2 * _MARGIN for side in self._sides)
        places = []
        for i, (corner, outer) in enumerate(zip(corners, map(self._outer, corners), strict=True)):
            places.append(Corner(i // _ACROSS * height + corner.top - outer.top, i % _ACROSS * width + corner.left - outer.left))
        return self._judged(self._cut(self._pixels, corners), self._cut(rendered, places), corners)

    def _judged(self, before: list[NDArray[np.uint8]], after: list[NDArray[np.uint8]], corners: Sequence[Corner]) -> Judgement:
        with torch.inference_mode():
            parts = range(0, len(before), _TOGETHER)
            moments = torch.cat([ssimulacra2.moments(*(_stacked(x[i : i + _TOGETHER]) for x in (before, after))) for i in parts])
            scores = ssimulacra2.score(ssimulacra2.weighted(moments))
            together = ssimulacra2.score(ssimulacra2.weighted(moments[: len(self._even)].mean(0, keepdim=True)))
        first, last = len(self._even), len(self._even) + len(self._letters)
        letters = scores[first:last]
        worst = int(torch.cat([scores[:first], torch.full_like(letters, 100), scores[last:]]).argmin())
        return Judgement(together.item(), scores[worst].item(), corners[worst], letters.min().item() if len(letters) else 100.0)

    def _within(self, corner: Corner) -> Corner:
        height, width = self._pixels.shape[:2]
        return Corner(min(corner.top, height - self._sides[0]), min(corner.left, width - self._sides[1]))

    def _outer(self, corner: Corner) -> Corner:
        """Where what a mosaic has of a square begins."""
        spare = (length - side - 2 * _MARGIN for length, side in zip(self._pixels.shape, self._sides, strict=False))
        return Corner(*(min(max(0, at - _MARGIN), most) for at, most in zip(corner, spare, strict=True)))

    def _cut(self, pixels: NDArray[np.uint8], corners: Sequence[Corner]) -> list[NDArray[np.uint8]]:
        height, width = self._sides
        return [pixels[top : top + height, left : left + width] for top, left in corners]

    def _mosaic(self) -> NDArray[np.uint8]:
        """The squares, four a row; the last row is filled with the first squares."""
        corners = [*self._even, *self._letters]
        height, width = (side + 2 * _MARGIN for side in self._sides)
        outer = map(self._outer, corners + corners[: -len(corners) % _ACROSS])
        squares = [self._pixels[top : top + height, left : left + width] for top, left in outer]
        rows = [np.concatenate(squares[i : i + _ACROSS], 1) for i in range(0, len(squares), _ACROSS)]
        return np.concatenate(rows)


def _spread(length: int, side: int, count: int) -> list[int]:
    """Where so many squares begin along a side: the first at its beginning, the last at its end."""
    return [round(at) for at in np.linspace(0, length - side, count)] if count > 1 else [(length - side) // 2]


def _stacked(squares: list[NDArray[np.uint8]]) -> Tensor:
    """(B, 3, H, W) in 0..1."""
    stacked = torch.from_numpy(np.stack(squares)).float() / 255
    return stacked.permute(0, 3, 1, 2) if stacked.ndim == 4 else stacked[:, None].expand(-1, 3, -1, -1)
