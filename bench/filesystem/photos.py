"""The pictures: photos, and large ones made of them; and what other formats make of the same pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 4000, 3000  # 12 MP
AVIF_QUALITY, JPEG_XL_DISTANCE = 60, 3.0
_SHARE = 0.9  # of a photo that a large one shows at least
_NOISE = 3.0  # levels of 255: a photo that was only enlarged has less to compress than one that was taken so


def large(photo: Path, seed: int) -> bytes:
    """A JPEG file of 12 MP: some crop of a photo, enlarged, with noise; another one for each seed."""
    random = np.random.default_rng(seed)
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    share = random.uniform(_SHARE, 1.0)
    width, height = picture.width * share, picture.height * share
    left, top = random.uniform(0, picture.width - width), random.uniform(0, picture.height - height)
    enlarged = picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    noise = random.standard_normal((HEIGHT, WIDTH, 1), np.float32) * _NOISE
    pixels = np.clip(np.asarray(enlarged) + noise, 0, 255).astype(np.uint8)
    return _saved(Image.fromarray(pixels), "JPEG", quality=92)


def small(photo: Path) -> bytes:
    """A JPEG file that wakes the model, and is not measured."""
    with Image.open(photo) as opened:
        return _saved(opened.convert("RGB").resize((512, 512)), "JPEG", quality=92)


def gather(folder: Path, photos: Sequence[Path], large_ones: int) -> list[Path]:
    """Photos and large ones in a folder, in the order of their names, which are all different."""
    folder.mkdir()
    made = [folder / f"{number:03} {photo.name}" for number, photo in enumerate(photos)]
    for photo, path in zip(photos, made, strict=True):
        path.write_bytes(photo.read_bytes())
    for number in range(large_ones):
        photo = photos[number % len(photos)]
        made.append(folder / f"{len(made):03} large {photo.stem}.jpg")
        made[-1].write_bytes(large(photo, number))
    return made


def in_other_formats(path: Path, folder: Path) -> dict[str, Path]:
    """The picture as files in `folder`, by format; as itself, too."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    made = {"itself": path, "AVIF": folder / f"{path.name}.avif", "JPEG XL": folder / f"{path.name}.jxl"}
    made["AVIF"].write_bytes(_saved(picture, "AVIF", quality=AVIF_QUALITY, speed=8))
    pixels = np.asarray(picture)
    made["JPEG XL"].write_bytes(imagecodecs.jpegxl_encode(pixels, distance=JPEG_XL_DISTANCE, effort=4, lossless=False))
    return made


def _saved(picture: Image.Image, file_format: str, **options: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, file_format, **options)
    return out.getvalue()
