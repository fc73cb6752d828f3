"""A full disk: errors reach the writer, nothing that was stored is lost, and everything goes on once there is room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.store import init
from tests.mount.mounting import Mounted, eventually, needs_fuse

pytestmark = [needs_fuse, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs"), pytest.mark.timeout(120)]

SIZE = 4 << 20
PICTURE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 2000 + b"END"  # 512 kB, which the lossless engine shrinks to a fraction


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
    eventually(lambda: small.state("photo.jpg") == "exact", "swapped once there is room", 30)
    assert photo.read_bytes() == PICTURE


def test_rename_over_a_file_works_without_room(small: Mounted) -> None:
    (small.path / "old").write_bytes(b"old")
    (small.path / "new").write_bytes(b"new")
    fill(small.path / "filler")
    (small.path / "new").rename(small.path / "old")
    assert (small.path / "old").read_bytes() == b"new"


def test_a_store_on_a_full_disk_can_be_mounted(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        init(disk / "store")
        fill(disk / "filler")
        with Mounted(tmp_path / "disk") as mounted:
            assert list(mounted.path.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)
