"""`sdfs service` where no service manager is asked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sdfs.owner.store.store import init
from tests.support.machine import Machine, needs_machine

Service = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def service(programs: Path, tmp_path: Path) -> Service:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_RUNTIME_DIR": str(tmp_path)}
    init(tmp_path / "store")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [programs / "sdfs", "service", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    return run


def test_a_dry_run_prints_units_and_commands(service: Service, tmp_path: Path) -> None:
    printed = service("install", "--mount", "store", "my mount", "--mount-helper", "--dry-run").stdout
    assert f"# {tmp_path}/config/systemd/user/sdfs-mount@.service\n" in printed
    assert f'"STORE={tmp_path}/store"' in printed
    assert "# /sbin/mount.fuse.sdfs -> " in printed
    assert printed.splitlines()[-2] == "systemctl --user daemon-reload"
    assert r"my\x20mount.service'" in printed.splitlines()[-1]


def test_a_dry_run_does_nothing(service: Service, tmp_path: Path) -> None:
    assert service("install", "--mount", "store", "mount", "--dry-run").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_to_install_nothing_is_a_mistake(service: Service) -> None:
    assert service("install").returncode == 2


def test_to_remove_what_is_not_installed_says_so(service: Service) -> None:
    result = service("remove")
    assert (result.returncode, result.stderr) == (0, "sdfs: nothing of this is installed\n")


def test_a_mount_of_no_store_has_its_exit_status(service: Service) -> None:
    assert service("install", "--mount", "no-store", "mount").returncode == 3


@needs_machine
def test_without_systemd_the_commands_are_told(machine: Machine) -> None:
    machine.done("rmdir", "/run/systemd/system")
    init(machine.home / "store")
    result = machine.run("sdfs", "service", "install", "--mount", machine.home / "store", machine.home / "mount")
    assert result.returncode == 0
    assert "systemd does not run here" in result.stderr
    assert "systemctl --user daemon-reload\n" in result.stderr
    machine.done("sdfs", "service", "remove")
    assert list((machine.home / ".config/systemd/user").iterdir()) == []
