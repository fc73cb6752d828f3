"""Rate and distortion of a batch, differentiable: what training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.autoencoders.bundled import Decoder, Encoder
from sdfs.priors.learned import LOW, HyperEncoder, LearnedPrior, checkerboard, merge
from sdfs.quality import ms_ssim
from sdfs.trade_off import LAMBDA_MIDDLE, STRUCTURE, weight

TONE = 0.01  # weight of the squared error of the means of TONE_CELL x TONE_CELL pixels, in the place of STRUCTURE
TONE_CELL = 16
RAMP = 0.5  # symbol units
_SMALLEST_SCALE = 0.11  # below it a symbol costs nothing


class _Floor(torch.autograd.Function):
    """max(x, bound) whose gradient still lets x rise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad * ((x >= ctx.bound) | (grad < 0)), None


def gaussian_bits(residual: Tensor, log2_scale: Tensor) -> Tensor:
    """Bits of unit-step symbols of a zero-mean Gaussian."""
    scale = _Floor.apply(torch.exp2(log2_scale), _SMALLEST_SCALE)
    distance = residual.abs()
    factor = 0.5**0.5 / scale
    probability = 0.5 * (torch.erfc((distance - 0.5) * factor) - torch.erfc((distance + 0.5) * factor))
    return -torch.log2(_Floor.apply(probability, 1e-9))


def _ramp(residual: Tensor, log2_scale: Tensor) -> Tensor:
    """Bits of the symbol below, then of the one above, and between in proportion where a residual is within RAMP / 2 of the threshold."""
    below = residual.detach().floor()
    share = ((residual - below - 0.5) / RAMP + 0.5).clamp(0, 1)
    return torch.lerp(gaussian_bits(below, log2_scale), gaussian_bits(below + 1, log2_scale), share)


class Codec(nn.Module):
    """The bundled codec as it trains: real networks and real symbols, whose rounding lets gradients straight through.

    Bits are those of the symbols, as the coder spends them. They teach the prior; the encoder learns by a ramp of width RAMP from the bits
    of one symbol to those of the next, in the place of the step. Noise instead, on which most codecs train, has latents pay that are far
    from becoming anything but 0: at low rates several times as much as all symbols cost (docs/TRAINING.md).
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.hyper_encoder = HyperEncoder()
        self.prior = LearnedPrior()

    def _quantise(self, y: Tensor, mean: Tensor | float, log2_scale: Tensor, hard: bool) -> tuple[Tensor, Tensor]:
        residual = y - mean
        rounded = torch.round(residual).detach()
        bits = gaussian_bits(rounded, log2_scale)
        if not hard:
            ramp = _ramp(residual, log2_scale.detach())
            bits = bits + ramp - ramp.detach()
        return residual + (rounded - residual).detach() + mean, bits.flatten(1).sum(1)

    def forward(self, pixels: Tensor, q: Tensor, hard: bool = False) -> tuple[Tensor, Tensor]:
        """pixels (B, 3, H, W) in [0, 1], sides multiples of 64; q (B,) -> reconstruction, bits (B,)."""
        latents, bits = self.compressed(pixels, q, hard)
        return self.decoder(latents, q), bits

    def compressed(self, pixels: Tensor, q: Tensor, hard: bool = False) -> tuple[Tensor, Tensor]:
        """As `forward`, but the latents that the decoder gets, and not what it makes of them."""
        latents = self.encoder(pixels, q)
        with torch.autocast(pixels.device.type, enabled=False):
            gain = self.prior.gains(q)
            y = latents * torch.exp2(gain)[:, :, None, None]
        hyper = self.hyper_encoder(y, q)
        with torch.autocast(pixels.device.type, enabled=False):
            scales = self.prior.hyper_scales(q)[:, :, None, None].expand_as(hyper)
            hyper, bits = self._quantise(hyper, 0.0, scales, hard)
            y, latent_bits = self._passes(y, hyper, q, hard)
            return y * torch.exp2(-gain)[:, :, None, None], bits + latent_bits

    def _passes(self, y: Tensor, hyper: Tensor, q: Tensor, hard: bool) -> tuple[Tensor, Tensor]:
        prior = self.prior
        features = prior.features(hyper, q)
        low, high = y[:, :LOW], y[:, LOW:]
        low_even, bits0 = self._quantise(checkerboard(low, 0), *prior.low(0, features, low, q), hard)
        low_odd, bits1 = self._quantise(checkerboard(low, 1), *prior.low(1, features, merge(low_even, torch.zeros_like(low_even)), q), hard)
        low = merge(low_even, low_odd)
        base = prior.high_base(features, low)
        high_even, bits2 = self._quantise(checkerboard(high, 0), 0.0, prior.high_scales(0, base, high, q), hard)
        high_odd, bits3 = self._quantise(checkerboard(high, 1), 0.0, prior.high_scales(1, base, high_even, q), hard)
        return torch.cat([low, merge(high_even, high_odd)], 1), bits0 + bits1 + bits2 + bits3


def luma(pixels: Tensor) -> Tensor:
    """BT.601 luma, 0..255."""
    weights = pixels.new_tensor([76.245, 149.685, 29.07]).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)


@dataclass
class Loss:
    total: Tensor  # scalar
    bpp: Tensor  # (B,)
    mse: Tensor  # (B,), of 0..255 pixels


def _emphasis(q: Tensor) -> Tensor:
    """sqrt(lambda / LAMBDA_MIDDLE), lambda a function of q."""
    return torch.sqrt(weight(q) / LAMBDA_MIDDLE)


def distortion(pixels: Tensor, reconstruction: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """(lambda * MSE) / sqrt(lambda / LAMBDA_MIDDLE) + STRUCTURE * (1 - MS-SSIM of luma) + TONE * MSE of cells, (B,); MSE, (B,).

    MSE is of 0..255 pixels. MS-SSIM sees no chroma and the MSE hardly any tint, so that without the third term skies lost their colour.
    """
    error = reconstruction - pixels
    mse = error.square().flatten(1).mean(1) * 65025
    structure = 1 - ms_ssim(luma(pixels), luma(reconstruction))
    tint = error - luma(error) / 255
    tone = F.avg_pool2d(tint, TONE_CELL).square().flatten(1).mean(1) * 65025
    return LAMBDA_MIDDLE * _emphasis(q) * mse + STRUCTURE * structure + TONE * tone, mse


def rate_distortion(codec: nn.Module, pixels: Tensor, q: Tensor) -> Loss:
    """lambda * MSE + sqrt(lambda / LAMBDA_MIDDLE) * (STRUCTURE * (1 - MS-SSIM of luma) + TONE * MSE of cells) + bits a pixel.

    lambda is a function of q. Each sample is weighted by lambda^-1/2, so that no end of the scale drowns the other.
    """
    reconstruction, bits = codec(pixels, q)
    bpp = bits / pixels[0, 0].numel()
    lost, mse = distortion(pixels, reconstruction, q)
    return Loss((lost + bpp / _emphasis(q)).mean(), bpp, mse)
