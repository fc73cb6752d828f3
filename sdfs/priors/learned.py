"""The learned prior of the bundled codec: which scale class and mean each latent symbol has, given what is decoded already.

A hyperlatent grid at 1/64 says roughly where the picture is busy; four vectorised passes then follow. Positions form a
checkerboard, channels a low band (LOW channels) and a high band:

    pass 0   low band,  even positions      from the hyperlatents
    pass 1   low band,  odd positions       + the four even neighbours
    pass 2   high band, even positions      + the low band of the 3 x 3 neighbourhood
    pass 3   high band, odd positions       + the high band of the four even neighbours

Every number is a dyadic rational: weights are multiples of 2^-12, activations are rounded to multiples of 2^-8 and clamped to
+-128 after each layer, so that all sums stay far below 2^53 / 2^20 and float64 holds them exactly, in any order of summation,
on any machine. The same code trains: without `exact`, rounding is left out.

Scales and gains are base-2 logarithms in steps of 1/16. Quality only shifts a scale (and multiplies a mean) by the channel's gain.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.autoencoders.bundled import CHANNELS, LEVELS, interpolate

HYPER = 32  # hyperlatent channels
HYPER_FACTOR = 4  # latent positions a hyperlatent position, per side
FEATURES = 32
LOW = 32  # channels of the low band
PASSES = 4
_SQUEEZED = 16
_MEAN_SCALE = 32.0  # hyper-predicted means leave the network in units of this many latent units
_WEIGHT_STEP = 2.0**-12
_ACTIVATION_STEP = 2.0**-8
_ACTIVATION_LIMIT = 128.0
_MEAN_STEP = 2.0**-4
_LATENT_LIMIT = 2048.0  # quantised latents are seen clamped to this


def checkerboard(x: Tensor, parity: int) -> Tensor:
    """The positions of `x` (B, C, H, W), H and W even, where row + column has this parity: (B, C, H, W/2)."""
    even, odd = x[:, :, 0::2, parity::2], x[:, :, 1::2, 1 - parity :: 2]
    return torch.stack([even, odd], 3).flatten(2, 3)


def merge(even: Tensor, odd: Tensor) -> Tensor:
    """Inverse of `checkerboard`: both parities (B, C, H, W/2) -> (B, C, H, W)."""
    rows0 = torch.stack([even[:, :, 0::2], odd[:, :, 0::2]], 4).flatten(3, 4)
    rows1 = torch.stack([odd[:, :, 1::2], even[:, :, 1::2]], 4).flatten(3, 4)
    return torch.stack([rows0, rows1], 3).flatten(2, 3)


def neighbours(x: Tensor) -> Tensor:
    """Up, down, left and right neighbours (zero outside), stacked as channels: (B, 4C, H, W)."""
    p = F.pad(x, (1, 1, 1, 1))
    return torch.cat([p[:, :, :-2, 1:-1], p[:, :, 2:, 1:-1], p[:, :, 1:-1, :-2], p[:, :, 1:-1, 2:]], 1)


def magnitude(y: Tensor) -> Tensor:
    """log2(1 + 2|y|), linear between powers of two, so that it is exact in binary arithmetic."""
    mantissa, exponent = torch.frexp(y.abs() * 2 + 1)
    return exponent + 2 * mantissa - 2


class HyperEncoder(nn.Module):
    """Latents in symbol units to hyperlatents: encoder side only, so in ordinary floating point."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.into = nn.Conv2d(CHANNELS + LOW, width, 3, padding=1)
        self.quality = nn.Parameter(torch.zeros(LEVELS, width))
        self.down_first = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.down_second = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.out = nn.Conv2d(width, HYPER, 1)

    def forward(self, y: Tensor, q: Tensor) -> Tensor:
        """(B, 256, h, w) float32, h and w multiples of 4 -> (B, HYPER, h/4, w/4) float32."""
        dtype = self.into.weight.dtype
        x = torch.cat([magnitude(y), torch.asinh(y[:, :LOW])], 1).to(dtype)
        x = F.silu(self.into(x) + interpolate(self.quality, q).to(dtype)[:, :, None, None])
        return self.out(F.silu(self.down_second(F.silu(self.down_first(x))))).float()


