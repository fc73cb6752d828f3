"""The commands beside a mount, and the two that make and end it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from sdfs.cli import exit_codes
from sdfs.owner.store.store import is_owned
from tests.support.commands import COMMAND, ENVIRONMENT, done, fails, mounted
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no /dev/fuse")


def test_a_mount_is_there_when_mount_returns(store: Path) -> None:
    with mounted(store) as mount:
        assert (mount / "notes.txt").read_text() == "plain text\n"


def test_a_store_is_free_when_umount_returns(store: Path) -> None:
    with mounted(store) as mount:
        done("umount", mount)
        assert not os.path.ismount(mount)
        done("ls", store)


def test_a_foreground_mount_ends_with_ctrl_c(store: Path) -> None:
    mount = store.with_name("mount")
    with subprocess.Popen([*COMMAND, "mount", "-f", store, mount], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: process.poll() is not None or os.path.ismount(mount), "it is mounted")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not os.path.ismount(mount)


def test_a_mount_passes_its_options_on(store: Path) -> None:
    mount = store.with_name("mount")
    done("mount", store, mount, "-o", "ro")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (mount / "new").touch()
    finally:
        done("umount", mount)


def test_a_second_mount_is_refused(store: Path) -> None:
    with mounted(store):
        fails(exit_codes.BUSY, "mount", store, store.with_name("second"))


def test_a_mount_of_no_store_is_refused(tmp_path: Path) -> None:
    fails(exit_codes.NOT_A_STORE, "mount", tmp_path, tmp_path.with_name("mount"))


def test_a_mount_inside_the_store_is_refused(store: Path) -> None:
    fails(exit_codes.MOUNT, "mount", store, store / "folder")


def test_umount_of_what_is_no_mount_is_refused(tmp_path: Path) -> None:
    fails(exit_codes.MOUNT, "umount", tmp_path)


def test_umount_of_a_mount_in_use_is_refused_unless_lazy(store: Path) -> None:
    with mounted(store) as mount:
        with (mount / "notes.txt").open():
            fails(exit_codes.MOUNT, "umount", mount)
            done("umount", "--lazy", mount)
            assert not os.path.ismount(mount)
        eventually(lambda: not is_mounted_anywhere(mount) and not is_owned(store), "the owner has ended")
        done("mount", store, mount)


def is_mounted_anywhere(mountpoint: Path) -> bool:
    """Whether a process has the mount, in whatever namespace: one that was made while it was there has a copy, and keeps the owner."""
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):  # the process has ended
            if f" {mountpoint} " in mounts.read_text():
                return True
    return False


def test_a_mount_and_its_store_name_the_same_files(store: Path) -> None:
    with mounted(store) as mount:
        assert done("stat", "--json", mount / "folder/inner.txt") == done("stat", "--json", store / "folder/inner.txt")


def test_commands_work_beside_a_mount(store: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    with mounted(store) as mount:
        done("add", mount, tmp_path / "new", "--to", "folder")
        assert (mount / "folder/new").read_text() == "new"
        assert done("ls", mount / "folder").splitlines() == ["inner.txt", "new"]
        assert done("cat", mount / "folder/new") == "new"
        done("get", mount / "folder", "--output", tmp_path / "out")
        assert (tmp_path / "out/folder/new").read_text() == "new"


def test_a_picture_copied_into_a_mount_is_latent_after_sync(store: Path, picture: Path) -> None:
    with mounted(store) as mount:
        shutil.copy(picture, mount / "photo.jpg")
        done("sync", mount)
        [status] = json.loads(done("stat", "--json", mount / "photo.jpg"))
        assert status["state"] == "latent"
        assert len((mount / "photo.jpg").read_bytes()) == picture.stat().st_size


def test_what_the_mount_says_of_a_file_is_what_stat_says(shrunk: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    subprocess.run(["cp", "-r", shrunk, store], check=True)
    with mounted(store) as mount:
        [status] = json.loads(done("stat", "--json", mount / "2024/photo.jpg"))
        assert json.loads(os.getxattr(mount / "2024/photo.jpg", "user.sdfs.status")) == status


def test_stat_of_a_mount_tells_where_it_is(store: Path) -> None:
    with mounted(store) as mount:
        [status] = json.loads(done("stat", "--json", mount))
        assert status["mountpoint"] == str(mount)
