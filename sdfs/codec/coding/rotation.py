"""Rotations of channels: what moves together in several channels becomes one that varies and others that hardly do.

A rotation of C channels is C (C - 1) / 2 angles in units of pi / 128, of the pairs (0, 1), (0, 2), ... (1, 2), ... of channels.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Angles = NDArray[np.int8]
Matrix = NDArray[np.float64]

_HALF_TURN = 128
_NOISE = 0.1  # variance, in squared symbol units, below which a channel costs next to nothing


def angle_count(channels: int) -> int:
    return channels * (channels - 1) // 2


def matrix(angles: Angles, channels: int) -> Matrix:
    """What takes rotated channels back; its transpose rotates."""
    back = np.eye(channels)
    for (i, j), angle in zip(combinations(range(channels), 2), angles.tolist(), strict=True):
        _turn(back, i, j, np.pi * angle / _HALF_TURN)
    return back


def fitting(latents: NDArray[np.float32]) -> Angles | None:
    """The angles that leave neighbours' differences uncorrelated between the channels; None where they would cost more than they save.

    latents (C, h, w) in symbol units. What is saved is what it would be for Gaussians.
    """
    channels, positions = len(latents), latents[0].size
    differences = np.concatenate([np.diff(latents, axis=axis).reshape(channels, -1) for axis in (1, 2)], 1)
    covariance = (differences @ differences.T).astype(np.float64) / max(1, 2 * differences.shape[1]) + _NOISE * np.eye(channels)
    variances, vectors = np.linalg.eigh(covariance)
    saved_bits = (np.log2(np.diag(covariance)).sum() - np.log2(variances).sum()) / 2 * positions
    return _angles(vectors[:, ::-1].T) if saved_bits > 8 * angle_count(channels) else None


def _angles(orthogonal: Matrix) -> Angles:
    """The angles of the matrix that rotates, which turn it into the identity column by column; its last row may change its sign."""
    rows = orthogonal.copy()
    rows[-1] *= np.sign(np.linalg.det(rows))
    found = []
    for i, j in combinations(range(len(rows)), 2):
        angle = np.arctan2(-rows[j, i], rows[i, i])
        _turn(rows, i, j, angle)
        found.append(angle)
    units = np.rint(np.array(found) / np.pi * _HALF_TURN).astype(np.int64)
    return ((units + _HALF_TURN) % (2 * _HALF_TURN) - _HALF_TURN).astype(np.int8)


def _turn(rows: Matrix, i: int, j: int, angle: float) -> None:
    """Rotate the rows i and j, in place."""
    cosine, sine = np.cos(angle), np.sin(angle)
    rows[[i, j]] = cosine * rows[i] - sine * rows[j], sine * rows[i] + cosine * rows[j]
