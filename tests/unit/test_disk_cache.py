"""sdfs.owner.renders.disk_cache.DiskCache: it never gives a byte that was not put, and never takes more than it may."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.errors import UserError
from sdfs.owner.renders.disk_cache import DiskCache

RENDER = bytes(range(256)) * 8
SIZE = len(RENDER)
FILE_SIZE = SIZE + 32


def key(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def disk(folder: Path) -> Iterator[DiskCache]:
    disk = DiskCache(str(folder))
    yield disk
    disk.close()


def kept(folder: Path, *numbers: int, max_bytes: int = 1 << 20, render: bytes = RENDER) -> None:
    """By an owner that has ended, one after the other."""
    for number in numbers:
        disk = DiskCache(str(folder), max_bytes)
        disk.put(key(number), render)
        disk.close()


def numbers_in(folder: Path) -> set[int]:
    return {int(path.stem, 16) for path in folder.glob("*.render")}


def file_of(folder: Path, number: int = 1) -> Path:
    return folder / f"{key(number)}.render"


def test_what_one_owner_kept_another_gets(folder: Path, disk: DiskCache) -> None:
    kept(folder, 1)
    assert disk.get(key(1), SIZE) == RENDER
    assert (disk.hits, disk.misses) == (1, 0)


def test_what_is_not_there_is_a_miss(disk: DiskCache) -> None:
    assert disk.get(key(1), SIZE) is None
    assert (disk.hits, disk.misses) == (0, 1)


def test_an_empty_render(folder: Path, disk: DiskCache) -> None:
    kept(folder, 1, render=b"")
    assert disk.get(key(1), 0) == b""


@pytest.mark.parametrize("position", [0, 31, 32, 33, FILE_SIZE // 2, FILE_SIZE - 1])
def test_a_flipped_bit_is_a_miss_and_the_file_is_removed(folder: Path, disk: DiskCache, position: int) -> None:
    kept(folder, 1)
    data = bytearray(file_of(folder).read_bytes())
    data[position] ^= 1
    file_of(folder).write_bytes(data)
    assert disk.get(key(1), SIZE) is None
    assert not file_of(folder).exists()


@pytest.mark.parametrize("size", [0, 1, 32, FILE_SIZE - 1, FILE_SIZE + 1])
def test_a_file_of_another_size_is_a_miss_and_removed(folder: Path, disk: DiskCache, size: int) -> None:
    kept(folder, 1)
    os.truncate(file_of(folder), size)
    assert disk.get(key(1), SIZE) is None
    assert not file_of(folder).exists()


def test_a_file_without_its_data_after_a_power_loss_is_a_miss(folder: Path, disk: DiskCache) -> None:
    kept(folder, 1)
    file_of(folder).write_bytes(bytes(FILE_SIZE))
    assert disk.get(key(1), SIZE) is None


def test_a_link_is_not_followed(folder: Path, disk: DiskCache, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(hashlib.sha256(RENDER).digest() + RENDER)
    file_of(folder).symlink_to(tmp_path / "elsewhere")
    assert disk.get(key(1), SIZE) is None


def test_a_damaged_file_is_replaced(folder: Path) -> None:
    kept(folder, 1)
    os.truncate(file_of(folder), 5)
    kept(folder, 1)
    disk = DiskCache(str(folder))
    assert disk.get(key(1), SIZE) == RENDER
    disk.close()


# the bound


def test_it_never_holds_more_than_its_bound(folder: Path) -> None:
    disk = DiskCache(str(folder), 5 * FILE_SIZE)
    for number in range(12):
        disk.put(key(number), RENDER)
        disk.close()
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 5 * FILE_SIZE
        disk = DiskCache(str(folder), 5 * FILE_SIZE)
    disk.close()
    assert len(numbers_in(folder)) >= 4


def test_one_owner_never_holds_more_than_its_bound(folder: Path) -> None:
    disk = DiskCache(str(folder), 40 * FILE_SIZE)
    for number in range(100):
        disk.put(key(number), RENDER)
    disk.close()
    assert sum(path.stat().st_size for path in folder.iterdir()) == disk.size_bytes <= 40 * FILE_SIZE


def test_the_least_recently_read_goes_first(folder: Path) -> None:
    kept(folder, 1, 2, 3)
    for number in (1, 2, 3):
        os.utime(file_of(folder, number), (number, number))
    disk = DiskCache(str(folder), 4 * FILE_SIZE)
    assert disk.get(key(1), SIZE) == RENDER
    disk.put(key(4), RENDER)
    disk.put(key(5), RENDER)
    disk.close()
    assert numbers_in(folder) == {1, 3, 4, 5}


def test_what_exceeds_the_bound_alone_is_not_kept(folder: Path) -> None:
    kept(folder, 1, max_bytes=FILE_SIZE)
    kept(folder, 2, max_bytes=FILE_SIZE - 1)
    assert numbers_in(folder) <= {1}


def test_a_lower_bound_than_last_time_counts_at_once(folder: Path) -> None:
    kept(folder, *range(8))
    DiskCache(str(folder), 2 * FILE_SIZE).close()
    assert len(numbers_in(folder)) <= 2


# the folder


def test_nobody_else_may_look(folder: Path) -> None:
    mask = os.umask(0)
    try:
        kept(folder, 1)
    finally:
        os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file_of(folder).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_may_enter_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with pytest.raises(UserError, match="0700"):
        DiskCache(str(folder))


def test_a_folder_that_cannot_be_made_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        DiskCache(str(folder / "deeper"))


def test_files_of_others_are_left_alone(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "photo.jpg").write_bytes(bytes(1000))
    kept(folder, 1, 2, max_bytes=FILE_SIZE)
    assert (folder / "photo.jpg").exists()


def test_what_a_killed_owner_left_goes_after_an_hour(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name, age in (("unfinished-old", 4000), ("unfinished-new", 10)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    DiskCache(str(folder)).close()
    assert [path.name for path in folder.iterdir()] == ["unfinished-new"]


def test_a_folder_that_is_gone_is_told_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = DiskCache(str(folder))
    folder.rename(folder.with_name("moved"))
    with caplog.at_level(logging.WARNING, "sdfs.owner.renders.disk_cache"):
        for number in range(3):
            disk.put(key(number), RENDER)
            assert disk.get(key(number), SIZE) is None
        disk.close()
    assert [record.message for record in caplog.records] == [f"{folder}: renders are not kept for now: No such file or directory"]


def test_after_its_end_nothing_is_kept(folder: Path) -> None:
    disk = DiskCache(str(folder))
    disk.close()
    disk.put(key(1), RENDER)
    assert numbers_in(folder) == set()


# several owners


def _write_and_read(folder: str, seed: int) -> None:
    disk = DiskCache(folder, 40 * FILE_SIZE)
    for turn in range(300):
        number = (turn * 7 + seed) % 50
        render = bytes([number]) * SIZE
        disk.put(key(number), render)
        assert disk.get(key(number), SIZE) in (None, render)
    disk.close()


def test_owners_that_write_at_the_same_time_never_get_a_wrong_byte(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    owners = [context.Process(target=_write_and_read, args=(str(folder), seed)) for seed in range(3)]
    for owner in owners:
        owner.start()
    for owner in owners:
        owner.join(60)
    assert [owner.exitcode for owner in owners] == [0, 0, 0]
    assert all(path.suffix == ".render" for path in folder.iterdir())
    assert len(numbers_in(folder)) <= 40 * (1 + 3 / 16)
