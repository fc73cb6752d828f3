"""The units of the system, as installed elsewhere: their command lines, run with what systemd would give them, and no more."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sdfs.installation.units import DAEMON, Manager, daemon_files, mount_files, mount_unit, write
from sdfs.owner.store.store import init

pytestmark = pytest.mark.skipif(
    not Path("/dev/fuse").exists() or shutil.which("fusermount3") is None, reason="needs /dev/fuse and fusermount3"
)


class Unit:
    """What the files of a unit say, and what systemd would make of it."""

    def __init__(self, folder: Path, specifiers: dict[str, str], *files: Path) -> None:
        self._lines = [line for file in files for line in file.read_text().splitlines()]
        self._specifiers = specifiers
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(30)
        self._socket.bind(str(folder / "notify"))
        assignments = (assignment for line in self.values("Environment") for assignment in map(self._expand, shlex.split(line)))
        self.environment = dict(assignment.split("=", 1) for assignment in assignments)
        self.environment |= {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "200000"}

    def close(self) -> None:
        self._socket.close()

    def values(self, setting: str) -> list[str]:
        return [line.removeprefix(f"{setting}=") for line in self._lines if line.startswith(f"{setting}=")]

    def _expand(self, text: str) -> str:
        return re.sub("%(.)", lambda found: "%" if found[1] == "%" else self._specifiers[found[1]], text)

    def command(self, setting: str) -> list[str]:
        [line] = self.values(setting)
        words = [self._expand(word) for word in shlex.split(line.removeprefix("-"))]
        return [re.sub(r"\$\{(\w+)\}", lambda found: self.environment[found[1]], word).replace("$$", "$") for word in words]

    def start(self, setting: str = "ExecStart") -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(setting), env=self.environment, cwd="/", stdin=subprocess.DEVNULL)

    def hears(self, message: str) -> None:
        while not self._socket.recv(10_000).decode().startswith(message):
            pass


@contextmanager
def unit(folder: Path, specifiers: dict[str, str], *files: Path) -> Iterator[Unit]:
    made = Unit(folder, specifiers, *files)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    return Manager(system=True, root=tmp_path)


@pytest.fixture
def mount(manager: Manager, programs: Path, tmp_path: Path) -> Iterator[Unit]:
    init(tmp_path / "my 100% store")
    (tmp_path / "run").mkdir()
    mountpoint = str(tmp_path / "my $HOME mount")
    write(mount_files(manager, programs, tmp_path / "my 100% store", mountpoint, "noexec"))
    files = (manager.units / "sdfs-mount@.service", manager.units / f"{mount_unit(mountpoint)}.d/sdfs.conf")
    with unit(tmp_path, {"f": mountpoint, "t": str(tmp_path / "run")}, *files) as mount:
        yield mount


def test_a_mount_starts_answers_and_stops(mount: Unit, tmp_path: Path) -> None:
    with mount.start() as process:
        mount.hears("READY=1")
        assert os.path.ismount(tmp_path / "my $HOME mount")
        mount.hears("WATCHDOG=1")
        assert len(list((tmp_path / "run/sdfs").iterdir())) == 1
        assert mount.start("ExecStop").wait(30) == 0
        mount.hears("STOPPING=1")
        assert process.wait(30) == 0
    assert not os.path.ismount(tmp_path / "my $HOME mount")


def test_a_mount_that_was_killed_is_unmounted_after_it(mount: Unit, tmp_path: Path) -> None:
    with mount.start() as process:
        mount.hears("READY=1")
        process.kill()
        process.wait()
        subprocess.run(mount.command("ExecStopPost"), env={**mount.environment, "PATH": "/usr/bin:/bin"}, check=True)
    assert not os.path.ismount(tmp_path / "my $HOME mount")
    assert list((tmp_path / "my $HOME mount").iterdir()) == []


def test_the_daemon_starts_and_stops(manager: Manager, programs: Path, tmp_path: Path) -> None:
    init(tmp_path / "store")
    for folder in ("watched", "run", "state", "etc/sdfs"):
        (tmp_path / folder).mkdir(parents=True)
    manager.configuration.write_text(f'[[watch]]\nfolder = "{tmp_path}/watched"\nstore = "{tmp_path}/store"\n')
    write(daemon_files(manager, programs))
    with unit(tmp_path, {"t": str(tmp_path / "run"), "E": str(tmp_path / "etc")}, manager.units / DAEMON) as daemon:
        (tmp_path / "run/sdfs-daemon").mkdir()
        daemon.environment["STATE_DIRECTORY"] = str(tmp_path / "state")
        with daemon.start() as process:
            daemon.hears("READY=1")
            daemon.hears("WATCHDOG=1")
            process.terminate()
            daemon.hears("STOPPING=1")
            assert process.wait(30) == 0
