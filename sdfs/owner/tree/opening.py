"""Opening the tree's files: handles of the very file that a name is, which know whether the kernel may keep its pages.

descriptor → inode → under its lock: is the name still this inode? else once more. So an opener either is seen by a swap, which then
waits, or sees the new file.
"""

# System calls on `str` paths, which need not be decodable, and on descriptors.
from __future__ import annotations

import contextlib
import errno
import os

from sdfs.blob.container import KIND_RAW
from sdfs.errors import DamagedError, StoreTooNew
from sdfs.owner.tree.content import Blob, Plain, Working
from sdfs.owner.tree.handle import Handle
from sdfs.owner.tree.inode import Inode, InodeTable
from sdfs.system.file_id import FileId

_DROPPED_FLAGS = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_DIRECT | os.O_NOFOLLOW


class Opener:
    """Thread-safe. Paths are of the backing filesystem."""

    def __init__(self, inodes: InodeTable) -> None:
        self._inodes = inodes

    def open(self, path: str, flags: int) -> Handle:
        """As open(2), but that nothing is created or cut."""
        while True:
            try:
                fd = os.open(path, backing_flags(flags))
            except PermissionError:
                if flags & os.O_ACCMODE != os.O_WRONLY:
                    raise
                fd = os.open(path, flags & ~_DROPPED_FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC)
            if (handle := self.register(path, fd, flags)) is not None:
                return handle

    def register(self, backing: str, fd: int, flags: int) -> Handle | None:
        """A handle for `fd`, opened as `backing`; None if that is another file by now. Takes over `fd`."""
        try:
            status = os.fstat(fd)
            with self._inodes.holding(FileId.of(status)) as inode, inode.lock:
                if not self._names_it(backing, inode, FileId.of(status)):
                    os.close(fd)
                    return None
                if not inode.handles:
                    inode.content = self._look(fd, status)
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    self._inodes.pending.touch(FileId.of(status))
                handle = Handle(inode, fd, flags)
        except BaseException:
            os.close(fd)
            raise
        try:
            handle.keep_cache = self._may_keep_cache(handle, fd, status)
        except BaseException:
            handle.release()
            raise
        return handle

    def _names_it(self, backing: str, inode: Inode, key: FileId) -> bool:
        """Whether the name still is of the very file that was opened, `key`, and that file still is the inode's.

        While the opener waited for the lock, a commit may have given the inode another file: what was opened is outdated then.
        """
        with self._inodes.names:
            try:
                same = FileId.of(os.lstat(backing)) == key and self._inodes.is_known_by(key, inode)
            except FileNotFoundError:
                return False
            if same:
                inode.path = backing
            return same

    def _look(self, fd: int, status: os.stat_result) -> Plain | Blob:
        try:
            preamble = self._inodes.preambles.of(fd, status)
        except OSError as error:
            if error.errno != errno.EBADF:  # writable only: no blob, for these are readable for their owner
                raise
            return Plain()
        except (DamagedError, StoreTooNew) as error:
            return Blob(error)
        return Plain() if preamble is None else Blob(preamble)

    def _may_keep_cache(self, handle: Handle, fd: int, status: os.stat_result) -> bool:
        """Whether the pages that the kernel may have of this name are what the handle will read.

        The kernel has a page cache per name, and a name keeps its cache when its file is swapped: so no at the first open of a
        backing inode, at an inode that several names write to, and at a render that may come out differently.
        """
        known = self._inodes.pages.are_of(status)
        if not known:
            self._inodes.pages.note(fd)
        content = handle.inode.content
        if status.st_nlink > 1 or isinstance(content, Working):
            return False
        if isinstance(content, Plain) or (content.preamble is not None and content.preamble.kind == KIND_RAW):
            return known
        with contextlib.suppress(DamagedError, StoreTooNew):
            handle.trusts = known and self._inodes.renders.is_canonical(handle.blob_file(content).key)
            # an open that dropped pages which are on their way to another reader would wait for them, and nothing could end that
            return handle.trusts or (handle.share(content) and known)
        return False


def backing_flags(flags: int) -> int:
    """How to open the backing file: readable even for a writer, who may have to look at its head."""
    if flags & os.O_ACCMODE == os.O_WRONLY:
        flags = flags & ~os.O_ACCMODE | os.O_RDWR
    return flags & ~_DROPPED_FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC
