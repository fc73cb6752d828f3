"""mount(8) and /etc/fstab, on a machine of its own where the helper is installed."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from sdfs.owner.store.store import init
from tests.support import ROOT
from tests.support.machine import Machine, needs_machine
from tests.support.waiting import eventually

pytestmark = needs_machine

_numbers = itertools.count()


@pytest.fixture(scope="module")
def helped(machine: Machine) -> Machine:
    machine.done("sdfs", "service", "install", "--mount-helper")
    return machine


@pytest.fixture
def store(tmp_path: Path) -> Path:
    init(tmp_path / "my store")
    (tmp_path / "my store/file").write_text("content")
    (tmp_path / "mount").mkdir()
    return tmp_path / "my store"


@pytest.fixture
def mountpoint(store: Path) -> Path:
    return store.with_name("mount")


def mount(machine: Machine, *arguments: str | Path) -> tuple[int, str]:
    """Without any environment, as systemd may have it: its exit status, and what it says."""
    result = machine.run("/bin/mount", *arguments, environment={})
    return result.returncode, result.stdout + result.stderr


def test_mount_and_umount(helped: Machine, store: Path, mountpoint: Path) -> None:
    assert mount(helped, "-t", "fuse.sdfs", store, mountpoint) == (0, "")
    assert helped.done("cat", mountpoint / "file") == "content"
    helped.done("umount", mountpoint)
    assert str(mountpoint) not in helped.mounts()


def test_what_is_unmounted_can_be_mounted_at_once(helped: Machine, store: Path, mountpoint: Path) -> None:
    for _ in range(3):
        assert mount(helped, "-t", "fuse.sdfs", store, mountpoint) == (0, "")
        helped.done("umount", mountpoint)


def test_sdfs_umount_ends_it_too(helped: Machine, store: Path, mountpoint: Path) -> None:
    mount(helped, "-t", "fuse.sdfs", store, mountpoint)
    helped.done("sdfs", "umount", mountpoint)
    assert str(mountpoint) not in helped.mounts()


def test_a_line_of_fstab(helped: Machine, store: Path, mountpoint: Path) -> None:
    options = "defaults,allow_other,noatime,noauto,nofail,x-systemd.automount"
    line = rf"{store.parent}/my\040store {mountpoint} fuse.sdfs {options} 0 0"
    helped.done("sh", "-c", 'printf "%s\\n" "$1" >/etc/fstab', "sh", line)
    assert mount(helped, mountpoint) == (0, "")
    assert {"allow_other", "noatime"} <= set(helped.mounts()[str(mountpoint)].split(","))
    helped.done("umount", mountpoint)


def test_the_control_socket_is_where_it_outlives_logins(helped: Machine, store: Path, mountpoint: Path) -> None:
    mount(helped, "-t", "fuse.sdfs", store, mountpoint)
    assert helped.done("ls", "/run/sdfs").endswith(".sock\n")
    helped.done("umount", mountpoint)


def test_an_unknown_option_is_refused(helped: Machine, store: Path, mountpoint: Path) -> None:
    status, said = mount(helped, "-t", "fuse.sdfs", store, mountpoint, "-o", "no_such_option")
    assert status == 1
    assert said.startswith("mount.fuse.sdfs: mount option no_such_option")
    assert str(mountpoint) not in helped.mounts()


def test_an_unknown_option_is_passed_over_if_told_so(helped: Machine, store: Path, mountpoint: Path) -> None:
    assert mount(helped, "-s", "-t", "fuse.sdfs", store, mountpoint, "-o", "no_such_option,ro") == (0, "")
    assert "ro" in helped.mounts()[str(mountpoint)].split(",")
    helped.done("umount", mountpoint)


def test_a_fake_mount_mounts_nothing(helped: Machine, store: Path, mountpoint: Path) -> None:
    assert mount(helped, "-f", "-t", "fuse.sdfs", store, mountpoint)[0] == 0
    assert str(mountpoint) not in helped.mounts()


def test_a_verbose_mount_says_what_it_did(helped: Machine, store: Path, mountpoint: Path) -> None:
    said = mount(helped, "-v", "-t", "fuse.sdfs", store, mountpoint)[1]
    assert f"{store} is mounted at {mountpoint}" in said
    helped.done("umount", mountpoint)


def test_a_failure_has_the_exit_status_that_mount_has_for_it(helped: Machine, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    status, said = mount(helped, "-t", "fuse.sdfs", tmp_path / "mount", tmp_path / "mount")
    assert status == 32
    assert "is no SDFS store" in said


def test_a_wrong_call_has_the_exit_status_that_mount_has_for_it(helped: Machine) -> None:
    assert helped.run("mount.fuse.sdfs", "only-one").returncode == 1


def test_an_automounter_can_mount(helped: Machine, store: Path, mountpoint: Path) -> None:
    automounter = helped.start(
        sys.executable, ROOT / "tests/support/automounter.py", mountpoint, "/bin/mount", "-t", "fuse.sdfs", store, mountpoint
    )
    eventually(lambda: " autofs " in helped.done("cat", "/proc/mounts"), "the automounter is there")
    assert helped.done("timeout", "20", "cat", mountpoint / "file") == "content"
    helped.done("umount", mountpoint)
    automounter.terminate()


def test_the_helper_is_gone_once_it_is_removed(helped: Machine, store: Path, mountpoint: Path) -> None:
    helped.done("sdfs", "service", "remove", "--mount-helper")
    assert mount(helped, "-t", "fuse.sdfs", store, mountpoint)[0] != 0
    helped.done("sdfs", "service", "install", "--mount-helper")
