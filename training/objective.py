"""Rate and distortion of a batch, differentiable: what training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfs.autoencoders.bundled import Decoder, Encoder
from sdfs.priors.learned import HyperEncoder, LearnedPrior, Places, pick
from sdfs.quality import ms_ssim
from sdfs.trade_off import STRUCTURE, weight, worth

TONE = 6.0  # weight of the squared error of the tint of TONE_CELL x TONE_CELL pixels, in the place of STRUCTURE
TONE_CELL = 16
RAMP = 0.5  # symbol units
_SMALLEST_SCALE = 0.11  # below it a symbol costs nothing


class Symbols(Enum):
    """Which symbols the decoder gets while everything trains, and whose bits are counted."""

    NEAREST = "the nearest; bits are of latents with uniform noise instead of rounding"
    CHOSEN = "those that an encoder chooses by cost, and their bits"


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


def _chosen(residual: Tensor, log2_scale: Tensor, price: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of the nearest symbols and the next ones towards 0 those that cost less, in bits and in error at this price; their bits.

    Both change where a residual passes the threshold between two symbols, and nowhere else. Their gradient is that of a ramp, RAMP wide,
    around the threshold between 0 and 1, and of a straight line between higher symbols, which lie close for their scale. Error and bits
    have to share it: a gradient of the error for latents that stay 0 pushes them all outwards. Without a price the nearest
    symbols are taken, and they let the gradient of error straight through.
    """
    with torch.no_grad():
        magnitude, sign = residual.abs(), residual.sign()
        upper = torch.round(magnitude).clamp(min=1)
        more = gaussian_bits(upper, log2_scale) - gaussian_bits(upper - 1, log2_scale)
        threshold = upper - 0.5
        if price is not None:
            threshold += (more / (2 * price)).clamp(max=1)  # where bits and price * error of both are equal; not beyond upper + 1/2
        symbols = sign * torch.where(magnitude >= threshold, upper, upper - 1)
        slope = torch.where(magnitude < 1.5, ((magnitude - threshold).abs() < RAMP / 2) / RAMP, 1.0)
    moved = residual - residual.detach()
    bits = gaussian_bits(symbols, log2_scale) + sign * more * slope * moved
    return symbols + (moved if price is None else slope * moved), bits


class Codec(nn.Module):
    """The bundled codec as it trains: real networks, and symbols with a gradient (docs/TRAINING.md)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.hyper_encoder = HyperEncoder()
        self.prior = LearnedPrior()

    def forward(self, pixels: Tensor, q: Tensor, symbols: Symbols = Symbols.CHOSEN) -> tuple[Tensor, Tensor]:
        """pixels (B, 3, H, W) in [0, 1], sides multiples of 64; q (B,) -> reconstruction, bits (B,)."""
        latents, bits = self.compressed(pixels, q, symbols)
        return self.decoder(latents, q), bits

    def compressed(self, pixels: Tensor, q: Tensor, symbols: Symbols) -> tuple[Tensor, Tensor]:
        """As `forward`, but the latents that the decoder gets, and not what it makes of them."""
        gain = torch.exp2(self.prior.gains(q))[:, :, None, None]
        latents = self.encoder(pixels, q)
        with torch.autocast(pixels.device.type, enabled=False):
            y = latents * gain
        prices = self.prices(worths(pixels, q), q) if symbols is Symbols.CHOSEN else None
        y, bits = self.coded(y, q, symbols, prices)
        with torch.autocast(pixels.device.type, enabled=False):
            return y / gain, bits

    def prices(self, worths: Tensor, q: Tensor) -> Tensor:
        """What a squared error of 1 is worth in latents (B, h, w), in symbol units: (B, 256, h, w)."""
        return worths[:, None] / torch.exp2(2 * self.prior.gains(q).detach())[:, :, None, None]

    def coded(self, y: Tensor, q: Tensor, symbols: Symbols, prices: Tensor | None) -> tuple[Tensor, Tensor]:
        """Latents in symbol units (B, 256, h, w) -> those that a decoder gets; bits (B,).

        `prices`, of the same shape, are what CHOSEN symbols are chosen by; None: the nearest.
        """
        hyper = self.hyper_encoder(y, q)
        with torch.autocast(y.device.type, enabled=False):
            scales = self.prior.hyper_scales(q)[:, :, None, None].expand_as(hyper)
            hyper, bits = _quantised(hyper, scales, symbols, None)
            total = [bits]

            def step(channels: slice, places: Places, mean: Tensor, log2_scale: Tensor) -> Tensor:
                price = None if prices is None else pick(prices[:, channels], places)
                residual, bits = _quantised(pick(y[:, channels], places) - mean, log2_scale, symbols, price)
                total.append(bits)
                return residual + mean

            return self.prior.passes(self.prior.features(hyper, q), q, step), torch.stack(total).sum(0)


def _quantised(residual: Tensor, log2_scale: Tensor, symbols: Symbols, price: Tensor | None) -> tuple[Tensor, Tensor]:
    """Symbols, and the bits of each sample (B,)."""
    if symbols is Symbols.NEAREST:
        bits = gaussian_bits(residual + torch.rand_like(residual) - 0.5, log2_scale)
        rounded = residual + (torch.round(residual) - residual).detach()
    else:
        rounded, bits = _chosen(residual, log2_scale, price)
    return rounded, bits.flatten(1).sum(1)


def worths(pixels: Tensor, q: Tensor) -> Tensor:
    """`trade_off.worth` of a batch (B, 3, H, W) in [0, 1] at q (B,): (B, H/16, W/16)."""
    pictures = (pixels * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    found = [worth(np.ascontiguousarray(picture), quality) for picture, quality in zip(pictures, q.tolist(), strict=True)]
    return torch.from_numpy(np.stack(found)).to(pixels.device)


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
    """sqrt(lambda), 1 in the middle of the scale: what samples are divided by, so that no end of the scale drowns the other."""
    return torch.sqrt(weight(q) / weight(50.0))


def distortion(pixels: Tensor, reconstruction: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """lambda * (MSE + STRUCTURE * (1 - MS-SSIM of luma) + TONE * MSE of tints) by `emphasis`, (B,); MSE, (B,).

    lambda is a function of q, MSE is of 0..255 pixels. MS-SSIM sees no chroma and the MSE hardly any tint, so that without the third
    term skies lost their colour.
    """
    error = reconstruction - pixels
    mse = error.square().flatten(1).mean(1) * 65025
    structure = 1 - ms_ssim(luma(pixels), luma(reconstruction))
    tint = error - luma(error) / 255
    tone = F.avg_pool2d(tint, TONE_CELL).square().flatten(1).mean(1) * 65025
    return weight(q) / emphasis(q) * (mse + STRUCTURE * structure + TONE * tone), mse


def rate_distortion(codec: nn.Module, pixels: Tensor, q: Tensor, symbols: Symbols) -> Loss:
    """`distortion` + bits a pixel by `emphasis`: of each sample its cost in `trade_off`, with the third term, and divided."""
    reconstruction, bits = codec(pixels, q, symbols)
    bpp = bits / pixels[0, 0].numel()
    lost, mse = distortion(pixels, reconstruction, q)
    return Loss((lost + bpp / emphasis(q)).mean(), bpp, mse)
