"""Mounting, unmounting, being killed, and being mounted again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.errors import MountError, NotAStore, StoreBusy, UserError
from sdfs.mount.mounting import run, unmount
from sdfs.owner.access import open_access
from sdfs.owner.store.store import init
from tests.support import ROOT
from tests.support.mounting import BACKGROUND, LOSSLESS, Mounted, is_mounted, needs_fuse
from tests.support.waiting import eventually

pytestmark = needs_fuse

PICTURE = b"\xff\xd8\xff" + b"picture " * 5000 + b"END"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    init(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    (tmp_path / "mount").mkdir()
    return tmp_path / "mount"


class TestRefusals:
    def test_a_folder_that_is_no_store(self, tmp_path: Path, mountpoint: Path) -> None:
        with pytest.raises(NotAStore, match="sdfs init"):
            run(tmp_path, mountpoint)

    def test_a_mountpoint_in_a_folder_that_is_not_there(self, store: Path, tmp_path: Path) -> None:
        with pytest.raises(MountError, match="not there"):
            run(store, tmp_path / "no" / "where")

    def test_a_mountpoint_that_is_a_file(self, store: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(MountError, match="no folder"):
            run(store, tmp_path / "file")

    def test_a_mountpoint_inside_the_store(self, store: Path) -> None:
        (store / "d").mkdir()
        with pytest.raises(MountError, match="inside the store"):
            run(store, store / "d")

    def test_the_store_itself_as_the_mountpoint(self, store: Path) -> None:
        with pytest.raises(MountError, match="inside the store"):
            run(store, store)

    def test_a_mountpoint_that_would_hide_the_store(self, store: Path, tmp_path: Path) -> None:
        with pytest.raises(MountError, match="would hide it"):
            run(store, tmp_path)

    def test_a_mountpoint_that_is_not_empty(self, store: Path, mountpoint: Path) -> None:
        (mountpoint / "file").touch()
        with pytest.raises(MountError, match="not empty"):
            run(store, mountpoint)

    def test_a_mountpoint_in_use(self, tmp_path: Path, store: Path) -> None:
        init(tmp_path / "other")
        with Mounted(tmp_path) as mounted, pytest.raises(MountError, match="already"):
            run(tmp_path / "other", mounted.path)

    def test_a_second_mount_names_the_owner(self, tmp_path: Path) -> None:
        with Mounted(tmp_path) as mounted, pytest.raises(StoreBusy, match=f"process {mounted.process.pid}"):
            run(mounted.store, tmp_path / "second")
        (tmp_path / "second").rmdir()

    def test_an_option_that_is_not_taken(self, store: Path, mountpoint: Path) -> None:
        with pytest.raises(UserError, match="foreground"):
            run(store, mountpoint, options="ro,foreground")

    def test_unmounting_what_is_not_mounted(self, mountpoint: Path) -> None:
        with pytest.raises(MountError, match="cannot be unmounted"):
            unmount(mountpoint)


def test_a_mountpoint_that_is_not_empty_is_taken_if_told_so(tmp_path: Path, mountpoint: Path) -> None:
    (mountpoint / "file").touch()
    with Mounted(tmp_path, "nonempty") as mounted:
        assert list(mounted.path.iterdir()) == []


def test_the_kernel_gets_the_options_that_it_heeds(tmp_path: Path) -> None:
    with Mounted(tmp_path, "noexec,dev,noauto,x-systemd.automount") as mounted:
        [options] = [line.split()[3] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == str(mounted.path)]
        assert {"rw", "noexec", "nosuid", "default_permissions"} <= set(options.split(","))
        assert "nodev" not in options.split(",")


def test_in_the_background_it_returns_once_the_mount_is_there(store: Path, mountpoint: Path) -> None:
    command = [*BACKGROUND, str(store), str(mountpoint)]
    subprocess.run(command, check=True, env=ENVIRONMENT, timeout=30, capture_output=True)
    try:
        assert is_mounted(mountpoint)
        (mountpoint / "a").write_bytes(b"content")
    finally:
        unmount(mountpoint)
    assert (store / "a").read_bytes() == b"content"


def test_in_the_background_a_log_that_cannot_be_written_is_no_error(store: Path, mountpoint: Path) -> None:
    (store / ".sdfs" / "log").mkdir()
    command = [*BACKGROUND, str(store), str(mountpoint)]
    result = subprocess.run(command, check=True, env=ENVIRONMENT, timeout=30, capture_output=True, text=True)
    unmount(mountpoint)
    assert "no log" in result.stderr


def test_in_the_background_an_error_reaches_who_asked(store: Path, tmp_path: Path) -> None:
    with Mounted(tmp_path):
        command = [*BACKGROUND, str(store), str(tmp_path / "second")]
        result = subprocess.run(command, env=ENVIRONMENT, timeout=30, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "StoreBusy" in result.stderr
    (tmp_path / "second").rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up the right to mount")
def test_in_the_background_a_refusal_of_the_kernel_reaches_who_asked(store: Path, mountpoint: Path) -> None:
    command = ["setpriv", "--bounding-set=-sys_admin", *BACKGROUND, str(store), str(mountpoint)]
    result = subprocess.run(command, env=ENVIRONMENT, timeout=30, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Operation not permitted" in result.stderr
    assert "MountError" in result.stderr


def test_unmount_waits_for_the_owner_to_end(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        unmount(mounted.path)
        with open_access(mounted.store) as access:
            assert access.status().pid == os.getpid()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_mount_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with Mounted(tmp_path) as mounted:
        (mounted.path / "a").write_bytes(b"content")
        mounted.process.send_signal(number)
        assert mounted.process.wait(10) == 0
        assert not is_mounted(mounted.path)


def test_shutdown_unmounts(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        with open_access(mounted.store) as access:
            access.shutdown()
        assert mounted.process.wait(10) == 0


def test_a_lazy_unmount_goes_while_a_file_is_open(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        with (mounted.path / "a").open("wb") as file:
            with pytest.raises(MountError):
                unmount(mounted.path)
            unmount(mounted.path, lazy=True)
            assert not is_mounted(mounted.path)
            file.write(b"content")
        assert mounted.process.wait(10) == 0
        assert (mounted.store / "a").read_bytes() == b"content"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a mount namespace")
def test_the_owner_stays_while_another_mount_namespace_has_a_copy_of_the_mount(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        (mounted.path / "a").write_bytes(b"content")
        script = 'echo copied; read line; cat "$1/a"'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", mounted.path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "copied\n"
            unmount(mounted.path, lazy=True)
            assert not is_mounted(mounted.path)
            assert other.communicate("\n", timeout=30)[0] == "content"
        assert mounted.process.wait(30) == 0


def test_a_store_can_be_mounted_again(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        (mounted.path / "a.jpg").write_bytes(PICTURE)
        mounted.sync()
    with Mounted(tmp_path) as mounted:
        assert (mounted.path / "a.jpg").read_bytes() == PICTURE


def test_what_was_pending_at_the_end_is_taken_up_at_the_next_mount(tmp_path: Path) -> None:
    with Mounted(tmp_path) as mounted:
        (mounted.path / "a.jpg").write_bytes(PICTURE)
    assert not container.is_blob((mounted.store / "a.jpg").read_bytes())
    with Mounted(tmp_path) as mounted:
        eventually(lambda: container.is_blob((mounted.store / "a.jpg").read_bytes()), "a blob")


def test_a_read_only_mount_changes_nothing(tmp_path: Path, store: Path) -> None:
    (store / "a.jpg").write_bytes(PICTURE)
    with Mounted(tmp_path, "ro") as mounted:
        with pytest.raises(OSError, match="Read-only"):
            (mounted.path / "b").touch()
        time.sleep(0.2)  # nothing is to happen: there is nothing to wait for
    assert (store / "a.jpg").read_bytes() == PICTURE


@pytest.fixture
def read_only_store(store: Path, tmp_path: Path) -> Iterator[Path]:
    """A store with `a.jpg`, which is pending, on a filesystem that is mounted read-only."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a filesystem read-only")
    (store / "a.jpg").write_bytes(PICTURE)
    subprocess.run(["mount", "--bind", store, store], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
    yield store
    subprocess.run(["umount", store], check=True)


class TestAStoreOnAReadOnlyFilesystem:
    def test_is_mounted_read_only(self, read_only_store: Path, tmp_path: Path) -> None:
        with Mounted(tmp_path) as mounted:
            assert (mounted.path / "a.jpg").read_bytes() == PICTURE
            with pytest.raises(OSError, match="Read-only"):
                (mounted.path / "b").touch()
            assert os.statvfs(mounted.path).f_flag & os.ST_RDONLY

    def test_says_so(self, read_only_store: Path, tmp_path: Path) -> None:
        with Mounted(tmp_path) as mounted:
            assert "read-only" in mounted.log.read_text()

    def test_can_be_mounted_in_the_background_without_a_log(self, read_only_store: Path, mountpoint: Path) -> None:
        command = [*BACKGROUND, str(read_only_store), str(mountpoint)]
        result = subprocess.run(command, check=True, env=ENVIRONMENT, timeout=30, capture_output=True, text=True)
        try:
            assert (mountpoint / "a.jpg").read_bytes() == PICTURE
            assert "no log" in result.stderr
        finally:
            unmount(mountpoint)


class TestKilled:
    def test_the_store_can_be_mounted_again_at_the_same_place(self, tmp_path: Path) -> None:
        with Mounted(tmp_path) as mounted:
            (mounted.path / "a").write_bytes(b"content")
            mounted.kill()
            with Mounted(tmp_path) as again:
                assert (again.path / "a").read_bytes() == b"content"
                assert "dead mount" in again.log.read_text()

    def test_in_the_background_it_is_said_that_a_dead_mount_was_there(self, tmp_path: Path) -> None:
        with Mounted(tmp_path) as mounted:
            mounted.kill()
            command = [*BACKGROUND, str(mounted.store), str(mounted.path)]
            result = subprocess.run(command, check=True, env=ENVIRONMENT, timeout=30, capture_output=True, text=True)
            unmount(mounted.path)
            assert "dead mount" in result.stderr

    def test_what_was_not_committed_is_as_it_was(self, tmp_path: Path) -> None:
        with Mounted(tmp_path) as mounted:
            (mounted.path / "a.jpg").write_bytes(PICTURE)
            mounted.sync()
            file = (mounted.path / "a.jpg").open("r+b", buffering=0)
            file.write(b"XYZ")
            mounted.kill()
            with pytest.raises(OSError):  # noqa: PT011  # whichever the kernel says of a dead mount
                file.close()
            with Mounted(tmp_path) as again:
                assert (again.path / "a.jpg").read_bytes() == PICTURE
                assert list((again.store / ".sdfs" / "staging").iterdir()) == []

    def test_user_bytes_that_look_like_a_blob_are_never_taken_for_one(self, tmp_path: Path) -> None:
        theirs = container.pack(container.KIND_RAW, 3, {"note": "theirs"}, {"file": b"abc"})
        with Mounted(tmp_path) as mounted:
            file = (mounted.path / "a").open("wb", buffering=0)
            file.write(theirs)
            mounted.kill()
            with Mounted(tmp_path) as again:
                assert (again.path / "a").read_bytes() == b""
            with pytest.raises(OSError):  # noqa: PT011  # whichever the kernel says of a dead mount
                file.close()

    def test_what_was_unlinked_while_open_is_swept(self, tmp_path: Path) -> None:
        with Mounted(tmp_path) as mounted:
            file = (mounted.path / "a").open("w+b", buffering=0)
            file.write(b"content")
            (mounted.path / "a").unlink()
            assert [path.name[:12] for path in mounted.store.iterdir() if path.name != ".sdfs"] == [".fuse_hidden"]
            mounted.kill()
            with Mounted(tmp_path) as again:
                eventually(lambda: list(again.path.iterdir()) == [], "swept")
            with pytest.raises(OSError):  # noqa: PT011  # whichever the kernel says of a dead mount
                file.close()


def test_the_owner_of_a_mount_loads_nothing_heavy(tmp_path: Path) -> None:
    with Mounted(tmp_path, command=LOSSLESS) as mounted:
        maps = Path(f"/proc/{mounted.process.pid}/maps").read_text()
        assert not [name for name in ("torch", "imagecodecs", "constriction", "PIL") if f"/{name}/" in maps]