class LearnedPrior(nn.Module):
    """Integer network; `exact` (set by `freeze`) turns on the rounding that makes it the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.exact = False
        self.up_first = nn.Conv2d(HYPER, 4 * FEATURES, 3, padding=1)
        self.up_second = nn.Conv2d(FEATURES, 4 * FEATURES, 1)
        self.mix = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.quality = nn.Parameter(torch.zeros(LEVELS, FEATURES))
        self.low_even = nn.Conv2d(FEATURES, 2 * LOW, 1)
        self.low_linear = nn.Conv2d(4 * LOW, LOW, 1, bias=False)
        self.low_context = nn.Conv2d(4 * LOW, FEATURES, 1)
        self.low_features = nn.Conv2d(FEATURES, FEATURES, 1, bias=False)
        self.low_odd = nn.Conv2d(FEATURES, 2 * LOW, 1)
        self.squeeze_low = nn.Conv2d(LOW, _SQUEEZED, 1)
        self.high_context = nn.Conv2d(_SQUEEZED, FEATURES, 3, padding=1)
        self.high_features = nn.Conv2d(FEATURES, FEATURES, 1, bias=False)
        self.squeeze_high = nn.Conv2d(CHANNELS - LOW, _SQUEEZED, 1)
        self.high_neighbours = nn.Conv2d(4 * _SQUEEZED, FEATURES, 1, bias=False)
        self.high = nn.Conv2d(FEATURES, CHANNELS - LOW, 1)
        # log2 of the gain: symbol units = latent units * 2^gain
        self.gain = nn.Parameter(torch.linspace(-7.9, -3.7, LEVELS)[:, None].repeat(1, CHANNELS))
        self.hyper_scale = nn.Parameter(torch.zeros(LEVELS, HYPER))  # log2 of the hyperlatents' standard deviations
        with torch.no_grad():
            start = torch.linspace(5.0, 2.0, CHANNELS)  # log2 of typical standard deviations of latents
            for layer in (self.low_even, self.low_odd):
                layer.weight[:LOW].zero_()
                layer.bias.copy_(torch.cat([torch.zeros(LOW), start[:LOW]]))  # type: ignore[union-attr]
            self.high.bias.copy_(start[LOW:])  # type: ignore[union-attr]
            self.low_linear.weight.zero_()

    def freeze(self) -> LearnedPrior:
        """Round every parameter to its dyadic step and switch to exact float64 arithmetic. Irreversible."""
        self.double().requires_grad_(False)
        for name, parameter in self.named_parameters():
            step = _MEAN_STEP if name in ("gain", "hyper_scale") else _WEIGHT_STEP
            parameter.copy_(torch.round(parameter / step) * step)
        self.exact = True
        return self

    def _round(self, x: Tensor, step: float) -> Tensor:
        return torch.floor(x * (1 / step) + 0.5) * step if self.exact else x

    def _magnitude(self, y: Tensor) -> Tensor:
        return self._round(magnitude(y.clamp(-_LATENT_LIMIT, _LATENT_LIMIT)), _ACTIVATION_STEP)

    def _activate(self, x: Tensor) -> Tensor:
        return self._round(x, _ACTIVATION_STEP).clamp(0, _ACTIVATION_LIMIT)

    def gains(self, q: Tensor) -> Tensor:
        """(B, 256): log2 of the gain of each channel at quality q (B,), multiples of 1/16 when exact."""
        return self._round(interpolate(self.gain, q.to(self.gain.dtype)), _MEAN_STEP)

    def hyper_scales(self, q: Tensor) -> Tensor:
        """(B, HYPER): log2 of the standard deviations of hyperlatents at quality q (B,)."""
        return self._round(interpolate(self.hyper_scale, q.to(self.hyper_scale.dtype)), _MEAN_STEP)

    def features(self, hyper: Tensor, q: Tensor) -> Tensor:
        """Integer hyperlatents (B, HYPER, h, w) -> features (B, FEATURES, 4h, 4w)."""
        x = F.pixel_shuffle(self._activate(self.up_first(hyper.clamp(-64, 64))), 2)
        x = F.pixel_shuffle(self._activate(self.up_second(x)), 2)
        return self._activate(self.mix(x) + interpolate(self.quality, q.to(x.dtype))[:, :, None, None])

    def _low(self, out: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = self._round(out, _ACTIVATION_STEP).chunk(2, 1)
        multiplier = self._round(torch.exp2(gain[:, :LOW]), _WEIGHT_STEP)[:, :, None, None]
        return mean * _MEAN_SCALE * multiplier, scale + gain[:, :LOW, None, None]

    def low(self, parity: int, features: Tensor, even: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log2 standard deviations, in symbol units, of the low band at one parity: each (B, LOW, H, W/2).

        features (B, FEATURES, H, W); even (B, LOW, H, W): quantised latents in symbol units, odd positions zero (unused by parity 0).
        """
        f = checkerboard(features, parity)
        if parity == 0:
            mean, scale = self._low(self.low_even(f), gain)
        else:
            around = checkerboard(neighbours(even.clamp(-_LATENT_LIMIT, _LATENT_LIMIT)), 1)
            hidden = self._activate(self.low_context(self._magnitude(around)) + self.low_features(f))
            mean, scale = self._low(self.low_odd(hidden), gain)
            mean = mean + self._round(self.low_linear(around), _ACTIVATION_STEP)
        return self._round(mean, _MEAN_STEP), self._round(scale, _MEAN_STEP)

    def high_base(self, features: Tensor, low: Tensor) -> Tensor:
        """What both parities of the high band see: (B, FEATURES, H, W), before activation."""
        squeezed = self._activate(self.squeeze_low(self._magnitude(low)))
        return self.high_context(squeezed) + self.high_features(features)

    def high_scales(self, parity: int, base: Tensor, even: Tensor, gain: Tensor) -> Tensor:
        """Log2 standard deviations (means are 0) of the high band at one parity: (B, CHANNELS - LOW, H, W/2).

        base from `high_base`; even (B, CHANNELS - LOW, H, W/2): the even positions' quantised latents (unused by parity 0).
        """
        h = checkerboard(base, parity)
        if parity == 1:
            squeezed = self._activate(self.squeeze_high(self._magnitude(even)))
            around = checkerboard(neighbours(merge(squeezed, torch.zeros_like(squeezed))), 1)
            h = h + self.high_neighbours(around)
        return self._round(self._round(self.high(self._activate(h)), _ACTIVATION_STEP) + gain[:, LOW:, None, None], _MEAN_STEP)
