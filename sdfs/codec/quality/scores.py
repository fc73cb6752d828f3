"""How far two pictures are apart, and the gate: whether a picture may be kept as latents.

The gate looks at the whole picture, and at each block by itself: a picture of which a fifth is destroyed has good scores yet. What a
block may be off by grows with what is in the original there, which hides errors; calm ground forgives nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdfs.codec.autoencoders.side_by_side import side_by_side

# Wang, Simoncelli, Bovik 2003, "Multi-scale structural similarity for image quality assessment"
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SIGMA, _TAPS = 1.5, 11
_C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601
_CACHED_ROWS, _CACHED_POSITIONS = 64, 1 << 17  # done at a time
# a third of the rows gives 1 - MS-SSIM within 5 % (rms; 13 % at most) on ten photos of 5 to 13 megapixels: enough for the gate, which
# looks at every block besides
_SAMPLED_OF, _STRIP, _LEAST_STRIPS = 3, 192, 3
BLOCK = 16  # pixels, per side, of what is judged by itself; one begins at every half
_CELL = BLOCK // 2
_TOLERANCE, _HALVED_EVERY = 22.0, 42.0  # levels at quality 0, and quality: what nearly all blocks of photos stay within


@dataclass(frozen=True)
class Scores:
    """`psnr` in dB over all samples, at most 100; `ms_ssim` of luma, 0..1."""

    psnr: float
    ms_ssim: float

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def compare(original: NDArray[np.uint8], rendered: NDArray[np.uint8]) -> Scores:
    """Both (H, W, 3) or (H, W) uint8, of one shape. MS-SSIM of high pictures is of a third of their rows."""
    if original.shape != rendered.shape:
        raise ValueError(f"pictures of different shapes: {original.shape} and {rendered.shape}")
    error = _squared_error(original, rendered) / original.size
    psnr = min(100.0, 10 * float(np.log10(255**2 / max(error, 1e-12))))

    @torch.inference_mode()
    def similarity(rows: slice) -> float:
        return ms_ssim(_luma(original[rows]), _luma(rendered[rows])).item()

    return Scores(psnr, float(np.mean(side_by_side(similarity, _sample(len(original))))))


def _sample(height: int) -> list[slice]:
    """Rows that stand for all: strips of equal height, evenly spread."""
    count = round(height / (_SAMPLED_OF * _STRIP))
    if count < _LEAST_STRIPS:
        return [slice(0, height)]
    tops = ((2 * number + 1) * height // (2 * count) - _STRIP // 2 for number in range(count))
    return [slice(top, top + _STRIP) for top in tops]


_USUAL = Scores(22.0, 0.94)  # a gate that asks less of the whole picture asks less of its blocks, too


@dataclass(frozen=True)
class Bound:
    """What a block may be off by: `tolerance` in levels (rms), where the original is flat; `structure` at least, 0..1."""

    tolerance: float
    structure: float

    @classmethod
    def asked(cls, quality: int, least: Scores) -> Self:
        """What a quality of 0 ... 100 promises, under the gate's scores."""
        looser = max(1.0, 10 ** ((_USUAL.psnr - least.psnr) / 10)), max(1.0, (1 - least.ms_ssim) / (1 - _USUAL.ms_ssim))
        return cls(_TOLERANCE * 2 ** (-quality / _HALVED_EVERY) * looser[0], 1 - (1 - quality / 200) * looser[1])


@dataclass(frozen=True)
class Place:
    """A block of up to BLOCK x BLOCK pixels: where it begins, and how far it is off, in levels, and in SSIM's structure of luma.

    `mean_error` is of the channel that is off most, `rms_error` of all channels. `excess`: times what the bound allows.
    """

    x: int
    y: int
    mean_error: float
    rms_error: float
    structure: float
    excess: float

    def as_dict(self) -> dict[str, float]:
        return {
            "worst_x": self.x,
            "worst_y": self.y,
            "worst_mean_error": round(self.mean_error, 1),
            "worst_rms_error": round(self.rms_error, 1),
            "worst_structure": round(self.structure, 2),
        }

    def __str__(self) -> str:
        off = f"mean error {self.mean_error:.1f}, rms error {self.rms_error:.1f}, structure {self.structure:.2f}"
        return f"at pixel ({self.x}, {self.y}): {off}"


def worst_place(original: NDArray[np.uint8], rendered: NDArray[np.uint8], bound: Bound) -> Place:
    """The block that exceeds the bound most, or comes nearest to it. Both (H, W, 3) or (H, W) uint8, of one shape."""
    height, width = original.shape[:2]
    strips = [slice(top, top + _CACHED_ROWS) for top in range(0, height, _CACHED_ROWS)]
    sums = _blocks(np.concatenate(side_by_side(lambda strip: _cells(original[strip], rendered[strip]), strips)))
    count = _blocks(np.outer(_lengths(height), _lengths(width)).astype(np.float32)[..., None])
    *errors, square, luma, luma_square, error, error_square, product = np.moveaxis(sums / count, 2, 0)
    mean_error, mse = np.abs(errors).max(0), square / len(errors)
    variance = np.maximum(luma_square - luma**2, 0)
    error_variance, covariance = np.maximum(error_square - error**2, 0), product - luma * error
    # 1 - structure, of variances of the original and of its sum with the error
    lost = error_variance / (2 * variance + 2 * covariance + error_variance + C2)
    tolerance, deviation = bound.tolerance, np.sqrt(variance)
    excess = np.sqrt(
        np.maximum(mean_error**2 / (tolerance * (2 / 3 * tolerance + deviation)), mse / (tolerance * (tolerance + 3 * deviation)))
    )
    excess = np.maximum(excess, lost / (1 - bound.structure))
    row, column = (int(index) for index in np.unravel_index(excess.argmax(), excess.shape))
    at = row, column
    return Place(column * _CELL, row * _CELL, float(mean_error[at]), float(np.sqrt(mse[at])), 1 - float(lost[at]), float(excess[at]))


