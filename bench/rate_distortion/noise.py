"""Noise on calm ground: what a codec adds where the original has next to nothing.

Calm is where the original's luma (BT.601), smoothed, varies by at most CALM_STD levels around a pixel. Of that, flat ground lies away
from strong edges, and the ground beside edges close to them; they overlap. What is measured is the high-pass energy: periods below
about 10 pixels, taken against the mean of calm neighbours alone, so that nothing of an edge leaks into its calm sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sdfs.codec.quality.scores import LUMA

CALM_STD = 2.0  # levels, in 7 x 7 pixels
EDGE_GRADIENT = 24.0  # levels a pixel: an edge is strong from here on
FLAT_DISTANCE = 4.0  # pixels from the nearest strong edge
BESIDE = (3.0, 12.0)
HIGH_PASS_SIGMA = 2.0  # pixels
EDGE_FLOOR = 0.75  # levels: calmer than this counts as this, or what is drawn would have infinite ratios

Pixels = NDArray[np.uint8]  # (H, W, 3)
Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Noise:
    """Root mean squares, in levels of 255. None: the original has no such ground."""

    flat: float | None
    edge: float | None


class Ground:
    """Of one original."""

    def __init__(self, original: Pixels) -> None:
        luma = original.astype(np.float32) @ LUMA
        smooth = ndimage.gaussian_filter(luma, 1.0)
        variance = ndimage.uniform_filter(smooth * smooth, 7) - ndimage.uniform_filter(smooth, 7) ** 2
        edges = ndimage.gaussian_gradient_magnitude(luma, 1.0) > EDGE_GRADIENT
        distance = ndimage.distance_transform_edt(~edges) if edges.any() else np.full(luma.shape, np.inf)
        self._calm: Mask = variance <= CALM_STD**2
        self._flat: Mask = self._calm & (distance > FLAT_DISTANCE)
        self._beside: Mask = self._calm & (distance >= BESIDE[0]) & (distance <= BESIDE[1])

    def noise(self, picture: Pixels) -> Noise:
        """Of the original, or of what a codec made of it: the same shape."""
        luma = picture.astype(np.float32) @ LUMA
        weights = ndimage.gaussian_filter(self._calm.astype(np.float32), HIGH_PASS_SIGMA)
        high = luma - ndimage.gaussian_filter(luma * self._calm, HIGH_PASS_SIGMA) / np.maximum(weights, 1e-6)
        return Noise(_rms(high, self._flat), _rms(high, self._beside))


def edge_ratio(edge: float, original: float) -> float:
    """How many times the original's noise."""
    return max(EDGE_FLOOR, edge) / max(EDGE_FLOOR, original)


def _rms(values: Plane, mask: Mask) -> float | None:
    return float(np.sqrt(np.mean(values[mask] ** 2))) if mask.any() else None
