"""The lapped transform of the bundled codec: fixed, orthonormal, with windows that switch.

A position covers 16 x 16 pixels. It has a *long* window, one DCT of 16 x 16, or *short* ones, four DCTs of 8 x 8; the encoder chooses.
Where they are short, the error of a symbol spreads over half the distance, which an edge needs and calm ground does not. Before the DCTs an
orthogonal filter laps over each border between windows: over 8 samples each way between two long ones, over 4 where one is short
(Malvar 1989, "The LOT: transform coding without blocking effects", in the form of Tran, Liang and Tu 2003, "Lapped transform via
time-domain pre- and post-filtering"). Every step is orthogonal, so a squared error of coefficients is one of samples, and passes
constants, so a constant picture has one coefficient a position and component. The picture's own borders have no filter.

Components are Y, Cb and Cr of BT.601, each scaled by what an error of it does to RGB.
"""

from __future__ import annotations

import functools
import math
from enum import IntEnum

import torch
from torch import Tensor

FACTOR = 16  # pixels a position, per side
BANDS = 256  # coefficients of a position and component, lowest frequencies first
COMPONENTS = 3
_HALF = FACTOR // 2
_BIAS = 2.8  # nats: what short windows have to save: what saying so costs, and then some, because neighbours expect long ones
_MIDDLE = 128.0  # the level whose coefficients are 0

# Givens rotations of neighbouring antisymmetric samples, from the outermost pair to the border, in radians. They maximise the coding
# gain over an AR(1) source of rho = 0.95: 9.80 dB with the DCT of 16 samples and 9.26 dB with that of 8 (9.46 and 8.83 without a filter).
_LONG_ANGLES = (0.6621, 0.6376, 0.5716, 0.4835, 0.3748, 0.2491, 0.1142)
_SHORT_ANGLES = (0.5516, 0.3799, 0.1808)

_TO_COMPONENTS = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=torch.float64)
# the norm of what one unit of a component adds to (R, G, B)
COMPONENT_NORMS = torch.linalg.inv(_TO_COMPONENTS).norm(dim=0)


@functools.cache
@torch.inference_mode(False)  # or whoever trains later could not use it
def _colour(device: torch.device) -> tuple[Tensor, Tensor]:
    """RGB to components and back: (3, 3) float32 each."""
    matrix = _TO_COMPONENTS * COMPONENT_NORMS[:, None]
    return matrix.float().to(device), torch.linalg.inv(matrix).float().to(device)


def to_components(rgb: Tensor) -> Tensor:
    """RGB (B, 3, H, W) float32 in 0..255 -> components, 0 in the middle of the scale."""
    return torch.einsum("dc,bchw->bdhw", _colour(rgb.device)[0], rgb - _MIDDLE)


def from_components() -> Tensor:
    """What a unit of each component adds to red, green and blue: (3, 3) float32."""
    return _colour(torch.device("cpu"))[1]


def to_rgb(components: Tensor) -> Tensor:
    """Inverse of `to_components`; not clamped."""
    return torch.einsum("dc,bchw->bdhw", _colour(components.device)[1], components) + _MIDDLE


def _dct(size: int) -> Tensor:
    """The orthonormal DCT-II: (size, size) float64, a row a frequency."""
    n = torch.arange(size, dtype=torch.float64)
    matrix = math.sqrt(2 / size) * torch.cos((2 * n[None] + 1) * n[:, None] * math.pi / (2 * size))
    matrix[0] /= math.sqrt(2)
    return matrix


def _lapping(angles: tuple[float, ...]) -> Tensor:
    """The filter over a border: (FACTOR, FACTOR) float64, acting on the samples around it; what it does not reach it leaves."""
    reach = len(angles) + 1
    rotation = torch.eye(reach, dtype=torch.float64)
    for k in reversed(range(reach - 1)):
        plane = torch.eye(reach, dtype=torch.float64)
        plane[k, k] = plane[k + 1, k + 1] = math.cos(angles[k])
        plane[k, k + 1] = math.sin(angles[k])
        plane[k + 1, k] = -plane[k, k + 1]
        rotation = plane @ rotation
    one = torch.eye(reach, dtype=torch.float64)
    butterfly = torch.cat([torch.cat([one, one.flip(0)], 1), torch.cat([one.flip(0), -one], 1)])
    matrix = torch.eye(FACTOR, dtype=torch.float64)
    around = slice(_HALF - reach, _HALF + reach)
    matrix[around, around] = butterfly @ torch.block_diag(one, rotation) @ butterfly / 2
    return matrix


