"""Training crops out of a file of them, and pictures of a folder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}


def pictures(folder: Path) -> list[Path]:
    """Every picture file below `folder`, sorted. Raises SystemExit where there is none."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    if not found:
        raise SystemExit(f"{folder}: no pictures there; name a folder of photos")
    return found


def load(path: Path, longest: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8, shrunk so that no side exceeds `longest`."""
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
        if longest is not None:
            rgb.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        return np.asarray(rgb)


def to_tensor(arrays: list[np.ndarray]) -> Tensor:
    """(H, W, 3) uint8 arrays -> (B, 3, H, W) float32 in [0, 1], channels last."""
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).float() / 255


class Crops:
    """Endless random crops of `size` pixels a side out of those in a file that `training.crops` wrote; mirrored half of the time.

    The file is mapped, not read: it may be larger than memory. Raises SystemExit where it holds no crops, or none so large.
    """

    def __init__(self, file: Path, size: int, seed: int) -> None:
        self._size = size
        self._random = random.Random(seed)
        try:
            self._crops: np.ndarray = np.load(file, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise SystemExit(f"{file}: not a file of crops; make one with python -m training.crops") from error
        if self._crops.ndim != 4 or self._crops.dtype != np.uint8 or self._crops.shape[1] < size:
            raise SystemExit(f"{file}: no crops of {size} pixels a side; make some with python -m training.crops --size {size}")

    def _crop(self) -> np.ndarray:
        crop = self._crops[self._random.randrange(len(self._crops))]
        spare = len(crop) - self._size
        top, left = self._random.randint(0, spare), self._random.randint(0, spare)
        crop = crop[top : top + self._size, left : left + self._size]
        return crop[:, ::-1] if self._random.random() < 0.5 else crop

    def batches(self, count: int) -> Iterator[Tensor]:
        while True:
            yield to_tensor([self._crop() for _ in range(count)])
