"""Rate and distortion of a batch: what training minimises.

The transform is fixed, and so are the symbols that an encoder chooses for a given prior: the prior learns to expect them, the restoration
to undo what they lost. The two share a batch and nothing else.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.codec.autoencoders import lapped, layout
from sdfs.codec.autoencoders.layout import Group
from sdfs.codec.autoencoders.restoration import Restoration
from sdfs.codec.coding.learned_prior import LearnedPrior, Places, pick, scatter
from sdfs.codec.quality import ssimulacra2
from sdfs.codec.quality.rate_distortion import price

CHROMA_EVERY = 4  # the largest and emptiest group is taught in every so many steps
RIPPLES = 0.3  # weight; at 4 the network smoothed textures away for it
SEEN_SIDE = 128  # pixels of a crop, per side, that SSIMULACRA2 looks at
_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # MS-SSIM's
_C2 = (0.03 * 255) ** 2
_WINDOW = 8


def laplace_bits(magnitude: Tensor, log2_scale: Tensor) -> Tensor:
    """Bits of a symbol of this magnitude, its sign included, of a zero-mean Laplacian with this log2 standard deviation."""
    rate = 2**0.5 / torch.exp2(log2_scale.clamp(-5, 12))
    zero = -torch.log1p(-torch.exp(-0.5 * rate).clamp(max=1 - 1e-7))
    other = (magnitude - 0.5) * rate - torch.log((1 - torch.exp(-rate)).clamp(min=1e-7)) + 0.693147
    return torch.where(magnitude < 0.5, zero, other) * 1.442695


@torch.no_grad()
def chosen(residual: Tensor, log2_scale: Tensor, worth: Tensor) -> Tensor:
    """Of the nearest symbols and the next ones towards 0 those that cost less: in bits, and in error that is worth so many."""
    size = residual.abs()
    upper = torch.round(size).clamp(min=1)
    saved = laplace_bits(upper, log2_scale) - laplace_bits(upper - 1, log2_scale)
    return torch.where(worth * (2 * (size - upper) + 1) < saved, upper - 1, upper) * residual.sign()


@dataclass
class Coded:
    """A batch as a decoder gets it."""

    values: Tensor  # (B, CHANNELS, h, w), in symbol units
    short: Tensor  # (B, h, w) bool
    bits: Tensor  # (B,)


class Codec(nn.Module):
    """The bundled codec as it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = LearnedPrior()
        self.restoration = Restoration()

    def coded(self, rgb: Tensor, q: Tensor, *, chroma: bool = True) -> Coded:
        """rgb (B, 3, H, W) in 0..255, sides multiples of 64. Without `chroma` that group is rounded, and not counted."""
        with torch.no_grad():
            components = lapped.to_components(rgb)
            short = lapped.choose(components, torch.exp2(layout.log2_step(q)))
            latents = layout.to_channels(lapped.forward(components, short)) / torch.exp2(layout.log2_steps(q))[:, :, None, None]
            worth = price((rgb * _LUMA).sum(1, keepdim=True))
        values, bits = torch.zeros_like(latents), torch.zeros(len(rgb))

        def step(group: Group, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
            residual = pick(latents[:, group.channels], places) - mean
            symbols = chosen(residual, log2_scale, pick(worth, places))
            lost = laplace_bits(symbols.abs(), log2_scale).flatten(1).sum(1)
            # the mean's own gradient: that of the magnitude it leaves
            nearer = (residual - residual.detach()) * symbols.sign() * 2**0.5 / torch.exp2(log2_scale.detach()) * 1.442695
            nonlocal bits
            bits = bits + (lost + nearer.flatten(1).sum(1)) * (CHROMA_EVERY if group is Group.CHROMA else 1)
            found = (symbols + mean).detach()
            scatter(values[:, group.channels], places, found)
            return found

        def windows(places: Places, logit: Tensor) -> Tensor:
            nonlocal bits
            truth = pick(short[:, None].float(), places)
            bits = bits + F.binary_cross_entropy_with_logits(logit, truth, reduction="none").flatten(1).sum(1) * 1.442695
            return truth

        self.prior.passes(step, windows, q, last=Group.CHROMA if chroma else Group.HIGH)
        if not chroma:
            last = latents[:, Group.CHROMA.channels]
            values[:, Group.CHROMA.channels] = torch.trunc(last.abs() + 0.35) * last.sign()
        values[:, Group.CHROMA.channels] *= (q >= layout.CHROMA_FROM).float()[:, None, None, None]
        return Coded(values, short, bits)

    def linear(self, coded: Coded, q: Tensor) -> Tensor:
        """What the transform alone makes of it: components (B, 3, H, W)."""
        coefficients = layout.to_coefficients(coded.values * torch.exp2(layout.log2_steps(q))[:, :, None, None])
        return lapped.inverse(coefficients, coded.short)

    def restored(self, linear: Tensor, coded: Coded, q: Tensor) -> Tensor:
        """With the network: components."""
        with torch.autocast(linear.device.type, dtype=torch.bfloat16):
            return self.restoration(linear, coded.values[:, layout.DETAIL_CHANNELS], coded.short, torch.exp2(layout.log2_step(q)), q)


def _windows(x: Tensor, side: int) -> Tensor:
    return x.unflatten(3, (-1, side)).unflatten(2, (-1, side)).mean((3, 5))


def _half(x: Tensor) -> Tensor:
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def _structure(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """1 - MS-SSIM of luma, and the mean of 1 - SSIM of both chroma, of (B, 3, H, W): (B,) each. Windows lie side by side."""
    luma, chroma = torch.ones(len(a)), torch.zeros(len(a))
    for weight in _SCALE_WEIGHTS:
        side = _WINDOW if a.shape[2] > 4 * _WINDOW else _WINDOW // 2
        top, left = random.randrange(side), random.randrange(side)
        rows, columns = ((size - at) // side * side for size, at in zip(a.shape[2:], (top, left), strict=True))
        x, y = (plane[:, :, top : top + rows, left : left + columns] for plane in (a, b))
        mean_x, mean_y = _windows(x, side), _windows(y, side)
        variances = _windows(x * x, side) - mean_x**2 + _windows(y * y, side) - mean_y**2
        similar = (2 * (_windows(x * y, side) - mean_x * mean_y) + _C2) / (variances.clamp(min=0) + _C2)
        by_channel = similar.clamp(max=1).flatten(2).mean(2)
        luma = luma * by_channel[:, 0].clamp(min=1e-4) ** weight
        chroma = chroma + weight * (1 - by_channel[:, 1:]).mean(1)
        a, b = _half(a), _half(b)
    return 1 - luma, chroma


def _high_pass(x: Tensor) -> Tensor:
    beside = x[:, :, :-4, 2:-2] + x[:, :, 4:, 2:-2] + x[:, :, 2:-2, :-4] + x[:, :, 2:-2, 4:]
    return x[:, :, 2:-2, 2:-2] - beside / 4


def _ripples(a: Tensor, b: Tensor) -> Tensor:
    """Detail of luma planes b that a has not, as a share of what is there to hide it: (B,)."""
    gained = (1 + _high_pass(b).abs()) / (1 + _high_pass(a).abs()) - 1
    return gained.clamp(0, 4).square().flatten(1).mean(1)


@dataclass
class Distortion:
    """Of each sample of a batch, (B,) each."""

    squared_error: Tensor  # of RGB in 0..255
    structure: Tensor
    chroma: Tensor
    ripples: Tensor
    tone: Tensor  # squared error of 16 x 16 pixels
    seen: Tensor  # SSIMULACRA2's distance, of a part

    @property
    def total(self) -> Tensor:
        """In logarithms, so that each quality counts alike."""
        main = torch.log(self.squared_error + 1) + 1.5 * torch.log(self.structure + 0.001) + torch.log(self.seen + 0.5)
        return main + 0.15 * torch.log(self.chroma + 0.002) + 0.1 * torch.log(self.tone + 0.5) + RIPPLES * self.ripples


def distortion(rgb: Tensor, decoded: Tensor) -> Distortion:
    """Of decoded from rgb, both (B, 3, H, W) in 0..255, sides of at least 128: the last of MS-SSIM's scales is a sixteenth."""
    error = decoded - rgb
    a, b = (lapped.to_components(x) for x in (rgb, decoded))
    a, b = (x / lapped.COMPONENT_NORMS.float().view(1, 3, 1, 1) for x in (a, b))
    structure, chroma = _structure(a, b)
    tone = _windows(error, 16).square().flatten(1).mean(1)
    top, left = (random.randrange(0, size - SEEN_SIDE + 1) if size > SEEN_SIDE else 0 for size in rgb.shape[2:])
    part = (slice(None), slice(None), slice(top, top + SEEN_SIDE), slice(left, left + SEEN_SIDE))
    seen = ssimulacra2.distance(rgb[part] / 255, decoded[part] / 255)
    return Distortion(error.square().flatten(1).mean(1), structure, chroma, _ripples(a[:, :1], b[:, :1]), tone, seen)
