"""Pictures, and sets of them by kind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data import EXTENSIONS

Pixels = NDArray[np.uint8]  # (H, W, 3)

KODAK = "Kodak"
SIDE = 512  # pixels: squares that are cut out of larger pictures
QUICK_SIDE = 384
# What packages ship: the photographs of scikit-image and scikit-learn
_SHIPPED = {
    "photos under 1 MP": ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "china.jpg", "flower.jpg"),
    "night and stars": ("hubble_deep_field.jpg", "rocket.jpg"),
    "text": ("page.png", "text.png"),
}
_NOT_SHIPPED = {"photos from 2 MP on": "no package ships any", "screens": "no package ships any"}


@dataclass(frozen=True)
class Picture:
    path: Path
    cut: int | None = None  # so many pixels a side out of the middle, or fewer where the picture has fewer

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def sha256(self) -> str:
        """Of shape and pixels, 16 digits: by which results are kept."""
        pixels = self.load()
        return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]

    def load(self) -> Pixels:
        return _load(self.path, self.cut)


@lru_cache(2)
def _load(path: Path, cut: int | None) -> Pixels:
    try:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))
    except OSError as error:
        raise SystemExit(f"{path}: {error}; name pictures that Pillow reads") from error
    if cut is None:
        return pixels
    top, left = (max(0, (side - cut) // 2) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + cut, left : left + cut])


Sets = dict[str, list[Picture]]


def parse_sets(named: Sequence[Sequence[str]], limit: int | None, cut: int | None) -> Sets:
    """Of [name, file, folder or list, …]: a list is a .txt file with a path on each line. Raises SystemExit."""
    sets: Sets = {}
    for name, *places in named:
        found = [path for place in places for path in _paths(Path(place))]
        if not found:
            raise SystemExit(f"--set {name}: name a folder, pictures, or a .txt file that lists them")
        sets[name] = [Picture(path, cut) for path in found[:limit]]
    return sets


def shipped(limit: int | None, cut: int | None) -> tuple[Sets, list[str]]:
    """Sets of what packages ship, and why others are left out."""
    folders = [
        Path(place, folder) for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")) for place in _places(package)
    ]
    sets: Sets = {}
    reasons = [f"{name}: {reason}; name a folder with --set" for name, reason in _NOT_SHIPPED.items()]
    for name, files in _SHIPPED.items():
        paths = [folder / file for file in files for folder in folders if (folder / file).exists()]
        if paths:
            sets[name] = [Picture(path, cut) for path in paths[:limit]]
        else:
            reasons.append(f"{name}: scikit-image and scikit-learn are not installed")
    return sets, reasons


def _places(package: str) -> list[str]:
    found = find_spec(package)
    return list(found.submodule_search_locations or ()) if found else []


def _paths(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.suffix.lower() in {*EXTENSIONS, ".avif"})
    if place.suffix == ".txt" and place.is_file():
        return [place.parent / line.strip() for line in place.read_text().splitlines() if line.strip()]
    if not place.is_file():
        raise SystemExit(f"{place}: not there; name a folder, pictures, or a .txt file that lists them")
    return [place]
