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
from daemon.ledger import Identity

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


def dispose(path: str, identity: Identity, how: Originals) -> None:
    """Give up the file at `path`, whose content is safe elsewhere. Raises ChangedError where it is another one by now, OSError."""
    if how == "keep":
        return
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return
    try:
        with without_writers(fd) as quiet:
            if not quiet or Identity.of(os.fstat(fd)) != identity or Identity.of(os.lstat(path)) != identity:
                raise ChangedError(path)
            if how == "delete":
                os.unlink(path)  # noqa: PTH108
            else:
                with _trashing:
                    send2trash.send2trash(os.fsencode(path))
    finally:
        os.close(fd)
