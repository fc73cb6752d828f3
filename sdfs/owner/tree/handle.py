"""What an opener has of a file: reads and writes at offsets, through the `Inode` that it shares with all other openers."""

from __future__ import annotations

import errno
import os

from sdfs.blob import container
from sdfs.blob.container import KIND_RAW, MAGIC
from sdfs.blob.file import BlobFile
from sdfs.errors import DamagedError, StoreTooNew
from sdfs.owner.renders.renders import Readable
from sdfs.owner.tree.content import Blob, Working
from sdfs.owner.tree.inode import Inode


class Handle:
    """An open file. Offsets and sizes are in bytes; all errors are OSError, DamagedError, StoreTooNew or EngineError."""

    def __init__(self, inode: Inode, fd: int, flags: int) -> None:
        """Under `inode.lock`; takes over `fd`: of the tree's file, and readable where that is a blob."""
        self.keep_cache = False  # this and the next: set by who opens
        self.trusts = False  # the pages that the kernel has are of a render that a later one is to equal
        self._shares = False  # they are of the render that this handle has pinned
        self.inode = inode
        self._fd = fd
        self._writable = flags & os.O_ACCMODE != os.O_RDONLY
        self._blob: BlobFile | None = None
        self._pinned = False
        self._readable: Readable | None = None
        inode.handles += 1
        inode.table.keep(inode)

    @property
    def fd(self) -> int:
        """A descriptor with the attributes of the file as it is now."""
        return self.tree_fd if (working := self.inode.working) is None else working.fd

    @property
    def tree_fd(self) -> int:
        """A descriptor of the tree's file, which a working copy may be ahead of."""
        return self.inode.tree_descriptor(self._fd)

    def read(self, size: int, offset: int) -> bytes:
        content = self.inode.content
        if isinstance(content, Blob):
            return (self._readable or self._load(content)).read(size, offset)
        return os.pread(content.fd if isinstance(content, Working) else self._fd, size, offset)

    def write(self, data: bytes, offset: int) -> int:
        """Appending is the caller's business: the kernel knows the end of the file, and pages of a mapping do not go there."""
        inode = self.inode
        with inode.lock:
            self._prepare_write()
            if not inode.is_staged and offset < len(MAGIC) and _makes_magic(self.fd, data, offset):
                inode.divert(self.fd)
            self._changes()
            fd = self.fd
            return inode.table.store.with_room(lambda: os.pwrite(fd, data, offset), len(data))

    def truncate(self, size: int) -> None:
        inode = self.inode
        with inode.lock:
            self._prepare_write(keep_content=size > 0)
            self._changes()
            os.ftruncate(self.fd, size)

    def allocate(self, offset: int, size: int) -> None:
        """posix_fallocate: the range is there, and the file at least so long."""
        with self.inode.lock:
            self._prepare_write()
            self._changes()
            fd = self.fd
            self.inode.table.store.with_room(lambda: os.posix_fallocate(fd, offset, size), size)

    def flush(self) -> None:
        """One of the descriptors of a writer is closed: now it can still be told of errors."""
        if not self._writable:
            return
        with self.inode.lock:
            self.inode.commit()
            self.inode.offer(self.fd)

    def fsync(self, *, data_only: bool = False) -> None:
        with self.inode.lock:
            if (working := self.inode.working) is not None and working.ahead:
                self.inode.commit()
                return
            if data_only:
                os.fdatasync(self.fd)
            else:
                os.fsync(self.fd)
            self.inode.sync_name()

    def release(self) -> None:
        """Nobody uses the handle any more."""
        inode = self.inode
        with inode.lock:
            inode.handles -= 1
            inode.sharing -= self._shares
            if self._pinned and self._blob is not None:
                inode.table.renders.cache.unpin(self._blob.key)
            try:
                if not inode.handles:
                    inode.close(self._fd)
            finally:
                os.close(self._fd)
                inode.table.let_go(inode)

    def _prepare_write(self, *, keep_content: bool = True) -> None:
        if not self._writable:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        inode = self.inode
        if isinstance(blob := inode.content, Blob):
            inode.copy_up(blob, self.fd, self._load(blob) if keep_content else None)

    def _changes(self) -> None:
        self.inode.written = True
        self.inode.changed()

    def blob_file(self, blob: Blob) -> BlobFile:
        """The blob that was opened, which the inode still has, its header read. Raises DamagedError and StoreTooNew."""
        if self._blob is None:
            try:
                opened = BlobFile(self._fd, blob.whole())
                _ = opened.header
            except (DamagedError, StoreTooNew) as error:
                self.inode.table.renders.report(f"{next(iter(self.inode.keys))}", self.inode.path, error)
                raise
            self._blob = opened
        return self._blob

    def share(self, blob: Blob) -> bool:
        """Pin the render; whether another handle that shares had it pinned before, so that the kernel has pages of no other render."""
        opened = self.blob_file(blob)
        with self.inode.lock:
            self._pin(opened)
            self._shares = True
            self.inode.sharing += 1
            return self.inode.sharing > 1

    def _load(self, blob: Blob) -> Readable:
        inode, renders = self.inode, self.inode.table.renders
        with inode.lock:
            opened = self.blob_file(blob)
            self._pin(opened)
        readable = renders.get(opened, inode.path)
        if self.trusts and not renders.is_canonical(opened.key):
            raise DamagedError("the render differs from the one before it; open the file again")
        if (path := inode.path) is not None and opened.preamble.kind != KIND_RAW:
            inode.table.on_read(path)
        self._readable = readable
        return readable

    def _pin(self, blob: BlobFile) -> None:
        if not self._pinned:
            self._pinned = True
            self.inode.table.renders.cache.pin(blob.key)


def _makes_magic(fd: int, data: bytes, offset: int) -> bool:
    """Whether a file, with `data` written at `offset`, begins with the blob magic."""
    if not MAGIC.startswith(data[: len(MAGIC) - offset], offset):
        return False
    try:
        head = os.pread(fd, len(MAGIC), 0)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        head = b""  # a file that its owner may not read
    head = head[:offset].ljust(offset, b"\0") + data + head[offset + len(data) :]
    return container.is_blob(head)
