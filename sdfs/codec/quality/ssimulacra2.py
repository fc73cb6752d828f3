"""SSIMULACRA2: how far a decoded picture is from its original to the eye. In PyTorch, differentiable, of squares side by side.

J. Sneyers, SSIMULACRA 2 (github.com/cloudinary/ssimulacra2, BSD licence), whose weights these are: in the XYB colours of JPEG XL, at six
scales, 1 - SSIM, detail gained and detail lost, each as the mean and as the norm of fourth powers. Scores: 30 low quality, 50 medium, 70
high, 90 not to be told from the original.

Borders differ from the original's: scores differ by a point or two from its own.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

_PUBLISHED = (  # by colour, scale, norm (mean, fourth powers), and kind (1 - SSIM, detail gained, detail lost)
    (  # X
        ((0, 0.0007376606707406586, 0), (0, 0.0007793481682867309, 0)),
        ((0, 0.0004371155730107379, 0), (1.1041726426657346, 0.00066284834129271, 0.00015231632783718752)),
        ((0, 0.0016406437456599754, 0), (1.8422455520539298, 11.441172603757666, 0)),
        ((0.0007989109436015163, 0.000176816438078653, 0), (1.8787594979546387, 10.94906990605142, 0)),
        ((0.0007289346991508072, 0.9677937080626833, 0), (0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053)),
        ((0.0004550992113792063, 0, 0), (0.0013648766163243398, 0, 0)),
    ),
    (  # Y
        ((0, 0, 0), (7.466890328078848, 0, 17.445833984131262)),
        ((0.0006235601634041466, 0, 0), (6.683678146179332, 0.00037724407979611296, 1.027889937768264)),
        ((225.20515300849274, 0, 0), (19.213238186143016, 0.0011401524586618361, 0.001237755635509985)),
        ((176.39317598450694, 0, 0), (24.43300999870476, 0.28520802612117757, 0.0004485436923833408)),
        ((0, 0, 0), (34.77906344483772, 44.835625328877896, 0)),
        ((0, 0, 0), (0, 0, 0)),
    ),
    (  # B
        ((0, 0.0008680556573291698, 0), (0, 0, 0)),
        ((0, 0.0005313191874358747, 0), (0.00016533814161379112, 0, 0)),
        ((0, 0, 0), (0.0004179171803251336, 0.0017290828234722833, 0)),
        ((0.0020827005846636437, 0, 0), (8.826982764996862, 23.19243343998926, 0)),
        ((95.1080498811086, 0.9863978034400682, 0.9834382792465353), (0.0012286405048278493, 171.2667255897307, 0.9807858872435379)),
        ((0, 0, 0), (0.0005130064588990679, 0, 0.00010854057858411537)),
    ),
)
_WEIGHTS = torch.tensor(_PUBLISHED, dtype=torch.float32)
_NEGLIGIBLE = 0.01  # weights below it change no score by a tenth of a point, but their planes would be computed
_ABSORBANCE = torch.tensor([[0.30, 0.622, 0.078], [0.23, 0.692, 0.078], [0.24342268924547819, 0.20476744424496821, 0.5518098665095536]])
_BIAS = 0.0037930732552754493
_C2 = 0.0009
_SIGMA, _REACH = 1.5, 5
_LEAST_SIDE = 8


@functools.cache
@torch.inference_mode(False)  # or whoever trains later could not use it
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
    mixed = torch.einsum("dc,bchw->bdhw", _ABSORBANCE, linear) + _BIAS
    red, green, blue = (mixed.clamp(min=1e-6) ** (1 / 3) - _BIAS ** (1 / 3)).unbind(1)
    x, y = (red - green) / 2, (red + green) / 2
    return torch.stack([x * 14 + 0.42, y + 0.01, blue - y + 0.55], 1)


def moments(original: Tensor, rendered: Tensor) -> Tensor:
    """What scores are made of, for each of a batch: (B, 3, H, W) in 0..1 -> (B, 3, 6, 2, 3), means of first and fourth powers."""
    found = torch.zeros(len(original), *_WEIGHTS.shape)
    a, b = _linear(original), _linear(rendered.clamp(0, 1))
    for scale in range(_WEIGHTS.shape[1]):
        if min(a.shape[2:]) < _LEAST_SIDE:
            break
        weighed = (_WEIGHTS[:, scale] > _NEGLIGIBLE).flatten(1).any(1).nonzero().flatten()
        if len(weighed):
            x, y = _xyb(a)[:, weighed], _xyb(b)[:, weighed]
            mean_x, mean_xx, mean_y, mean_yy, mean_xy = _blurred(torch.cat([x, x * x, y, y * y, x * y])).chunk(5)
            structure = (2 * (mean_xy - mean_x * mean_y) + _C2) / (mean_xx - mean_x**2 + mean_yy - mean_y**2 + _C2)
            dissimilar = (1 - (1 - (mean_x - mean_y) ** 2) * structure).clamp(min=0)
            edges = (1 + (y - mean_y).abs()) / (1 + (x - mean_x).abs()) - 1
            planes = torch.stack([dissimilar, edges.clamp(min=0), (-edges).clamp(min=0)], 2).flatten(3)
            found[:, weighed, scale] = torch.stack([planes.mean(3), (planes**4).mean(3)], 2)
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return found


def distance(original: Tensor, rendered: Tensor) -> Tensor:
    """The weighted sum that SSIMULACRA2's score is a function of, 0 for equal pictures: (B, 3, H, W) in 0..1 -> (B,)."""
    return weighted(moments(original, rendered))


def weighted(moments: Tensor) -> Tensor:
    """The same of moments (B, 3, 6, 2, 3), which may be means over several squares: (B,)."""
    first, fourth = moments.unbind(3)
    return (torch.stack([first, (fourth + 1e-30) ** 0.25], 3) * _WEIGHTS).flatten(1).sum(1)


def score(distance: Tensor) -> Tensor:
    """SSIMULACRA2's score of a `distance`: 100 for equal pictures."""
    x = distance * 0.9562382616834844
    x = 2.326765642916932 * x - 0.020884521182843837 * x**2 + 6.248496625763138e-05 * x**3
    return 100 - 10 * x.clamp(min=1e-6) ** 0.6276336467831387
