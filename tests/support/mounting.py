"""A mounted store for tests: mounts it in a process of its own, accuses what is left behind, unmounts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import pytest

from sdfs.mount.mounting import unmount
from sdfs.owner.access import open_access
from sdfs.owner.store.store import init, is_store
from tests.support import ROOT
from tests.support.waiting import eventually

LOSSLESS = (sys.executable, str(ROOT / "tests/support/lossless_engine.py"))
RUN = "import sys; from pathlib import Path; from sdfs.mount.mounting import run; run(Path(sys.argv[1]), Path(sys.argv[2]), {})"
REAL = (sys.executable, "-c", RUN.format("foreground=True"))
BACKGROUND = (sys.executable, "-c", RUN.format("options=''.join(sys.argv[3:])"))

needs_fuse = pytest.mark.skipif(
    not Path("/dev/fuse").exists() or shutil.which("fusermount3") is None, reason="needs /dev/fuse and fusermount3"
)


def mountpoints_below(folder: Path) -> set[Path]:
    """Dead mounts as well."""
    mountpoints = {Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()}
    return {mountpoint for mountpoint in mountpoints if folder in (mountpoint, *mountpoint.parents)}


def is_mounted(path: Path) -> bool:
    return path in mountpoints_below(path)


class Mounted:
    """`with Mounted(folder) as mounted:` a store in `folder`/store, made if need be, at `mounted.path`."""

    def __init__(self, folder: Path, *options: str, command: tuple[str, ...] = LOSSLESS) -> None:
        self.store = folder / "store"
        self.path = folder / "mount"
        self.log = folder / "log"
        self._command = [*command, str(self.store), str(self.path), *options]
        self._killed = False
        if not is_store(self.store):
            init(self.store)

    def __enter__(self) -> Mounted:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        eventually(lambda: self.process.poll() is not None or self._serves(), f"mounted: {self._command}")
        assert self.process.poll() is None, self.log.read_text()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if is_mounted(self.path):
                unmount(self.path, lazy=self._killed)
        finally:
            if is_mounted(self.path):
                unmount(self.path, lazy=True)
            status = self._end()
        if kind is None and not self._killed:
            assert status == 0, self.log.read_text()
            assert "Traceback" not in self.log.read_text(), self.log.read_text()
            # a daemon may own the store by now, and be at work there
            eventually(lambda: not list((self.store / ".sdfs" / "staging").iterdir()), "nothing is left in staging")

    def _serves(self) -> bool:
        try:
            return os.getxattr(self.path, "user.sdfs.store") == bytes(self.store)
        except OSError:  # not mounted yet, or a dead mount
            return False

    def _end(self) -> int:
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        """The owner, the hard way."""
        self._killed = True
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def sync(self) -> None:
        """Wait until nothing is pending."""
        with open_access(self.store) as access:
            access.sync(lambda done, total: None)

    def state(self, name: str) -> str:
        with open_access(self.store) as access:
            return access.stat(name).state


def engine_pids(mounted: Mounted) -> list[int]:
    children = Path(f"/proc/{mounted.process.pid}/task").glob("*/children")
    pids = {int(pid) for child in children for pid in child.read_text().split()}
    return [pid for pid in pids if b"sdfs.engine.service" in Path(f"/proc/{pid}/cmdline").read_bytes()]