@functools.cache
@torch.inference_mode(False)  # or whoever trains later could not use it
def _lappings(device: torch.device) -> tuple[Tensor, Tensor]:
    """Between long windows, and where one is short: (16, 16) float32."""
    return _lapping(_LONG_ANGLES).float().to(device), _lapping(_SHORT_ANGLES).float().to(device)


def frequencies() -> list[tuple[int, int]]:
    """The vertical and horizontal frequency of each of the BANDS."""
    return sorted(((u, v) for u in range(FACTOR) for v in range(FACTOR)), key=lambda f: (math.hypot(*f), f))


@functools.cache
@torch.inference_mode(False)  # or whoever trains later could not use it
def _blocks(device: torch.device) -> tuple[Tensor, Tensor]:
    """What a long and a short window make of 16 x 16 filtered samples: (BANDS, 256) float32, orthonormal rows.

    Frequency u of the eight of short window b is in the place of 2u + b. The means of the four are transformed once more, so that band 0
    is the mean of all, as it is of a long window.
    """
    lines = torch.zeros(FACTOR, FACTOR, dtype=torch.float64)
    for window in range(2):
        lines[window::2, window * _HALF : (window + 1) * _HALF] = _dct(_HALF)
    lines @= _lapping(_SHORT_ANGLES)
    order = [FACTOR * u + v for u, v in frequencies()]
    long, short = torch.kron(_dct(FACTOR), _dct(FACTOR)), torch.kron(lines, lines)
    means = [0, 1, FACTOR, FACTOR + 1]
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    short[means] = torch.kron(pair, pair) @ short[means]
    return long[order].float().to(device), short[order].float().to(device)


class Window(IntEnum):
    """What a position has; outside a picture there are none."""

    LONG = 0
    SHORT = 1
    ABSENT = 2


Windows = tuple[Window, Window, Window, Window]  # of the upper left, upper right, lower left and lower right position at a corner


def _cell_by_cell(blocks: Tensor) -> Tensor:
    """(n, 16, 16) -> (n, 256): cells of 8 x 8 one after the other."""
    return blocks.reshape(-1, 2, _HALF, 2, _HALF).transpose(2, 3).reshape(-1, FACTOR**2)


@functools.cache
@torch.inference_mode(False)  # or whoever trains later could not use it
def block_of(window: Window) -> Tensor:
    """What a window makes of 16 x 16 filtered samples, cell by cell of 8 x 8: (BANDS, 256) float32, orthonormal rows; 0 of none."""
    if window is Window.ABSENT:
        return torch.zeros(BANDS, FACTOR**2)
    return _cell_by_cell(_blocks(torch.device("cpu"))[window].view(BANDS, FACTOR, FACTOR))


@functools.cache
@torch.inference_mode(False)  # or whoever trains later could not use it
def lapping_around(windows: Windows) -> Tensor:
    """What all filters make of the 16 x 16 samples around a corner, cell by cell of 8 x 8: (256, 256) float32, orthonormal.

    Filtered samples are a row of samples times its transpose; no other filter reaches these, and these reach no others.
    """
    lappings = (*_lappings(torch.device("cpu")), torch.eye(FACTOR))
    upper_left, upper_right, lower_left, lower_right = windows

    def unlapped(samples: Tensor, *pairs: tuple[Window, Window]) -> Tensor:
        """Across the middle column: of the upper half of the rows, and of the lower."""
        return torch.cat([half @ lappings[max(pair)] for half, pair in zip(samples.chunk(2, 1), pairs, strict=True)], 1)

    samples = torch.eye(FACTOR**2).view(-1, 2, 2, _HALF, _HALF).transpose(2, 3).reshape(-1, FACTOR, FACTOR)
    samples = unlapped(samples.mT, (upper_left, lower_left), (upper_right, lower_right)).mT
    samples = unlapped(samples, (upper_left, upper_right), (lower_left, lower_right))
    return _cell_by_cell(samples)


def around_corner(windows: Windows) -> Tensor:
    """What `inverse` makes of four positions in the 16 x 16 samples around the corner that they share.

    (4, BANDS, 256) float32: of each position and band the samples, cell by cell of 8 x 8. Nothing else reaches these samples.
    """
    size, lapping = _HALF**2, lapping_around(windows)
    parts = []
    for position, window in enumerate(windows):
        own, opposite = (slice(cell * size, (cell + 1) * size) for cell in (position, 3 - position))
        parts.append(block_of(window)[:, opposite] @ lapping[own])
    return torch.stack(parts)


