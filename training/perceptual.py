"""SSIMULACRA2 as something to train for: differentiable, in PyTorch, with the weights of the package `ssimulacra2`.

J. Sneyers, SSIMULACRA 2 (github.com/cloudinary/ssimulacra2): in the XYB colours of JPEG XL, at six scales, 1 - SSIM, detail gained and
detail lost, each as the mean and as the norm of fourth powers. Borders differ from the original's, so scores do by a point or two.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from ssimulacra2.ssimulacra2 import weights as _published
from torch import Tensor

_WEIGHTS = torch.tensor(_published, dtype=torch.float32).view(3, 6, 2, 3)  # channel, scale, norm, (1 - SSIM, gained, lost)
_ABSORBANCE = torch.tensor([[0.30, 0.622, 0.078], [0.23, 0.692, 0.078], [0.24342268924547819, 0.20476744424496821, 0.5518098665095536]])
_BIAS = 0.0037930732552754493
_C2 = 0.0009
_SIGMA, _REACH = 1.5, 5
_LEAST_SIDE = 8


@functools.cache
def _gaussian(length: int) -> Tensor:
    """The window of each of `length` samples, (length, length), cut off and normalised at the border: one product is faster than shifts."""
    distance = torch.arange(length)[:, None] - torch.arange(length)[None]
    window = torch.exp(-(distance**2) / (2 * _SIGMA**2)) * (distance.abs() <= _REACH)
    return window / window.sum(1, keepdim=True)


def _blurred(x: Tensor) -> Tensor:
    return _gaussian(x.shape[2]) @ (x @ _gaussian(x.shape[3]).T)


def _linear(rgb: Tensor) -> Tensor:
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor) -> Tensor:
    red, green, blue = ((torch.einsum("dc,bchw->bdhw", _ABSORBANCE, linear) + _BIAS).clamp(min=1e-6) ** (1 / 3) - _BIAS ** (1 / 3)).unbind(
        1
    )
    x, y = (red - green) / 2, (red + green) / 2
    return torch.stack([x * 14 + 0.42, y + 0.01, blue - y + 0.55], 1)


def distance(original: Tensor, rendered: Tensor) -> Tensor:
    """The weighted sum that SSIMULACRA2's score is a function of, 0 for equal pictures: (B, 3, H, W) in 0..1 -> (B,)."""
    total = torch.zeros(len(original))
    a, b = _linear(original), _linear(rendered.clamp(0, 1))
    for scale in range(_WEIGHTS.shape[1]):
        if min(a.shape[2:]) < _LEAST_SIDE:
            break
        x, y = _xyb(a), _xyb(b)
        mean_x, mean_xx, mean_y, mean_yy, mean_xy = _blurred(torch.cat([x, x * x, y, y * y, x * y])).chunk(5)
        structure = (2 * (mean_xy - mean_x * mean_y) + _C2) / (mean_xx - mean_x**2 + mean_yy - mean_y**2 + _C2)
        dissimilar = (1 - (1 - (mean_x - mean_y) ** 2) * structure).clamp(min=0)
        edges = (1 + (y - mean_y).abs()) / (1 + (x - mean_x).abs()) - 1
        for kind, planes in enumerate((dissimilar, edges.clamp(min=0), (-edges).clamp(min=0))):
            flat = planes.flatten(2)
            norms = torch.stack([flat.mean(2), ((flat**4).mean(2) + 1e-20) ** 0.25], 2)
            total = total + (norms * _WEIGHTS[:, scale, :, kind]).sum((1, 2))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total


def score(distance: Tensor) -> Tensor:
    """SSIMULACRA2's score of a `distance`: 100 for equal pictures."""
    x = distance * 0.9562382616834844
    x = 2.326765642916932 * x - 0.020884521182843837 * x**2 + 6.248496625763138e-05 * x**3
    return 100 - 10 * x.clamp(min=1e-6) ** 0.6276336467831387
