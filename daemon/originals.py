"""What happens to a file once the store has it. And whether somebody is still writing to one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator

import send2trash

from daemon.config import Originals
from sdfs.system.files import rename_noreplace
from sdfs.system.places import data_home

ASIDE = ".sdfs-taking."  # before the name of a file that is being given up
_NAME_MAX = 255  # bytes
_trashing = threading.Lock()  # Send2Trash chooses a free name, and then takes it
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ChangedError(Exception):
    """The file is not the one that was taken, or somebody is writing to it."""


@contextlib.contextmanager
def without_writers(fd: int) -> Iterator[bool]:
    """Whether nobody has the file open for writing; and nobody can until the context ends.

    By a read lease (fcntl(2)), for which the file has to be ours, on a local filesystem; where it cannot be had, nothing is known, and
    that is taken for nobody.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # what the kernel sends to who holds a lease that somebody wants broken: ignored
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        yield False
        return
    except OSError:
        yield True
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def dispose(path: str, was: os.stat_result, how: Originals) -> None:
    """Give up the file at `path`, whose content is safe elsewhere; `was`: what it was when that was read.

    Raises ChangedError where it is another one by now, or changed, or being written to; OSError.
    """
    if how == "keep":
        return
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return
    try:
        with without_writers(fd) as quiet:
            if not quiet or _state(os.fstat(fd)) != _state(was) or _state(os.lstat(path)) != _state(was):
                raise ChangedError(path)
            if how == "delete":
                _unlink(path, fd)
            else:
                with _trashing:
                    send2trash.send2trash(os.fsencode(path))
    finally:
        os.close(fd)


def _unlink(path: str, fd: int) -> None:
    """Under a name of our own, so that it is not another file, which somebody moves there at this moment."""
    folder, name = os.path.split(path)
    aside = f"{folder}/{ASIDE}{name}"
    if len(os.fsencode(aside)) - len(os.fsencode(folder)) > _NAME_MAX:
        aside = path
    else:
        os.rename(path, aside)
    if not os.path.samestat(os.lstat(aside), os.fstat(fd)):
        rename_noreplace(aside, path)
        raise ChangedError(path)
    os.unlink(aside)


def put_back(path: str) -> None:
    """What a killed process left under its own name gets its name again, if that is free."""
    folder, name = os.path.split(path)
    with contextlib.suppress(OSError):
        rename_noreplace(path, f"{folder}/{name.removeprefix(ASIDE)}")


def _state(status: os.stat_result) -> tuple[int, ...]:
    """ctime, too, which nobody can set: a file may be written to and get its mtime back."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def trash_folder() -> str:
    """The trash of the home folder; files in it are no originals."""
    return os.path.realpath(data_home() / "Trash")
