"""A machine of its own for tests, as root: what they change in /etc, /run and /sbin, mount, or leave running, nobody else sees.

It has a mount and a process namespace. /etc and /sbin have a layer in memory over them; /run is empty, but for what tells programs that
systemd runs. `start_systemd` starts a real service manager in it, that of a user, which has no units but those of SDFS.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest

from tests.support import ROOT
from tests.support.waiting import eventually

SYSTEMD = Path("/lib/systemd/systemd")
TARGETS = ("basic", "default", "shutdown")
_SETUP = """
awk '$3 ~ /^fuse/ { print $2 }' /proc/mounts | while read -r escaped; do  # a mount of others would not end as long as it is here
    umount --lazy "$(printf "%b" "$escaped")"
done
mount -t tmpfs none "$1"
for folder in /etc $(realpath /sbin); do
    mkdir -p "$1$folder/upper" "$1$folder/work"
    mount -t overlay none -o "lowerdir=$folder,upperdir=$1$folder/upper,workdir=$1$folder/work" "$folder"
done
mount -t tmpfs none /run
mkdir -p /run/systemd/system
mount -t cgroup2 none /sys/fs/cgroup
echo there
exec sleep infinity
"""


def _can_be_made() -> bool:
    tried = ["unshare", "--mount", "--pid", "--cgroup", "--fork", "--mount-proc", "true"]
    return os.geteuid() == 0 and _cgroup() is not None and subprocess.run(tried, capture_output=True, check=False).returncode == 0


def _cgroup() -> Path | None:
    """The group of this process in the unified hierarchy."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    within = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    return next((Path(mount[1], within[1]) for mount in mounts if mount[2] == "cgroup2" and within), None)


needs_machine = pytest.mark.skipif(not _can_be_made() or not Path("/dev/fuse").exists(), reason="needs root, namespaces, /dev/fuse")
needs_systemd = pytest.mark.skipif(not SYSTEMD.exists(), reason="needs systemd")


def make_programs(folder: Path) -> Path:
    """The programs of this checkout, as pip would write them."""
    for name, entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items():
        module, function = entry.split(":")
        lines = (f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})", f"from {module} import {function}")
        (folder / name).write_text("\n".join((*lines, f"sys.exit({function}())", "")))
        (folder / name).chmod(0o755)
    return folder


class Machine:
    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.home = folder / "home"
        self.environment = {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        for path in (self.home, folder / "run", folder / "layers", folder / "targets"):
            path.mkdir(mode=0o700)

    def __enter__(self) -> Machine:
        group = _cgroup()
        assert group is not None
        self._group = group / f"sdfs-test-{os.getpid()}-{time.monotonic_ns()}"
        self._group.mkdir()
        namespaces = (
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--cgroup",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "slave",
        )
        command = [*self._in_group(), *namespaces, "sh", "-ec", _SETUP, "sh", str(self.folder / "layers")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._processes = [process]
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self._enter = (*self._in_group(), "nsenter", "--target", children[0], "--mount", "--pid", "--cgroup")
        self._init = int(children[0])
        return self

    def _in_group(self) -> tuple[str, ...]:
        return ("sh", "-c", f'echo $$ > "{self._group}/cgroup.procs"; exec "$@"', "sh")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        os.kill(self._init, signal.SIGKILL)  # and with it everything in there
        for process in self._processes:
            process.communicate(timeout=30)
        for folder, _, _ in os.walk(self._group, topdown=False):
            self._remove_group(Path(folder))

    @staticmethod
    def _remove_group(group: Path) -> None:
        def removed() -> bool:
            with contextlib.suppress(OSError):
                group.rmdir()
            return not group.exists()

        eventually(removed, f"{group} is empty")

    def start(self, *command: str | Path, stdout: IO[str] | int | None = None) -> subprocess.Popen[str]:
        """Ends with the machine, at the latest."""
        process = subprocess.Popen([*self._enter, *command], stdout=stdout, stderr=stdout, text=True, env=self.environment)
        self._processes.append(process)
        return process

    def run(self, *command: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables = self.environment if environment is None else environment
        return subprocess.run([*self._enter, *command], capture_output=True, text=True, timeout=60, env=variables, check=False)

    def done(self, *command: str | Path) -> str:
        """The stdout of a command that has to succeed."""
        result = self.run(*command)
        assert result.returncode == 0, result.stderr + self.log()
        return result.stdout

    def mounts(self) -> dict[str, str]:
        """What is mounted, of SDFS's: options by mountpoint. Dead mounts as well."""
        lines = [line.split(" ") for line in self.done("cat", "/proc/mounts").splitlines()]
        return {fields[1].encode().decode("unicode_escape"): fields[3] for fields in lines if fields[2] == "fuse.sdfs"}

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    # systemd

    def start_systemd(self) -> None:
        """The service manager of a user."""
        for target in TARGETS:
            (self.folder / "targets" / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        self.environment |= {
            "SYSTEMD_UNIT_PATH": f"{self.home}/.config/systemd/user:{self.folder}/targets",
            "SYSTEMD_GENERATOR_PATH": str(self.folder / "targets"),
            "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": str(self.folder / "targets"),
        }
        with (self.folder / "log").open("w") as log:
            self.start(SYSTEMD, "--user", "--default-standard-output=inherit", "--default-standard-error=inherit", stdout=log)
        eventually(lambda: self.run("systemctl", "--user", "is-system-running").returncode == 0, "systemd runs")

    def property(self, unit: str, name: str) -> str:
        return self.done("systemctl", "--user", "show", unit, "--property", name, "--value").strip()
