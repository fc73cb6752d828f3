"""Which filesystem a folder is on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdfs.owner.store.fitness import refuse_unfit
from sdfs.system.mounts import mounts, parse, type_of

MOUNTINFO = """\
23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
24 23 0:21 / /proc rw,nosuid shared:2 master:1 - proc proc rw
60 23 0:45 / /mnt/nas rw,relatime - nfs4 nas:/export rw,vers=4.2
61 60 0:46 / /mnt/nas/my\\040photos\\011and\\134more rw - cifs //nas/photos rw
62 23 0:47 /@home /home rw,relatime shared:9 - btrfs /dev/vdb rw,subvol=/@home
63 23 0:48 / /mnt/over rw - fuse.sshfs host:/ rw
64 63 0:49 / /mnt/over rw - tmpfs tmpfs rw
"""
MOUNTS = parse(MOUNTINFO)


@pytest.mark.parametrize(
    ("path", "device", "found"),
    [
        ("/srv", (254, 0), "ext4"),
        ("/anywhere else", (0, 45), "nfs4"),
        ("/home/me", (0, 99), "btrfs"),
        ("/mnt/nas/store", (0, 98), "nfs4"),
        ("/mnt/nas2", (0, 98), "ext4"),
        ("/mnt/nas/my photos\tand\\more/2024", (0, 98), "cifs"),
        ("/mnt/over/store", (0, 98), "tmpfs"),
    ],
    ids=["by device", "by device wherever", "by path", "by the longest path", "not by half a name", "escaped", "the last mounted"],
)
def test_a_type_is_found(path: str, device: tuple[int, int], found: str) -> None:
    assert type_of(path, os.makedev(*device), MOUNTS) == found


def test_without_a_mount_there_is_none() -> None:
    assert type_of("/srv", 0, []) is None


def test_names_that_are_no_text_are_kept() -> None:
    [mount] = parse("60 23 0:45 / /mnt/\udcff\x85 rw - nfs nas:/ rw\n")
    assert mount.point == "/mnt/\udcff\x85"


def test_the_mounts_of_this_machine_are_read() -> None:
    assert type_of("/proc", Path("/proc").stat().st_dev, mounts()) == "proc"


def test_a_local_folder_is_let_pass(tmp_path: Path) -> None:
    refuse_unfit(str(tmp_path / "not" / "there"))