def _cells(original: NDArray[np.uint8], rendered: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sums over cells: (rows, columns, C + 6): each channel's error, the squared error, and of luma and its error the moments."""
    if original.ndim == 2:
        original, rendered = original[..., None], rendered[..., None]
    error = np.subtract(rendered, original, dtype=np.int16).astype(np.float32)
    to_luma = LUMA if error.shape[2] == 3 else np.ones(1, np.float32)
    luma, luma_error = original.astype(np.float32) @ to_luma - 128, error @ to_luma  # centred: float32 keeps variances
    moments = luma, luma * luma, luma_error, luma_error * luma_error, luma * luma_error
    sums = [_sum(error), _sum(error * error).sum(2, keepdims=True), *(_sum(plane[..., None]) for plane in moments)]
    return np.concatenate(sums, 2)


def _sum(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, C) -> (ceil(H / _CELL), ceil(W / _CELL), C)."""
    rows = np.add.reduceat(planes, np.arange(0, planes.shape[0], _CELL), 0)
    return np.add.reduceat(rows, np.arange(0, planes.shape[1], _CELL), 1)


def _blocks(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over cells -> sums over blocks of 2 x 2 cells; of all cells along a side that has one only."""
    for axis in (0, 1):
        if cells.shape[axis] > 1:
            before, after = (slice(None),) * axis + (slice(-1),), (slice(None),) * axis + (slice(1, None),)
            cells = cells[before] + cells[after]
    return cells


def _lengths(side: int) -> NDArray[np.int64]:
    """Of the cells along a side."""
    return np.diff([*range(0, side, _CELL), side])


def _squared_error(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """The sum over all samples."""
    total = 0.0
    for top in range(0, len(a), _CACHED_ROWS):
        rows = slice(top, top + _CACHED_ROWS)
        difference = np.subtract(a[rows], b[rows], dtype=np.int16).astype(np.float32).ravel()
        total += float(np.dot(difference, difference))
    return total


def _luma(picture: NDArray[np.uint8]) -> Tensor:
    plane = picture.astype(np.float32)
    return torch.from_numpy(plane @ LUMA if plane.ndim == 3 else plane)[None, None]


def _blur(planes: Tensor) -> Tensor:
    """Gaussian window over (N, 1, H, W), valid positions only; sides shorter than the window shorten it."""
    for axis in (2, 3):
        taps = min(_TAPS, planes.shape[axis])
        window = np.exp(-np.square(np.arange(taps) - (taps - 1) / 2) / (2 * _SIGMA**2))
        window /= window.sum()
        length = planes.shape[axis] - taps + 1
        blurred = planes.narrow(axis, 0, length) * float(window[0])
        for offset in range(1, taps):  # 10 times faster than convolving a single channel
            blurred.add_(planes.narrow(axis, offset, length), alpha=float(window[offset]))
        planes = blurred
    return planes


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Of luma planes (B, 1, H, W) float32 in 0..255: (B,), differentiable. Sides too short for a scale count at the one above."""
    result = torch.ones(len(a), device=a.device)
    for scale, weight in enumerate(_WEIGHTS):
        similarity = _mean_similarity(a, b, with_luminance=scale == len(_WEIGHTS) - 1)
        result = result * similarity.clamp(min=1e-6) ** weight
        if min(a.shape[2:]) > 1:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result


def _mean_similarity(a: Tensor, b: Tensor, *, with_luminance: bool) -> Tensor:
    """Of one scale: (B,). A few rows after the other, for what fits into a processor's cache is done four times as fast."""
    height, width = a.shape[2:]
    window = min(_TAPS, height)
    rows = max(window, _CACHED_POSITIONS // (len(a) * width))
    total, count = torch.zeros(len(a), device=a.device), 0
    for top in range(0, height - window + 1, rows):
        block = slice(top, top + rows + window - 1)
        similarity = _similarity(a[:, :, block], b[:, :, block], with_luminance=with_luminance).flatten(1)
        total, count = total + similarity.sum(1), count + similarity.shape[1]
    return total / count


def _similarity(a: Tensor, b: Tensor, *, with_luminance: bool) -> Tensor:
    mean_a, mean_b, square_a, square_b, product = _blur(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    variance_a, variance_b, covariance = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    similarity = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return similarity * (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1) if with_luminance else similarity
