"""The units of a user, as installed, under a real service manager."""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.installation.units import DAEMON, MARKER, mount_unit
from sdfs.owner.store.store import init
from tests.support.machine import Machine, needs_machine, needs_systemd
from tests.support.waiting import eventually

pytestmark = [needs_machine, needs_systemd]

PICTURE = "sklearn/datasets/images/flower.jpg"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def user(machine: Machine) -> Machine:
    """A user for whom systemd runs, and restarts without much ado."""
    machine.start_systemd()
    drop_ins = machine.home / ".config/systemd/user/sdfs-mount@.service.d"
    drop_ins.mkdir(parents=True)
    (drop_ins / "test.conf").write_text("[Unit]\nStartLimitBurst=100\n[Service]\nRestartSec=0.1\nWatchdogSec=1\n")
    return machine


class Mount:
    """A store that is mounted by a unit."""

    def __init__(self, user: Machine) -> None:
        self._user = user
        self.store = user.home / f"store {next(_numbers)}"
        self.mountpoint = user.home / f"50% of-my ${{pictures}} {next(_numbers)}"
        self.unit = mount_unit(str(self.mountpoint))
        init(self.store)
        (self.store / "file").write_text("content")

    def is_there(self) -> bool:
        return str(self.mountpoint) in self._user.mounts()

    def read(self) -> str:
        return self._user.done("cat", self.mountpoint / "file")

    def state(self) -> tuple[str, str]:
        return self._user.property(self.unit, "ActiveState"), self._user.property(self.unit, "Result")

    def signal(self, number: signal.Signals) -> None:
        self._user.done("kill", f"-{number}", self._user.property(self.unit, "MainPID"))

    def restarts(self) -> int:
        return int(self._user.property(self.unit, "NRestarts"))


@pytest.fixture
def mount(user: Machine) -> Iterator[Mount]:
    mount = Mount(user)
    user.done("sdfs", "service", "install", "--mount", mount.store, mount.mountpoint)
    yield mount
    user.done("sdfs", "service", "remove", "--mount", mount.mountpoint)
    assert not mount.is_there()


def systemctl(user: Machine, *arguments: str) -> str:
    return user.done("systemctl", "--user", *arguments)


def test_a_mount_is_there_when_it_is_installed(user: Machine, mount: Mount) -> None:
    assert mount.read() == "content"
    assert user.property(mount.unit, "StatusText") == f"{mount.store} is mounted at {mount.mountpoint}"


def test_a_mount_is_there_again_when_its_user_is(user: Machine, mount: Mount) -> None:
    assert user.property(mount.unit, "UnitFileState") == "enabled"
    assert "default.target" in user.property(mount.unit, "WantedBy")


def test_a_mount_has_the_options_it_was_installed_with(user: Machine) -> None:
    mount = Mount(user)
    user.done("sdfs", "service", "install", "--mount", mount.store, mount.mountpoint, "-o", "ro,noexec")
    assert {"ro", "noexec"} <= set(user.mounts()[str(mount.mountpoint)].split(","))
    user.done("sdfs", "service", "remove", "--mount", mount.mountpoint)


def test_a_mount_that_is_stopped_is_gone(user: Machine, mount: Mount) -> None:
    systemctl(user, "stop", mount.unit)
    assert not mount.is_there()
    assert mount.state() == ("inactive", "success")


