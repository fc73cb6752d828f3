"""Training crops and held-out pictures from a folder of photos."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.drawings import drawing

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


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
    """Endless random crops: scaled down by up to 0.5 (which also hides the source's JPEG artefacts), mirrored half of the time.

    `drawn`: the share of them that is drawn, or drawn upon.
    """

    def __init__(self, folder: Path, size: int, seed: int, longest: int = 2048, drawn: float = 0.0) -> None:
        self._size = size
        self._random = random.Random(seed)
        self._drawn = drawn
        loaded = (load(path, longest) for path in pictures(folder))
        self._pictures = [a for a in loaded if min(a.shape[:2]) >= size // 2]
        if not self._pictures:
            raise SystemExit(f"{folder}: no picture has sides of at least {size // 2} pixels")

    def _crop(self) -> np.ndarray:
        array = self._random.choice(self._pictures)
        height, width = array.shape[:2]
        scale = min(1.0, self._random.uniform(max(0.5, self._size / min(height, width)), 1.15))
        side = min(int(self._size / scale), height, width)
        top, left = self._random.randint(0, height - side), self._random.randint(0, width - side)
        crop = array[top : top + side, left : left + side]
        if side != self._size:
            crop = np.asarray(Image.fromarray(crop).resize((self._size, self._size), Image.Resampling.BICUBIC))
        crop = crop[:, ::-1] if self._random.random() < 0.5 else crop
        return drawing(crop, self._random) if self._random.random() < self._drawn else crop

    def batches(self, count: int) -> Iterator[Tensor]:
        while True:
            yield to_tensor([self._crop() for _ in range(count)])
