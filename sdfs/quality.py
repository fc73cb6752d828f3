"""How far two pictures are apart, and the gate: whether a picture may be kept as latents."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# Wang, Simoncelli, Bovik 2003, "Multi-scale structural similarity for image quality assessment"
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SIGMA, _TAPS = 1.5, 11
_C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601
_CACHED_ROWS, _CACHED_POSITIONS = 64, 1 << 17  # done at a time
_STRIP = 2048  # rows compared at a time: bounds memory


@dataclass(frozen=True)
class Scores:
    """`psnr` in dB over all samples, at most 100; `ms_ssim` of luma, 0..1."""

    psnr: float
    ms_ssim: float

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def compare(original: NDArray[np.uint8], rendered: NDArray[np.uint8]) -> Scores:
    """Both (H, W, 3) or (H, W) uint8, of one shape."""
    if original.shape != rendered.shape:
        raise ValueError(f"pictures of different shapes: {original.shape} and {rendered.shape}")
    strips = [slice(top, top + _STRIP) for top in range(0, len(original), _STRIP)]
    error = sum(_squared_error(original[s], rendered[s]) for s in strips) / original.size
    psnr = min(100.0, 10 * float(np.log10(255**2 / max(error, 1e-12))))
    rows = [len(original[s]) for s in strips]
    with torch.inference_mode():
        similarities = [ms_ssim(_luma(original[s]), _luma(rendered[s])).item() for s in strips]
    return Scores(psnr, float(np.average(similarities, weights=rows)))


def acceptable(scores: Scores, least: Scores) -> bool:
    """The gate: whether what a reader will get is near enough to the original."""
    return scores.ms_ssim >= least.ms_ssim and scores.psnr >= least.psnr


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
