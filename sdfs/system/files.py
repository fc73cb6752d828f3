"""What the standard library has no call for: whole reads and writes, holes, private folders, durable names."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sdfs.errors import UserError

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def write_all(fd: int, content: bytes, offset: int = 0) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def read_all(fd: int) -> bytes:
    """The whole content of a file, whatever its position."""
    chunks = []
    offset = 0
    while chunk := os.pread(fd, 1 << 24, offset):
        chunks.append(chunk)
        offset += len(chunk)
    return b"".join(chunks)


def content_sha256(fd: int) -> str:
    """Of the whole content of an open file, in hexadecimal."""
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(fd, 1 << 20, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def data_ranges(fd: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """What is no hole between two offsets, as far as the filesystem tells."""
    while begin < end:
        try:
            data = os.lseek(fd, begin, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            data, hole = begin, end
        if data < end:
            yield data, min(hole, end)
        begin = hole


def make_private(folder: str, purpose: str) -> None:
    """Make a folder, or see that it is one, no link, which nobody else may enter. Raises OSError, and UserError, which names `purpose`."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UserError(f"{folder} {purpose}: it must be a folder of yours that nobody else may enter (mode 0700)")


@contextlib.contextmanager
def opened(path: str, *, folder: int | None = None) -> Iterator[int]:
    """Open a file to read it, and close it; `folder`: descriptor of the one that `path` is in. No link is followed, no FIFO waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def is_locked(fd: int) -> bool:
    """Tell whether another open file holds the flock of this one exclusively. Where none does, this one shares it until it is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def fsync_path(path: str | Path) -> None:
    """Make a file, or the names in a folder, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def rename_noreplace(old: str, new: str) -> None:
    """Rename, or raise FileExistsError where `new` exists; atomic."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), old, None, new)
