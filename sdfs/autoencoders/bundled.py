"""The bundled autoencoder: a lapped linear transform plus small residual networks, one network for every quality.

    latents = analysis(x) + CNN(x, q)
    pixels  = synthesis(latents) + CNN(synthesis(latents), latents, q)

The linear paths start as a lapped orthogonal transform (Malvar 1989, "The LOT: transform coding without blocking effects") over
luma and two chroma axes, so the codec works before its first training step; the networks, whose last layers start at zero, learn
what a linear transform cannot. Linear paths stay float32 (latents reach thousands, where bfloat16 would lose the quantisation);
the networks may run in bfloat16.

A latent position covers 16 x 16 pixels and holds 256 channels, lowest frequencies first, in the units of an orthonormal
transform of 0..255 pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTOR = 16  # pixels a latent position, per side
CHANNELS = 256
CELL = 8  # side of the pixels that are channels of one position to the networks
CELL_CHANNELS = 3 * CELL**2
KERNEL = 32  # side of the analysis and synthesis kernels
HALO = 96  # pixels; no output pixel depends on latents (nor a latent on pixels) farther away than this
QUALITIES = 101  # q = 0..100
LEVELS = 9  # per-level parameters are interpolated between LEVELS points of the quality scale
_LATENT_SCALE = 32.0  # latents enter the decoder network as asinh(latents / _LATENT_SCALE)
_CORRECTION_SCALE = 64.0  # the encoder network's output, in latent units


def lapped_basis(size: int) -> np.ndarray:
    """The lapped orthogonal transform: (size, 2*size) float64, orthonormal rows, by falling variance on an AR(1) source of rho = 0.95.

    Built as in Malvar 1989: even and odd DCT bases are butterflied across two blocks, then rotated to the source's eigenvectors.
    """
    n = np.arange(size)
    dct = np.sqrt(2 / size) * np.cos((2 * n[None] + 1) * n[:, None] * np.pi / (2 * size))
    dct[0] /= np.sqrt(2)
    difference = (dct[0::2] - dct[1::2]) / 2
    mirrored = difference[:, ::-1]
    lapped = np.concatenate([np.concatenate([difference, mirrored], 1), np.concatenate([difference, -mirrored], 1)])
    wide = np.arange(2 * size)
    source = 0.95 ** np.abs(wide[:, None] - wide[None])
    variance, rotation = np.linalg.eigh(lapped @ source @ lapped.T)
    basis = rotation.T[np.argsort(-variance)] @ lapped
    return np.asarray(basis * np.where(basis[:, :size].sum(1, keepdims=True) < 0, -1.0, 1.0))


def _lowest(channels: int) -> list[tuple[int, int, int]]:
    """(axis, vertical, horizontal frequency) of each latent channel."""
    cost = (1.0, 2.2, 3.0)  # chroma frequencies matter less: they wait as if they were this much higher
    grid = [(axis, u, v) for axis in range(3) for u in range(FACTOR) for v in range(FACTOR)]
    return sorted(grid, key=lambda f: (cost[f[0]] * (math.hypot(f[1], f[2]) + 1), f))[:channels]


def initial_kernels(channels: int) -> Tensor:
    """(channels, 3, KERNEL, KERNEL) float32: the lowest frequencies of the separable lapped transform over luma and two chroma axes."""
    rows = lapped_basis(FACTOR)
    axes = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=np.float64)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    kernels = [axes[axis][:, None, None] * np.outer(rows[u], rows[v]) for axis, u, v in _lowest(channels)]
    return torch.tensor(np.stack(kernels), dtype=torch.float32)


def parities(channels: int) -> Tensor:
    """(2, channels, 1, 1) float32: +1 where the initial kernel is even, -1 where it is odd, vertically and horizontally.

    A latent that lies just outside the picture is the mirror image of the one inside, times these signs: the symmetric
    extension under which a lapped transform reconstructs up to the border.
    """
    signs = np.sign(np.sum(lapped_basis(FACTOR) * lapped_basis(FACTOR)[:, ::-1], axis=1))
    table = np.array([[signs[u], signs[v]] for _, u, v in _lowest(channels)])
    return torch.tensor(table.T[:, :, None, None], dtype=torch.float32)


def _mirror(x: Tensor, edge: int) -> Tensor:
    """(B, C, H, W) extended by `edge` samples a side, mirrored about the border (the border sample is repeated)."""
    x = torch.cat([x[:, :, :edge].flip(2), x, x[:, :, -edge:].flip(2)], 2)
    return torch.cat([x[:, :, :, :edge].flip(3), x, x[:, :, :, -edge:].flip(3)], 3)


def interpolate(levels: Tensor, q: Tensor) -> Tensor:
    """Rows of `levels` (LEVELS, C) at qualities q (B,) in [0, 100], linearly: (B, C)."""
    position = q * ((LEVELS - 1) / (QUALITIES - 1))
    low = position.floor().long().clamp(0, LEVELS - 2)
    part = (position - low).unsqueeze(1)
    return levels[low] * (1 - part) + levels[low + 1] * part


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride=stride, padding=(side - stride + 1) // 2)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """x + conv(silu(conv(x))); the second convolution is `side` wide and starts at zero."""

    def __init__(self, channels: int, side: int = 3) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, 3)
        self.second = _zero(_convolution(channels, channels, side))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(x)))


def corrected(channels: int) -> Tensor:
    """(channels, 1, 1) float32: 1 where the encoder network corrects the transform, 0 in the higher frequencies of chroma.

    Left to itself it uses these, which pictures hardly need, to tell the decoder of luma's texture; where that does not understand, in
    dark places above all, they show as green and magenta dashes.
    """
    higher = [axis > 0 and max(u, v) > 1 for axis, u, v in _lowest(channels)]
    return 1 - torch.tensor(higher, dtype=torch.float32)[:, None, None]


class Encoder(nn.Module):
    """Pixels to latents."""

    corrected: Tensor

    def __init__(self, fine: int = 128, coarse: int = 192) -> None:
        super().__init__()
        self.kernels = nn.Parameter(initial_kernels(CHANNELS))
        self.into = _convolution(CELL_CHANNELS, fine, 3)
        self.quality = nn.Parameter(torch.zeros(LEVELS, fine))
        self.body = nn.Sequential(Residual(fine), Residual(fine), nn.Conv2d(fine, coarse, 4, stride=2, padding=1), Residual(coarse, 1))
        self.out = _zero(_convolution(coarse, CHANNELS, 3))
        self.register_buffer("corrected", corrected(CHANNELS), persistent=False)

    def forward(self, pixels: Tensor, q: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of 16; q (B,) in [0, 100] -> (B, 256, H/16, W/16) float32."""
        x = pixels - 0.5
        with torch.autocast(x.device.type, enabled=False):
            linear = F.conv2d(_mirror(x.float() * 255, (KERNEL - FACTOR) // 2), self.kernels, stride=FACTOR)
        dtype = self.into.weight.dtype
        h = self.into(F.pixel_unshuffle((x * 2).to(dtype), CELL)) + interpolate(self.quality, q).to(dtype)[:, :, None, None]
        return linear + _CORRECTION_SCALE * self.corrected * self.out(F.silu(self.body(F.silu(h)))).float()


class Decoder(nn.Module):
    """Latents to pixels."""

    parities: Tensor

    def __init__(self, fine: int = 128, coarse: int = 192) -> None:
        super().__init__()
        self.kernels = nn.Parameter(initial_kernels(CHANNELS))
        self.register_buffer("parities", parities(CHANNELS), persistent=False)
        self.from_latents = nn.Sequential(
            _convolution(CHANNELS, coarse, 3), Residual(coarse, 1), nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2)
        )
        self.from_linear = _convolution(CELL_CHANNELS, fine, 3)
        self.quality = nn.Parameter(torch.zeros(LEVELS, fine))
        self.body = nn.Sequential(Residual(fine), Residual(fine), Residual(fine))
        self.out = _zero(_convolution(fine, CELL_CHANNELS, 3))

    def linear(self, latents: Tensor) -> Tensor:
        """The lapped synthesis in units of 255 levels, in cells of 8 x 8 pixels: (B, 192, 2h, 2w), as `pixel_unshuffle` orders them.

        As a 2 x 2 convolution over latents it is four times as fast as transposed.
        """
        # block (i, j) of the shifted grid lies between latents i-1 and i, j-1 and j, and has 2 x 2 cells
        weight = self.kernels.view(CHANNELS, 3, 2, 2, CELL, 2, 2, CELL).flip(2, 5).permute(3, 6, 1, 4, 7, 0, 2, 5)
        vertical, horizontal = self.parities
        x = torch.cat([latents[:, :, :1] * vertical, latents, latents[:, :, -1:] * vertical], 2)
        x = torch.cat([x[:, :, :, :1] * horizontal, x, x[:, :, :, -1:] * horizontal], 3)
        x = x.contiguous(memory_format=torch.channels_last)
        blocks = F.conv2d(x, weight.reshape(4 * CELL_CHANNELS, CHANNELS, 2, 2) / 255).permute(0, 2, 3, 1)
        batch, rows, columns, _ = blocks.shape
        cells = (
            blocks.reshape(batch, rows, columns, 2, 2, CELL_CHANNELS).transpose(2, 3).reshape(batch, 2 * rows, 2 * columns, CELL_CHANNELS)
        )
        return cells[:, 1:-1, 1:-1].permute(0, 3, 1, 2)

    def forward(self, latents: Tensor, q: Tensor) -> Tensor:
        """(B, 256, h, w) float32, q (B,) in [0, 100] -> (B, 3, 16h, 16w) float32, about [0, 1], not clamped."""
        return F.pixel_shuffle(self.cells(latents, q), CELL) + 0.5

    def cells(self, latents: Tensor, q: Tensor) -> Tensor:
        """The same about [-0.5, 0.5] and as cells: (B, 192, 2h, 2w) float32."""
        with torch.autocast(latents.device.type, enabled=False):
            linear = self.linear(latents)
        dtype = self.from_linear.weight.dtype
        h = self.from_latents(torch.asinh(latents / _LATENT_SCALE).to(dtype))
        h = h + self.from_linear(linear.to(dtype) * 4)
        h = self.body(F.silu(h + interpolate(self.quality, q).to(dtype)[:, :, None, None]))
        return torch.add(linear, self.out(F.silu(h)), alpha=0.25)
