"""Rate and distortion of a batch, differentiable: what training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.autoencoders.bundled import Decoder, Encoder
from sdfs.priors.learned import HyperEncoder, LearnedPrior, Places, pick
from sdfs.quality import ms_ssim
from sdfs.trade_off import LAMBDA_MIDDLE, STRUCTURE, weight

TONE = 0.004  # weight of the squared error of the tint of TONE_CELL x TONE_CELL pixels, in the place of STRUCTURE
TONE_CELL = 16
RAMP = 0.5  # symbol units
_SMALLEST_SCALE = 0.11  # below it a symbol costs nothing


class Rate(Enum):
    """Which symbols' bits are counted."""

    NOISY = "latents with uniform noise instead of rounding"
    REAL = "symbols; only the prior gets a gradient"
    RAMP = "symbols; what is coded gets the gradient of a ramp between the bits of one and those of the next, RAMP wide"


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


@torch.no_grad()
def _cheapest(residual: Tensor, log2_scale: Tensor, price: Tensor) -> Tensor:
    """Of the nearest symbols and the next ones towards 0 those that cost less, in bits and in error at this price."""
    magnitude = residual.abs()
    nearest = torch.round(magnitude)
    lower = (nearest - 1).clamp(min=0)
    cost, cost_of_lower = (gaussian_bits(m, log2_scale) + price * (magnitude - m).square() for m in (nearest, lower))
    return residual.sign() * torch.where(cost_of_lower < cost, lower, nearest)


class Codec(nn.Module):
    """The bundled codec as it trains: real networks, straight-through rounding.

    Where everything trains, bits are those of latents with noise in the place of rounding: too many at low rates, but their gradient errs
    as that of rounding does, and the two have to agree (docs/TRAINING.md). Where the prior alone trains, they are those of real symbols.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.hyper_encoder = HyperEncoder()
        self.prior = LearnedPrior()

    def _quantise(
        self, y: Tensor, mean: Tensor | float, log2_scale: Tensor, rate: Rate, price: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        residual = y - mean
        rounded = torch.round(residual).detach() if price is None else _cheapest(residual.detach(), log2_scale.detach(), price)
        if rate is Rate.NOISY:
            bits = gaussian_bits(residual + torch.rand_like(residual) - 0.5, log2_scale)
        else:
            bits = gaussian_bits(rounded, log2_scale)
        if rate is Rate.RAMP:
            ramp = _ramp(residual, log2_scale.detach())
            bits = bits + ramp - ramp.detach()
        return residual + (rounded - residual).detach() + mean, bits.flatten(1).sum(1)

    def forward(self, pixels: Tensor, q: Tensor, hard: bool = False) -> tuple[Tensor, Tensor]:
        """pixels (B, 3, H, W) in [0, 1], sides multiples of 64; q (B,) -> reconstruction, bits (B,)."""
        latents, bits = self.compressed(pixels, q, hard)
        return self.decoder(latents, q), bits

    def compressed(self, pixels: Tensor, q: Tensor, hard: bool = False) -> tuple[Tensor, Tensor]:
        """As `forward`, but the latents that the decoder gets, and not what it makes of them."""
        gain = torch.exp2(self.prior.gains(q))[:, :, None, None]
        latents = self.encoder(pixels, q)
        with torch.autocast(pixels.device.type, enabled=False):
            y = latents * gain
        y, bits = self.coded(y, q, Rate.REAL if hard else Rate.NOISY)
        with torch.autocast(pixels.device.type, enabled=False):
            return y / gain, bits

    def coded(self, y: Tensor, q: Tensor, rate: Rate, prices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents in symbol units (B, 256, h, w) -> those that a decoder gets; bits (B,).

        `prices`, of the same shape: what a squared error is worth, in bits; symbols are then decided as an encoder decides them.
        """
        hyper = self.hyper_encoder(y, q)
        with torch.autocast(y.device.type, enabled=False):
            scales = self.prior.hyper_scales(q)[:, :, None, None].expand_as(hyper)
            hyper, bits = self._quantise(hyper, 0.0, scales, rate)
            total = [bits]

            def step(channels: slice, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
                price = None if prices is None else pick(prices[:, channels], places)
                decoded, bits = self._quantise(pick(y[:, channels], places), mean, log2_scale, rate, price)
                total.append(bits)
                return decoded

            return self.prior.passes(self.prior.features(hyper, q), q, step), torch.stack(total).sum(0)


def luma(pixels: Tensor) -> Tensor:
    """BT.601 luma, 0..255."""
    weights = pixels.new_tensor([76.245, 149.685, 29.07]).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)


@dataclass
class Loss:
    total: Tensor  # scalar
    bpp: Tensor  # (B,)
    mse: Tensor  # (B,), of 0..255 pixels


def emphasis(q: Tensor) -> Tensor:
    """sqrt(lambda / LAMBDA_MIDDLE), lambda a function of q."""
    return torch.sqrt(weight(q) / LAMBDA_MIDDLE)


def distortion(pixels: Tensor, reconstruction: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """(lambda * MSE) / sqrt(lambda / LAMBDA_MIDDLE) + STRUCTURE * (1 - MS-SSIM of luma) + TONE * MSE of tints, (B,); MSE, (B,).

    MSE is of 0..255 pixels. MS-SSIM sees no chroma and the MSE hardly any tint, so that without the third term skies lost their colour.
    """
    error = reconstruction - pixels
    mse = error.square().flatten(1).mean(1) * 65025
    structure = 1 - ms_ssim(luma(pixels), luma(reconstruction))
    tint = error - luma(error) / 255
    tone = F.avg_pool2d(tint, TONE_CELL).square().flatten(1).mean(1) * 65025
    return LAMBDA_MIDDLE * emphasis(q) * mse + STRUCTURE * structure + TONE * tone, mse


def rate_distortion(codec: nn.Module, pixels: Tensor, q: Tensor) -> Loss:
    """lambda * MSE + sqrt(lambda / LAMBDA_MIDDLE) * (STRUCTURE * (1 - MS-SSIM of luma) + TONE * MSE of tints) + bits a pixel.

    lambda is a function of q. Each sample is weighted by lambda^-1/2, so that no end of the scale drowns the other.
    """
    reconstruction, bits = codec(pixels, q)
    bpp = bits / pixels[0, 0].numel()
    lost, mse = distortion(pixels, reconstruction, q)
    return Loss((lost + bpp / emphasis(q)).mean(), bpp, mse)
