"""How far the textures of two pictures are apart: what the second stage of training adds to the squared error.

A Wasserstein distortion (Qiu et al. 2024, "Wasserstein Distortion: Unifying Fidelity and Realism"; Ballé et al. 2024, "Good, Cheap, and
Fast: Overfitted Image Compression with Wasserstein Distortion", arXiv 2412.00505): features of both pictures are compared by their local
means and standard deviations, so grass of the right contrast is near to grass, blade by blade or not, and a smear is not.
The features are no network's: oriented derivatives of luma at several scales.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.objective import luma

SCALES = 3  # each half the size of the one before
WINDOWS = (8, 16)  # sides of the neighbourhoods that are compared, in samples of a scale
_FLOOR = 1.0  # variance, of 0..255 luma, that nobody sees


def _derivatives() -> Tensor:
    """(5, 1, 3, 3): horizontal, vertical, both diagonals (Scharr's, which are equally steep in every direction), and a Laplacian."""
    across = torch.tensor([[-3.0, 0, 3], [-10, 0, 10], [-3, 0, 3]]) / 32
    aslant = torch.tensor([[0.0, 3, 10], [-3, 0, 3], [-10, -3, 0]]) / 32
    laplacian = torch.tensor([[-1.0, -2, -1], [-2, 12, -2], [-1, -2, -1]]) / 16
    return torch.stack([across, across.t(), aslant, aslant.flip(1), laplacian])[:, None]


def _statistics(features: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Local means and variances of (B, C, H, W), over windows that overlap by half."""
    mean, square = (F.avg_pool2d(x, window, window // 2) for x in (features, features.square()))
    return mean, (square - mean.square()).clamp(min=0)


def texture_distance(pixels: Tensor, reconstruction: Tensor) -> Tensor:
    """Of (B, 3, H, W) in [0, 1], sides of at least 96: (B,), 0 where they are equal, differentiable in the reconstruction.

    Each neighbourhood counts relative to its own energy: what is lost of a faint texture is seen as well as what is lost of a strong one.
    """
    filters = _derivatives().to(pixels)
    ours, theirs = luma(pixels), luma(reconstruction)
    distances = []
    for _ in range(SCALES):
        features, other = F.conv2d(ours, filters), F.conv2d(theirs, filters)
        for window in WINDOWS:
            (mean, variance), (other_mean, other_variance) = _statistics(features, window), _statistics(other, window)
            deviations = torch.sqrt(variance + _FLOOR) - torch.sqrt(other_variance + _FLOOR)
            moved = ((mean - other_mean).square() + deviations.square()).sum(1)
            distances.append((moved / (mean.square() + variance + _FLOOR).sum(1)).flatten(1).mean(1))
        ours, theirs = F.avg_pool2d(ours, 2), F.avg_pool2d(theirs, 2)
    return torch.stack(distances).mean(0)
