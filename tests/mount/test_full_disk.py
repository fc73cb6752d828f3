"""A full disk: errors reach the writer, nothing that was stored is lost, and everything goes on once there is room."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.owner.access import open_access
from sdfs.owner.store.store import Store, init
from tests.support.mounting import Mounted, needs_fuse
from tests.support.waiting import eventually

pytestmark = [needs_fuse, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs"), pytest.mark.timeout(120)]

SIZE = 4 << 20
PICTURE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 2000 + b"END"  # 512 kB, which the lossless engine shrinks to a fraction
OTHER = PICTURE[:4] + bytes(range(255, -1, -1)) * 2000 + b"END"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Mounted]:
    """A mounted store on a tmpfs of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], check=True)
    try:
        with Mounted(disk) as mounted:
            yield mounted
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MiB, for 60 files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},nr_inodes=60", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 4 MiB, with blocks of 1 KiB, so that every fourth long name has a folder grow."""
    if shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        pytest.skip("needs mkfs.ext4 and loop devices")
    disk, image = tmp_path / "ext4", tmp_path / "image"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-m", "0", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def store(disk: Path) -> Iterator[Store]:
    init(disk / "store")
    store = Store(disk / "store")
    yield store
    store.close()


def write_forever(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def edit(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(1000)
        file.write(b"edit")
        os.fsync(file.fileno())


def fill(path: Path) -> None:
    """Take all room that is left."""
    with pytest.raises(OSError, match="No space left") as raised:
        write_forever(path)
    assert raised.value.errno == errno.ENOSPC


def test_the_writer_is_told(small: Mounted) -> None:
    fill(small.path / "filler")
    with pytest.raises(OSError, match="No space left"):
        (small.path / "more").write_bytes(bytes(100_000))


def test_what_was_stored_stays(small: Mounted) -> None:
    (small.path / "text").write_bytes(b"text" * 1000)
    (small.path / "photo.jpg").write_bytes(PICTURE)
    small.sync()
    fill(small.path / "filler")
    assert (small.path / "text").read_bytes() == b"text" * 1000
    assert (small.path / "photo.jpg").read_bytes() == PICTURE


def test_a_blob_that_cannot_be_copied_up_stays_whole(small: Mounted) -> None:
    photo = small.path / "photo.jpg"
    photo.write_bytes(PICTURE)
    small.sync()
    assert small.state("photo.jpg") == "exact"
    fill(small.path / "filler")
    with pytest.raises(OSError, match="No space left"):
        edit(photo)
    assert photo.read_bytes() == PICTURE
    (small.path / "filler").unlink()
    edit(photo)
    assert photo.read_bytes() == PICTURE[:1000] + b"edit" + PICTURE[1004:]


def test_a_picture_that_cannot_be_swapped_waits_for_room(small: Mounted) -> None:
    photo = small.path / "photo.jpg"
    with photo.open("wb") as file:
        file.write(PICTURE)
        file.flush()
        fill(small.path / "filler")  # while it is open, so that it is still pending
    assert photo.read_bytes() == PICTURE
    assert small.state("photo.jpg") == "pending"
    (small.path / "filler").unlink()
    eventually(lambda: small.state("photo.jpg") == "exact", "swapped once there is room")
    assert photo.read_bytes() == PICTURE


def test_rename_over_a_file_works_without_room(small: Mounted) -> None:
    (small.path / "old").write_bytes(b"old")
    (small.path / "new").write_bytes(b"new")
    fill(small.path / "filler")
    (small.path / "new").rename(small.path / "old")
    assert (small.path / "old").read_bytes() == b"new"


def test_a_store_on_a_full_disk_can_be_mounted(disk: Path) -> None:
    init(disk / "store")
    (disk / "mount").mkdir()
    fill(disk / "filler")
    with Mounted(disk) as mounted:
        assert list(mounted.path.iterdir()) == []


def put_into_trash(store: Store, *names: str) -> None:
    """Files of 256 KiB."""
    for name in names:
        path = Path(store.root, name)
        path.write_bytes(bytes(1 << 18))
        store.keep(str(path))
        path.unlink()


def trash(store: Path) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in (store / ".sdfs" / "trash").iterdir())


class TestTheTrashIsGivenUp:
    def test_the_oldest_first_until_a_20th_of_the_disk_is_free(self, disk: Path, store: Store) -> None:
        put_into_trash(store, "a", "b", "c")
        fill(disk / "filler")
        store.expire_trash(time.time())
        assert trash(disk / "store") == ["b", "c"]

    def test_not_while_there_is_room(self, disk: Path, store: Store) -> None:
        put_into_trash(store, "a")
        store.expire_trash(time.time())
        assert trash(disk / "store") == ["a"]

    def test_the_oldest_first_for_what_is_staged(self, disk: Path, store: Store) -> None:
        put_into_trash(store, "a", "b", "c", "d", "e", "f")
        fill(disk / "filler")
        store.stage(bytes(1 << 10)).discard()
        assert trash(disk / "store") == ["f"]

    def test_not_in_vain(self, disk: Path, store: Store) -> None:
        put_into_trash(store, "a")
        fill(disk / "filler")
        with pytest.raises(OSError, match="No space left"):
            store.stage(bytes(1 << 20))
        assert trash(disk / "store") == ["a"]

    def test_but_never_what_has_another_name(self, disk: Path, store: Store) -> None:
        path = Path(store.root, "a")
        path.write_bytes(bytes(1 << 18))
        store.keep(str(path))
        fill(disk / "filler")
        with pytest.raises(OSError, match="No space left"):
            store.stage(bytes(1 << 17))
        assert trash(disk / "store") == ["a"]

    def test_for_a_name_where_there_are_no_more_inodes(self, disk: Path, store: Store) -> None:
        put_into_trash(store, "a")
        for number in range(60):
            with contextlib.suppress(OSError):
                (disk / f"filler{number}").touch()
        store.stage().discard()
        assert trash(disk / "store") == []


@pytest.fixture
def crowded(small: Mounted) -> Mounted:
    """A mounted store that has shrunk pictures, whose originals in the trash have all the room that is left on the disk."""
    (small.path / "photo.jpg").write_bytes(PICTURE)
    (small.path / "other.jpg").write_bytes(OTHER)
    small.sync()
    assert trash(small.store) == ["other.jpg", "photo.jpg"]
    fill(small.store.parent / "filler")
    return small


class TestTrashMakesRoomFor:
    def test_a_new_file(self, crowded: Mounted) -> None:
        (crowded.path / "new").write_bytes(b"new" * 10_000)
        assert (crowded.path / "new").read_bytes() == b"new" * 10_000
        assert trash(crowded.store) == []

    def test_a_copy_up(self, crowded: Mounted) -> None:
        edit(crowded.path / "photo.jpg")
        assert (crowded.path / "photo.jpg").read_bytes() == PICTURE[:1000] + b"edit" + PICTURE[1004:]

    def test_an_allocation(self, crowded: Mounted) -> None:
        with (crowded.path / "new").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 100_000)
        assert (crowded.path / "new").stat().st_size == 100_000

    def test_renames_into_a_folder_that_grows(self, ext4: Path) -> None:
        with Mounted(ext4) as small:
            (small.path / "to").mkdir()
            names = [f"{number:0240}" for number in range(32)]
            for name in names:
                (small.path / name).touch()
            (small.path / "photo.jpg").write_bytes(PICTURE)
            small.sync()
            fill(ext4 / "filler")
            for name in names:
                (small.path / name).rename(small.path / "to" / name)
            assert sorted(path.name for path in (small.path / "to").iterdir()) == names
            assert trash(small.store) == []

    def test_what_is_added(self, crowded: Mounted, tmp_path: Path) -> None:
        (tmp_path / "text").write_bytes(b"text" * 10_000)
        with open_access(crowded.store) as access:
            access.add(tmp_path / "text", "text")
        assert (crowded.path / "text").read_bytes() == b"text" * 10_000

    def test_a_swap(self, small: Mounted) -> None:
        (small.path / "photo.jpg").write_bytes(PICTURE)
        small.sync()
        with (small.path / "other.jpg").open("wb") as file:  # pending while it is open
            file.write(OTHER)
            file.flush()
            fill(small.store.parent / "filler")
        small.sync()
        assert small.state("other.jpg") == "exact"
        assert (small.path / "other.jpg").read_bytes() == OTHER