def test_a_mount_is_stopped_while_a_file_is_open(user: Machine, mount: Mount) -> None:
    reader = user.start("sh", "-c", 'exec <"$1"; echo opened; exec sleep infinity', "sh", mount.mountpoint / "file", stdout=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "opened\n"
    systemctl(user, "stop", mount.unit)
    assert not mount.is_there()
    assert mount.state() == ("inactive", "success")


def test_a_mount_that_is_unmounted_by_hand_stays_so(user: Machine, mount: Mount) -> None:
    user.done("umount", mount.mountpoint)
    eventually(lambda: mount.state() == ("inactive", "success"), "the unit has ended")
    assert mount.restarts() == 0


def test_a_mount_whose_process_is_killed_comes_back(mount: Mount) -> None:
    mount.signal(signal.SIGKILL)
    eventually(lambda: mount.restarts() == 1 and mount.state()[0] == "active", "restarted")
    assert mount.read() == "content"


def test_a_mount_that_answers_is_pinged_for(user: Machine, mount: Mount) -> None:
    before = user.property(mount.unit, "WatchdogTimestampMonotonic")
    eventually(lambda: user.property(mount.unit, "WatchdogTimestampMonotonic") != before, "a ping")


def test_a_mount_that_answers_no_more_is_started_anew(mount: Mount) -> None:
    mount.signal(signal.SIGSTOP)
    eventually(lambda: mount.restarts() == 1 and mount.state()[0] == "active", "restarted")
    assert mount.read() == "content"


def test_a_killed_mount_that_is_not_restarted_leaves_no_dead_mount(user: Machine, mount: Mount) -> None:
    drop_in = user.home / f".config/systemd/user/{mount.unit}.d/no-restart.conf"
    drop_in.write_text("[Service]\nRestart=no\n")
    systemctl(user, "daemon-reload")
    mount.signal(signal.SIGKILL)
    eventually(lambda: mount.state() == ("failed", "signal"), "failed")
    assert not mount.is_there()
    drop_in.unlink()
    systemctl(user, "reset-failed", mount.unit)


def test_a_mount_that_was_made_by_hand_is_left_alone(user: Machine, mount: Mount) -> None:
    systemctl(user, "stop", mount.unit)
    user.done("sdfs", "mount", mount.store, mount.mountpoint)
    assert user.run("systemctl", "--user", "start", mount.unit).returncode != 0
    systemctl(user, "stop", mount.unit)
    assert mount.read() == "content"
    user.done("sdfs", "umount", mount.mountpoint)


def test_a_command_that_fails_says_where_to_look(user: Machine) -> None:
    mount = Mount(user)
    mount.mountpoint.mkdir()
    (mount.mountpoint / "in the way").touch()
    result = user.run("sdfs", "service", "install", "--mount", mount.store, mount.mountpoint)
    assert result.returncode == 11
    assert "journalctl" in result.stderr
    assert re.search(r"^sdfs: `systemctl --user enable --now .*` failed$", result.stderr, re.MULTILINE)
    user.done("sdfs", "service", "remove")


@pytest.fixture
def watched(user: Machine) -> Iterator[Path]:
    """A folder that the daemon watches."""
    folder = user.home / "watched"
    folder.mkdir()
    init(user.home / "taken")
    configuration = user.home / ".config/sdfs/config.toml"
    configuration.parent.mkdir()
    configuration.write_text(f'[[watch]]\nfolder = "{folder}"\nstore = "{user.home}/taken"\noriginals = "delete"\nsettle_seconds = 0.1\n')
    user.done("sdfs", "service", "install", "--daemon")
    yield folder
    user.done("sdfs", "service", "remove", "--daemon")
    shutil.rmtree(configuration.parent)


@pytest.mark.long
def test_the_daemon_takes_and_encodes_pictures_in_its_sandbox(user: Machine, watched: Path) -> None:
    assert user.property(DAEMON, "StatusText") == "watching 1 folders"
    shutil.copy(next(path for entry in sys.path if (path := Path(entry, PICTURE)).is_file()), watched / "photo.jpg")
    eventually(lambda: not (watched / "photo.jpg").exists(), "taken")
    assert user.done("sdfs", "ls", "-l", user.home / "taken").startswith("latent")
    systemctl(user, "reload", DAEMON)
    systemctl(user, "stop", DAEMON)
    assert user.property(DAEMON, "Result") == "success"


def test_what_is_removed_leaves_nothing(user: Machine, mount: Mount) -> None:
    user.done("sdfs", "service", "remove")
    units = user.home / ".config/systemd/user"
    assert [path for path in units.rglob("*") if path.is_file() and path.read_text().startswith(MARKER)] == []
    assert [path for path in units.rglob("*") if path.is_symlink()] == []
    assert systemctl(user, "list-units", "--all", "--plain", "--no-legend", "sdfs*") == ""
    assert not mount.is_there()
