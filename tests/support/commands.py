"""The commands as a user runs them, in a process of their own; and what is said of them."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

COMMAND = (sys.executable, "-c", "from sdfs.cli import main; main()")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PAGE = (ROOT / "docs/CLI.md").read_text()


def sdfs(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, errors="surrogateescape", timeout=100, cwd=cwd, env=ENVIRONMENT
    )


def done(*arguments: str | Path, cwd: Path | None = None) -> str:
    """The stdout of a command that has to succeed."""
    completed = sdfs(*arguments, cwd=cwd)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def fails(code: int, *arguments: str | Path) -> str:
    """The one line that a command has to say as it fails with `code`."""
    completed = sdfs(*arguments)
    assert completed.returncode == code, completed.stderr
    [line] = completed.stderr.splitlines()
    assert line.startswith("sdfs: ")
    return line


def on_terminal(*arguments: str | Path) -> str:
    """The stdout of a command that has to succeed, as a terminal gets it."""
    with _terminal() as (side, shown):
        process = subprocess.Popen([*COMMAND, *arguments], stdout=side, env=ENVIRONMENT)
    assert process.wait(100) == 0
    return shown[0]


def told_on_terminal(*arguments: str | Path) -> str:
    """What is left on a terminal of the stderr of a command that has to succeed."""
    with _terminal() as (side, shown):
        process = subprocess.Popen([*COMMAND, *arguments], stderr=side, env=ENVIRONMENT)
    assert process.wait(100) == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown[0]).rpartition("\r")[2]


@contextlib.contextmanager
def _terminal() -> Iterator[tuple[int, list[str]]]:
    """One side of a terminal, for a process; and, after the context, what it was shown."""
    terminal, side = pty.openpty()
    shown: list[str] = []
    with open(terminal, "rb", buffering=0) as file:
        yield side, shown
        os.close(side)
        chunks = []
        with contextlib.suppress(OSError):  # EIO is how the kernel says that nobody has the other side any more
            while chunk := file.read(1 << 16):
                chunks.append(chunk)
    shown.append(b"".join(chunks).decode().replace("\r\n", "\n"))


@contextlib.contextmanager
def mounted(store: Path) -> Iterator[Path]:
    """A mount of `store` in the background."""
    mountpoint = store.with_name("mount")
    done("mount", store, mountpoint)
    try:
        yield mountpoint
    finally:
        if os.path.ismount(mountpoint):
            done("umount", mountpoint)


def section(command: str) -> str:
    """What docs/CLI.md says of a command, and of those within it."""
    found = re.search(rf"^## sdfs {command.split()[0]}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/CLI.md has no section on sdfs {command}"
    return found[1]
