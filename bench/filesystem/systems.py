"""The three systems: a native folder, and two mounts, which are never left behind, whatever ends the block that has them."""

from __future__ import annotations

import compileall
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sdfs
from sdfs.owner.store.store import init, is_owned, read_owner

_ROOT = Path(sdfs.__path__[0]).parent
_END_SECONDS = 30.0
_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Mount:
    path: Path
    pid: int  # of the process that serves it


def run_sdfs(*arguments: str | Path) -> str:
    """The command of this very tree, installed or not; returns its stdout."""
    command = [sys.executable, "-c", "from sdfs.cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}  # for its engine, too
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, start_new_session=True).stdout


@contextmanager
def passthrough(folder: Path, mountpoint: Path) -> Iterator[Mount]:
    """From the start of its process."""
    mountpoint.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bench.passthrough", str(folder), str(mountpoint)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)  # Ctrl-C is for us alone
    try:
        while not mountpoint.is_mount():
            if process.poll() is not None:
                raise RuntimeError(f"the passthrough ended with {process.returncode}")
            time.sleep(_POLL_SECONDS)
        yield Mount(mountpoint, process.pid)
    finally:
        _unmount(mountpoint)
        process.terminate()
        process.wait(_END_SECONDS)


@contextmanager
def mounted(store: Path, mountpoint: Path, *options: str) -> Iterator[Mount]:
    """From the start of `sdfs mount`. `options`: as with -o."""
    chosen = ["-o", ",".join(options)] if options else []
    try:
        run_sdfs("mount", store, mountpoint, *chosen)
        owner = read_owner(store)
        assert owner is not None
        yield Mount(mountpoint, owner.pid)
    finally:
        _unmount(mountpoint)
        _end_owner(store)


def _unmount(mountpoint: Path) -> None:
    """Lazily: that works after a failure, too, and makes no difference where nobody has a file open."""
    subprocess.run(["fusermount3", "-u", "-z", mountpoint], capture_output=True, check=False)


def _end_owner(store: Path) -> None:
    end = time.monotonic() + _END_SECONDS
    while is_owned(store):
        owner = read_owner(store)
        if time.monotonic() > end and owner is not None:
            os.kill(owner.pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def new_store(folder: Path) -> Path:
    """Its code is compiled, as after an installation: else a mount may have to do that, each time where Python must not write."""
    compileall.compile_dir(sdfs.__path__[0], quiet=1)
    init(folder)
    return folder


def sync(store: Path) -> None:
    """Wait until the owner has looked at all files and shrunk all pictures."""
    run_sdfs("sync", store)


def drop_pages(path: Path) -> None:
    """Have the kernel forget what it has of a file's content, which was synced."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def read(path: Path, buffer: bytearray) -> int:
    """All of a file, a buffer at a time; returns its bytes."""
    total = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def memory_mb(pid: int, what: str) -> float:
    """`what`, in proc(5): VmRSS, the resident memory, or VmHWM, its peak. 0 of a process that is gone."""
    try:
        found = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0
