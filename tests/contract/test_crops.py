"""Training crops: what they are cut out of, what is kept apart, what is drawn."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from training.crops import MOST, held_out, make, name_of, photos_of, plan, reduction, shares, srgb
from training.data import Crops
from training.drawings import drawing, drawn_upon


def saved(folder: Path, *names: str, side: int = 64) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (side, side)).save(folder / name)
    return folder


def test_a_file_of_crops_is_whole_and_the_same_each_time(photos: Path, tmp_path: Path) -> None:
    for name in ("first.npy", "second.npy"):
        make(tmp_path / name, [photos], count=12, size=64, drawn=0.5, seed=3, apart=False)
    first = np.load(tmp_path / "first.npy")
    assert first.shape == (12, 64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, np.load(tmp_path / "second.npy"))
    assert {path.name for path in tmp_path.iterdir()} == {"first.npy", "second.npy"}


def test_a_photo_is_cut_as_it_is_or_reduced(photos: Path) -> None:
    factors = [reduction(4000, 3000, 256, False, random.Random(i)) for i in range(300)]
    assert 0.2 < factors.count(1.0) / 300 < 0.45
    assert 3.5 < max(factors) <= 4
    assert all(256 * reduction(300, 400, 256, False, random.Random(i)) <= 300 for i in range(50))
    already = [reduction(1000, 700, 256, True, random.Random(i)) for i in range(300)]
    assert already.count(1.0) > 200


def test_every_copy_of_a_photo_is_kept_apart_or_none() -> None:
    copies = [Path("photos/unsplash/some-one-unsplash.jpg"), Path("open/reduced/some-one.avif"), Path("open/crops/some-one_x64_y1088.jpg")]
    assert {name_of(path) for path in copies} == {"some-one"}
    apart = sum(held_out(Path(f"{i}.jpg")) for i in range(2000))
    assert 70 < apart < 130


def test_crops_never_come_from_what_is_kept_apart(tmp_path: Path) -> None:
    folder = saved(tmp_path / "photos", *(f"{i}.png" for i in range(60)))
    apart, others = photos_of([folder], 64, apart=True), photos_of([folder], 64, apart=False)
    assert len(apart) + len(others) == 60
    assert all(held_out(photo) for photo in apart)
    assert not any(held_out(photo) for photo in others)


def test_a_photo_in_two_folders_counts_once(tmp_path: Path) -> None:
    names = [name for name in (f"{i}.png" for i in range(6)) if not held_out(Path(name))]
    large, small = saved(tmp_path / "large", *names[:2], side=128), saved(tmp_path / "small", *names)
    assert sorted(photos_of([large, small], 64, apart=False).values()) == [64 * 64] * (len(names) - 2) + [128 * 128] * 2


def test_large_photos_give_more_crops_but_none_gives_most_of_them() -> None:
    few = shares([1_000_000, 4_000_000], 30)
    assert few == [10, 20]
    many = shares([100] * 100 + [100_000_000], 2000)
    assert sum(many) == 2000
    assert max(many) == MOST


def test_every_place_is_filled_once_and_the_share_of_drawings_is_kept() -> None:
    tasks = plan({Path("a"): 10_000, Path("b"): 40_000}, 1000, 0.2, seed=0)
    assert sorted(slot for task in tasks for slot in task.slots) == list(range(1000))
    alone = sum(len(task.slots) for task in tasks if task.photo is None)
    upon = sum(len(task.slots) * task.upon for task in tasks)
    assert alone + upon == pytest.approx(200)
    assert 0 < upon < alone


def test_colours_come_out_in_srgb(tmp_path: Path) -> None:
    srgb_profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb_profile.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")  # its first primary is green
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "GRB ".encode("utf-16-be"))
    for profile, colour in ((srgb_profile, (255, 0, 0)), (b"no profile", (255, 0, 0)), (swapped, (0, 255, 0))):
        Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png", icc_profile=profile)
        assert srgb(tmp_path / "red.png").getpixel((0, 0)) == pytest.approx(colour, abs=1)


def test_drawings_are_various_and_some_are_constant() -> None:
    drawn = [drawing(64, random.Random(i)) for i in range(200)]
    assert {(picture.shape, picture.dtype) for picture in drawn} == {((64, 64, 3), np.dtype(np.uint8))}
    constant = [picture for picture in drawn if (picture == picture[0, 0]).all()]
    assert 10 < len(constant) < 80
    assert len({picture[0, 0].tobytes() for picture in constant}) > 5
    assert len({picture.tobytes() for picture in drawn}) > 180


def test_a_photo_is_drawn_upon_or_pasted(photo: np.ndarray) -> None:
    cut = photo[128:256, 128:256]
    drawn = [drawn_upon(cut, random.Random(i)) for i in range(40)]
    assert {picture.shape for picture in drawn} == {cut.shape}
    changed = [float((picture != cut).any(2).mean()) for picture in drawn]
    assert sum(share > 0 for share in changed) > 30  # some words begin beside the picture
    assert sum(share < 0.5 for share in changed) > 10


def test_training_sees_parts_of_the_crops(crops: Path) -> None:
    batch = next(Crops(crops, 64, seed=0).batches(3))
    assert batch.shape == (3, 3, 64, 64)
    assert batch.min() >= 0
    assert 0.2 < batch.max() <= 1
    assert not torch.equal(batch[0], batch[1])


def test_what_holds_no_such_crops_says_what_to_do(crops: Path, photos: Path) -> None:
    for file, size in ((photos, 64), (photos / "coffee.jpg", 64), (crops, 512)):
        with pytest.raises(SystemExit, match=r"python -m training\.crops"):
            Crops(file, size, seed=0)


def test_photos_too_small_are_said_to_be(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2048 pixels"):
        make(tmp_path / "crops.npy", [photos], count=4, size=2048, drawn=0, seed=0, apart=False)
    assert not list(tmp_path.iterdir())
