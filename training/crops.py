"""Cut training crops out of photos, and draw some, into one file that training reads as a memory map.

    python -m training.crops OUT.npy FOLDERS... --count 40000 [--size 256] [--drawn 0.12] [--seed 0] [--held-out]

OUT.npy holds uint8 of (count, size, size, 3), shuffled. The same arguments give the same crops.
One photo in twenty, chosen by its name, is kept apart: only --held-out cuts crops out of those, and out of those alone.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import multiprocessing
import os
import random
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from training.data import pictures
from training.drawings import drawing, drawn_upon

LARGE = 3_000_000  # pixels; a third of the crops of such photos show them as they are
MOST_REDUCED = 4.0
REDUCED = "reduced"  # a folder of this name holds photos that were reduced: most of their crops are not reduced again
MOST = 120  # crops of one photo
UPON = 0.25  # so many of the drawn ones are drawn upon a photo
CHUNK = 50  # drawn crops of one task
HELD_OUT = 20  # one photo of so many is kept apart
PROCESSES = 2
NICE = 10
LOG_TASKS = 20


@dataclass(frozen=True)
class Task:
    photo: Path | None  # None: drawn
    slots: list[int]  # places in the file
    upon: float  # the share that is drawn upon


def name_of(photo: Path) -> str:
    """The name that all cuttings and reduced copies of one photo share."""
    return re.sub(r"(-unsplash)?(_x\d+_y\d+)?$", "", photo.stem)


def held_out(photo: Path) -> bool:
    return hashlib.sha256(name_of(photo).encode()).digest()[0] % HELD_OUT == 0


def photos_of(folders: Iterable[Path], size: int, apart: bool) -> dict[Path, int]:
    """The photos with sides of at least `size`, and their pixels. One in several folders counts in the first."""
    found: dict[Path, int] = {}
    known: set[str] = set()
    for folder in folders:
        for path in (p for p in pictures(folder) if name_of(p) not in known and held_out(p) == apart):
            with Image.open(path) as picture:
                width, height = picture.size
            if min(width, height) >= size:
                found[path] = width * height
        known |= {name_of(path) for path in found}
    if not found:
        raise SystemExit(f"no photo there has sides of at least {size} pixels; name other folders or a smaller --size")
    return found


def shares(pixels: list[int], count: int) -> list[int]:
    """How many of `count` crops each photo gives: as the root of its pixels, at most MOST if that suffices."""
    weights = np.sqrt(np.array(pixels, np.float64))
    most = max(MOST, -(-count // len(pixels)))
    exact = np.zeros(len(pixels))
    while (left := count - exact.sum()) > 0.5:
        open_ = exact < most
        exact = np.minimum(exact + open_ * weights * left / weights[open_].sum(), most)
    ends = np.rint(np.cumsum(exact)).astype(int)
    return np.diff(ends, prepend=0).tolist()


def plan(photos: dict[Path, int], count: int, drawn: float, seed: int) -> list[Task]:
    slots = list(range(count))
    random.Random(seed).shuffle(slots)
    alone = round(count * drawn * (1 - UPON))
    tasks = [Task(None, slots[i : min(i + CHUNK, alone)], 0.0) for i in range(0, alone, CHUNK)]
    given = alone
    for photo, share in zip(photos, shares(list(photos.values()), count - alone), strict=True):
        tasks.append(Task(photo, slots[given : given + share], drawn * UPON * count / (count - alone) if alone < count else 0.0))
        given += share
    random.Random(seed).shuffle(tasks)
    return [task for task in tasks if task.slots]


def srgb(path: Path) -> Image.Image:
    """The photo upright, its colours in sRGB."""
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture)
    rgb = upright.convert("RGB")
    if upright.mode == "RGB" and (embedded := upright.info.get("icc_profile")):
        with suppress(ImageCms.PyCMSError, OSError):  # a broken profile says nothing about the colours
            profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
            if "sRGB" not in ImageCms.getProfileDescription(profile):
                ImageCms.profileToProfile(rgb, profile, ImageCms.createProfile("sRGB"), inPlace=True)
    return rgb


def reduction(width: int, height: int, size: int, reduced: bool, chance: random.Random) -> float:
    """How many of the photo's pixels, along a side, one of the crop's stands for."""
    most = min(MOST_REDUCED, min(width, height) / size)
    as_it_is = 0.75 if reduced else 1 / 3 if width * height >= LARGE else 0.0
    return 1.0 if chance.random() < as_it_is else most ** chance.random()


def crop(photo: Image.Image, size: int, reduced: bool, chance: random.Random) -> np.ndarray:
    """Cut a random crop, (size, size, 3) uint8: reduced or as it is, mirrored half of the time."""
    factor = reduction(*photo.size, size, reduced, chance)
    side = size * factor
    left, top = chance.randint(0, int(photo.width - side)), chance.randint(0, int(photo.height - side))
    box = (left, top, left + side, top + side)
    cut = photo.crop((left, top, left + size, top + size)) if factor == 1 else photo.resize((size, size), Image.Resampling.LANCZOS, box)
    array = np.asarray(cut)
    return array[:, ::-1] if chance.random() < 0.5 else array


def fill(out: Path, seed: int, task: Task) -> int:
    """Make the crops of one task, in place; how many they are."""
    crops = np.load(out, mmap_mode="r+")
    size = crops.shape[1]
    photo = None if task.photo is None else srgb(task.photo)
    for slot in task.slots:
        chance = random.Random(f"{seed} {slot}")
        if photo is None or task.photo is None:
            crops[slot] = drawing(size, chance)
            continue
        cut = crop(photo, size, REDUCED in task.photo.parts, chance)
        crops[slot] = drawn_upon(cut, chance) if chance.random() < task.upon else cut
    return len(task.slots)


def make(out: Path, folders: list[Path], count: int, size: int, drawn: float, seed: int, apart: bool) -> None:
    """Write `out` whole: what is not finished has another name."""
    photos = photos_of(folders, size, apart)
    unfinished = out.with_name(f"{out.name}.unfinished")
    np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, size, size, 3)).flush()
    tasks, done = plan(photos, count, drawn, seed), 0
    with multiprocessing.get_context("spawn").Pool(PROCESSES, os.nice, (NICE,)) as pool:
        for i, filled in enumerate(pool.imap_unordered(functools.partial(fill, unfinished, seed), tasks), 1):
            done += filled
            if i % LOG_TASKS == 0 or done == count:
                print(f"{done} of {count} crops", flush=True)
    unfinished.replace(out)
    print(f"{out}: {count} crops of {len(photos)} photos and drawings")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.npy", help="the file to write")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="photos; one in several folders counts in the first")
    parser.add_argument("--count", type=int, required=True, help="crops in all")
    parser.add_argument("--size", type=int, default=256, help="of a crop's side, in pixels")
    parser.add_argument("--drawn", type=float, default=0.12, help="the share of them that is drawn, or drawn upon a photo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="crops of the photos that are kept apart, and of no others")
    options = parser.parse_args()
    make(options.out, options.folders, options.count, options.size, options.drawn, options.seed, options.held_out)


if __name__ == "__main__":
    main()
