"""What a file of the backing directory is: a blob, with its preamble, or not. One pread, remembered.

Remembered by (device, inode, size, mtime, ctime): whatever changes a file's content changes one of them, and the owner itself never
turns a file into a blob, or back, without giving it another inode.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from itertools import islice

from sdfs.blob.container import MAGIC, Preamble
from sdfs.blob.file import BlobFile
from sdfs.errors import DamagedError, SdfsError, StoreTooNew
from sdfs.system.file_id import FileState
from sdfs.system.files import opened

REMEMBERED = 1 << 17  # files: those of one large folder at least, or listing it twice would read them all twice; 300 bytes each


def whole(blob: Preamble | SdfsError) -> Preamble:
    """The preamble of a blob that is not damaged; raises what is wrong with one that is."""
    if isinstance(blob, SdfsError):
        raise type(blob)(*blob.args)
    return blob


class Preambles:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, Preamble | SdfsError | None] = {}  # by state, the oldest first

    def look(self, path: str) -> tuple[os.stat_result, Preamble | None]:
        """lstat, and the preamble where it is a blob. Raises DamagedError and StoreTooNew as `Preamble.parse` does."""
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size < len(MAGIC):
            return status, None
        try:
            return status, self._recall(FileState.of(status))
        except KeyError:
            pass
        try:
            with opened(path) as fd:
                status = os.fstat(fd)  # of what was opened: the name may have changed its file meanwhile
                return status, self.of(fd, status)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP):  # blobs are readable for their owner
                return status, None
            raise

    def is_blob(self, path: str) -> bool:
        """Whether the file is a blob, be it damaged."""
        try:
            return self.look(path)[1] is not None
        except (DamagedError, StoreTooNew):
            return True

    def of(self, fd: int, status: os.stat_result) -> Preamble | None:
        """The same for an open file; `status` is its fstat."""
        if not stat.S_ISREG(status.st_mode) or status.st_size < len(MAGIC):
            return None
        state = FileState.of(status)
        try:
            return self._recall(state)
        except KeyError:
            self._remember(state, _preamble(fd))
            return self._recall(state)

    def _recall(self, state: FileState) -> Preamble | None:
        known = self._known[_packed(state)]
        return None if known is None else whole(known)

    def _remember(self, state: FileState, found: Preamble | SdfsError | None) -> None:
        with self._lock:
            self._known[_packed(state)] = found
            if len(self._known) > REMEMBERED:
                self._known = dict(islice(self._known.items(), REMEMBERED // 2, None))


def _packed(state: FileState) -> bytes:
    return b"%d %d %d %d %d" % (*state.file, *state[1:])


def _preamble(fd: int) -> Preamble | SdfsError | None:
    try:
        blob = BlobFile.of(fd)
    except SdfsError as error:
        return error
    return None if blob is None else blob.preamble
