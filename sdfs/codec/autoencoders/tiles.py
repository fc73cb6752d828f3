"""Cutting a grid into tiles with a halo, so that memory stays bounded and seams cannot show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in grid positions: compute `outer`, keep `inner`."""

    inner: slice
    outer: slice

    @property
    def kept(self) -> slice:
        """`inner` within `outer`."""
        start = self.inner.start - self.outer.start
        return slice(start, start + self.inner.stop - self.inner.start)


def spans(length: int, tile: int, halo: int) -> Iterator[Span]:
    """Tiles of `tile` positions over 0..length, each seen with up to `halo` positions more on either side."""
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        yield Span(slice(start, stop), slice(max(0, start - halo), min(length, stop + halo)))


def scaled(part: slice, factor: int) -> slice:
    return slice(part.start * factor, part.stop * factor)