def _lap_rows(planes: Tensor, short: Tensor, inverse: bool) -> Tensor:
    """Filter over the borders between rows of positions, in place. planes (B, C, H, W), short (B, h, w)."""
    batch, components, _, width = planes.shape
    around = planes[:, :, _HALF:-_HALF].reshape(batch, components, -1, FACTOR, width)
    if around.numel():
        long, beside_short = (matrix.T if inverse else matrix for matrix in _lappings(planes.device))
        chosen = (short[:, 1:] | short[:, :-1]).repeat_interleave(FACTOR, 2)[:, None, :, None]
        filtered = torch.where(chosen, beside_short @ around, long @ around)
        planes[:, :, _HALF:-_HALF] = filtered.flatten(2, 3)
    return planes


def _lap_columns(planes: Tensor, short: Tensor, inverse: bool) -> Tensor:
    """The same between columns."""
    batch, components, height, _ = planes.shape
    around = planes[:, :, :, _HALF:-_HALF].reshape(batch, components, height, -1, FACTOR)
    if around.numel():
        long, beside_short = (matrix if inverse else matrix.T for matrix in _lappings(planes.device))
        chosen = (short[:, :, 1:] | short[:, :, :-1]).repeat_interleave(FACTOR, 1)[:, None, :, :, None]
        filtered = torch.where(chosen, around @ beside_short, around @ long)
        planes[:, :, :, _HALF:-_HALF] = filtered.flatten(3, 4)
    return planes


def forward(components: Tensor, short: Tensor) -> Tensor:
    """Components (B, C, H, W) float32, H and W multiples of 16; short (B, H/16, W/16) bool -> coefficients (B, C, H/16, W/16, BANDS)."""
    batch, count, height, width = components.shape
    planes = _lap_rows(_lap_columns(components.clone(), short, inverse=False), short, inverse=False)
    blocks = planes.reshape(batch, count, height // FACTOR, FACTOR, width // FACTOR, FACTOR).transpose(3, 4).flatten(4)
    long_block, short_block = _blocks(blocks.device)
    coefficients = blocks @ long_block.T
    chosen = short[:, None].expand(coefficients.shape[:4])
    coefficients[chosen] = blocks[chosen] @ short_block.T
    return coefficients


def inverse(coefficients: Tensor, short: Tensor) -> Tensor:
    """Inverse of `forward`: (B, C, h, w, BANDS), (B, h, w) -> (B, C, 16h, 16w)."""
    batch, count, rows, columns, _ = coefficients.shape
    long_block, short_block = _blocks(coefficients.device)
    blocks = coefficients @ long_block
    chosen = short[:, None].expand(blocks.shape[:4])
    blocks[chosen] = coefficients[chosen] @ short_block
    planes = blocks.unflatten(4, (FACTOR, FACTOR)).transpose(3, 4).reshape(batch, count, rows * FACTOR, columns * FACTOR)
    return _lap_columns(_lap_rows(planes, short, inverse=True), short, inverse=True)


def reduced(coefficients: Tensor, side: int) -> Tensor:
    """The `side` x `side` lowest bands (B, C, h, w, side^2), side 1 or 2, as samples of a smaller picture: (B, C, side * h, side * w)."""
    batch, count, rows, columns, _ = coefficients.shape
    basis = _dct(side).float() * (side / FACTOR)
    order = [side * u + v for u, v in frequencies()[: side**2]]
    blocks = coefficients @ torch.kron(_dct(side).float(), basis)[order]
    return blocks.reshape(batch, count, rows, columns, side, side).transpose(3, 4).reshape(batch, count, rows * side, columns * side)


def choose(components: Tensor, step: Tensor) -> Tensor:
    """Windows for components (B, 3, H, W) and quantisation steps (B,): (B, H/16, W/16) bool, True where short ones cost less.

    Estimated from luma: a coefficient costs log2(1 + |c| / step) bits.
    """
    luma = components[:, :1]
    every = torch.ones(len(luma), luma.shape[2] // FACTOR, luma.shape[3] // FACTOR, dtype=torch.bool, device=luma.device)
    return prefers_short(forward(luma, ~every)[:, 0], forward(luma, every)[:, 0], step[:, None, None, None])


def prefers_short(long: Tensor, short: Tensor, step: Tensor) -> Tensor:
    """Where coefficients (..., BANDS) of short windows cost less than those of long ones: (...) bool."""
    long_cost, short_cost = (torch.log1p(coefficients.float().abs() / step).sum(-1) for coefficients in (long, short))
    return short_cost + _BIAS < long_cost
