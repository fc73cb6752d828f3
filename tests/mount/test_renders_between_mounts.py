"""Renders on a disk, in a real mount: of the options that say where, and of a disk that is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.control.answers import Statistics
from sdfs.owner.access import open_access
from tests.support.mounting import BACKGROUND, Mounted, needs_fuse

pytestmark = needs_fuse
PICTURE = b"\xff\xd8\xff" + b"picture " * 100_000 + b"END"


def statistics(mounted: Mounted) -> Statistics:
    with open_access(mounted.store) as access:
        return access.statistics()


def test_the_next_mount_reads_what_the_last_one_decoded(tmp_path: Path) -> None:
    with Mounted(tmp_path, f"disk_cache={tmp_path}/cache") as mounted:
        (mounted.path / "a.jpg").write_bytes(PICTURE)
        mounted.sync()
        assert (mounted.path / "a.jpg").read_bytes() == PICTURE
    with Mounted(tmp_path, f"disk_cache={tmp_path}/cache") as mounted:
        assert (mounted.path / "a.jpg").read_bytes() == PICTURE
        it = statistics(mounted)
        assert (it.decoded, it.disk_hits) == (0, 1)


@pytest.mark.parametrize("place", ["store/cache", "mount/cache", "store"])
def test_a_folder_inside_store_or_mount_is_refused(tmp_path: Path, place: str) -> None:
    mounted = Mounted(tmp_path)
    command = [*BACKGROUND, str(mounted.store), str(mounted.path), f"disk_cache={tmp_path / place}"]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode != 0
    assert "take one elsewhere" in failed.stderr
    assert not os.path.ismount(mounted.path)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
def test_a_full_disk_is_logged_once_and_keeps_nobody_from_reading(tmp_path: Path, full_disk: Path) -> None:
    with Mounted(tmp_path, f"disk_cache={full_disk}") as mounted:
        for name in ("a.jpg", "b.jpg"):
            (mounted.path / name).write_bytes(PICTURE.replace(b"picture", name.encode() + b"  "))
        mounted.sync()
        for name in ("a.jpg", "b.jpg"):
            assert (mounted.path / name).read_bytes() == PICTURE.replace(b"picture", name.encode() + b"  ")
    assert mounted.log.read_text().count("renders are not kept for now: No space left on device") == 1
    assert list(full_disk.iterdir()) == []
