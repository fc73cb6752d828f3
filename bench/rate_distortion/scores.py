"""How far a decoded picture is from its original.

psnr                    of RGB samples, dB, at most 100
ms_ssim, ms_ssim_rgb    of luma; the mean of those of R, G and B, which is what is published of others
ssimulacra2             of the JPEG XL project, in NumPy: 90 and more looks like the original, 50 is good, below 0 bad
lpips, dists            distances of features: see perceptual.py
flat_noise, edge_noise  of the decoded picture itself, on the original's calm ground: see noise.py

MS-SSIM and distances are on a scale of dB where they are compared, averaged over pictures, or drawn: -10 log10 of what is missing to
the original.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from ssimulacra2 import compute_ssimulacra2
from torch import Tensor

from bench.rate_distortion.noise import Ground
from bench.rate_distortion.perceptual import Dists, Lpips, WeightsMissing
from sdfs.codec.quality.scores import compare, ms_ssim

Pixels = NDArray[np.uint8]  # (H, W, 3)
Values = Mapping[str, float | None]  # by name, None: this picture has none

VERSION = 1  # rises when a score is computed in another way, so that older results are not mixed with newer ones
LARGEST_FOR_FEATURES = 3_000_000  # pixels: networks that see a larger picture whole take more memory than a bench may
_STRIP = 1024  # rows of a picture whose three channels are compared at a time


@dataclass(frozen=True)
class Score:
    """`scale`: where more is better and equal steps are of about equal weight."""

    label: str
    unit: str
    scale: Callable[[float], float]

    @property
    def axis(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label


def _decibels(missing: float) -> float:
    return -10 * math.log10(max(missing, 1e-6))


SCORES = {
    "psnr": Score("PSNR", "dB", lambda value: value),
    "ms_ssim_rgb": Score("MS-SSIM (RGB)", "dB", lambda value: _decibels(1 - value)),
    "ms_ssim": Score("MS-SSIM (luma)", "dB", lambda value: _decibels(1 - value)),
    "ssimulacra2": Score("SSIMULACRA2", "", lambda value: value),
    "lpips": Score("LPIPS", "−dB", _decibels),
    "dists": Score("DISTS", "−dB", _decibels),
}
NOISE = ("flat_noise", "edge_noise")
QUICK = ("psnr", "ms_ssim_rgb", "ssimulacra2", *NOISE)


@lru_cache(1)
def lpips() -> Lpips:
    return Lpips()


@lru_cache(1)
def dists() -> Dists:
    return Dists()


def available() -> tuple[list[str], list[str]]:
    """Names of all scores that can be computed here, and why the others cannot."""
    missing = {}
    for name, load in (("lpips", lpips), ("dists", dists)):
        try:
            load()
        except WeightsMissing as reason:
            missing[name] = f"{SCORES[name].label}: {reason}"
    return [name for name in (*SCORES, *NOISE) if name not in missing], list(missing.values())


class Judge:
    """Scores pictures against one original. What it knows of the original is made once."""

    def __init__(self, original: Pixels) -> None:
        self._original = original

    def scores(self, decoded: Pixels, names: Iterable[str]) -> dict[str, float | None]:
        """Raises WeightsMissing."""
        found: dict[str, float | None] = {}
        for name in names:
            if name in found:
                continue
            if name in ("psnr", "ms_ssim"):
                near = compare(self._original, decoded)
                found |= {"psnr": near.psnr, "ms_ssim": near.ms_ssim}
            elif name in NOISE:
                noise = self._ground.noise(decoded)
                found |= {"flat_noise": noise.flat, "edge_noise": noise.edge}
            else:
                found[name] = getattr(self, f"_{name}")(decoded)
        return found

    def _ms_ssim_rgb(self, decoded: Pixels) -> float:
        tops = range(0, len(decoded), _STRIP)
        rows = [len(decoded[top : top + _STRIP]) for top in tops]
        with torch.inference_mode():
            strips = [ms_ssim(*(_channels(pixels[top : top + _STRIP]) for pixels in (self._original, decoded))).mean() for top in tops]
        return float(np.average(strips, weights=rows))

    def _ssimulacra2(self, decoded: Pixels) -> float:
        return float(compute_ssimulacra2(_file(self._original), _file(decoded)))

    def _lpips(self, decoded: Pixels) -> float | None:
        return None if self._too_large else lpips().distance(self._of_lpips, lpips().features(decoded))

    def _dists(self, decoded: Pixels) -> float | None:
        return None if self._too_large else dists().distance(self._of_dists, dists().features(decoded))

    @property
    def _too_large(self) -> bool:
        return self._original.size > 3 * LARGEST_FOR_FEATURES

    @cached_property
    def _ground(self) -> Ground:
        return Ground(self._original)

    @cached_property
    def _of_lpips(self) -> list[Tensor]:
        return lpips().features(self._original)

    @cached_property
    def _of_dists(self) -> list[Tensor]:
        return dists().features(self._original)


def _channels(pixels: Pixels) -> Tensor:
    """(3, 1, H, W) float32."""
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[:, None].contiguous()


def _file(pixels: Pixels) -> io.BytesIO:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PPM")
    return out
