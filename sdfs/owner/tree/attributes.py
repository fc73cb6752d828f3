"""Attributes as the tree shows them, and where they are: the working copy of an open file may have them, instead of the tree's file."""

# System calls on `str` paths, which need not be decodable, and on descriptors.
from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sdfs.blob.container import Preamble
from sdfs.errors import DamagedError, StoreTooNew
from sdfs.owner.store.attributes import XATTR_PREFIX
from sdfs.owner.tree.content import Blob, Working
from sdfs.owner.tree.handle import Handle
from sdfs.owner.tree.inode import Inode, InodeTable, logical_mode
from sdfs.system.file_id import FileId


@dataclass(frozen=True)
class Attributes:
    """The parts of `struct stat`; and which backing inode they are of."""

    key: FileId
    mode: int
    nlink: int
    size: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    blocks: int
    rdev: int


class Targets:
    """What has the attributes of a file, by its backing path."""

    def __init__(self, inodes: InodeTable) -> None:
        self._inodes = inodes

    def show(self, backing: str) -> Attributes:
        status, preamble = self.look(backing)
        inode = self._inodes.find(FileId.of(status))
        if inode is not None and (working := inode.working) is not None and working.shows:
            with inode.lock:
                if (working := inode.working) is not None and working.shows:
                    return _attributes(os.fstat(working.fd), None)
            return self.show(backing)
        return _attributes(status, preamble)

    def show_open(self, handle: Handle) -> Attributes:
        content, path = handle.inode.content, handle.inode.path
        if not isinstance(content, Working):
            return _attributes(os.fstat(handle.tree_fd), content.preamble if isinstance(content, Blob) else None)
        return self.show(path) if path is not None and not content.shows else _attributes(os.fstat(content.fd), None)

    def look(self, backing: str) -> tuple[os.stat_result, Preamble | None]:
        """lstat, and the preamble where it is a blob that is not damaged."""
        try:
            return self._inodes.preambles.look(backing)
        except (DamagedError, StoreTooNew):
            return os.lstat(backing), None

    @contextlib.contextmanager
    def locked(self, backing: str) -> Iterator[Inode | None]:
        """The inode behind a name, locked, the name being its for as long as nobody renames; None for what is no regular file."""
        while True:
            status = os.lstat(backing)
            if not stat.S_ISREG(status.st_mode):
                yield None
                return
            with self._inodes.holding(FileId.of(status)) as inode, inode.lock:
                if self._inodes.is_known_by(FileId.of(os.lstat(backing)), inode):
                    yield inode
                    return

    @contextlib.contextmanager
    def changing(self, backing: str) -> Iterator[tuple[str | int, dict[str, Any]]]:
        """The working copy or the tree's file, and the further arguments that a change of it takes."""
        with self.locked(backing) as inode:
            if inode is not None and (working := inode.working) is not None:
                yield working.fd, {}
                inode.changed()
            else:
                yield backing, {"follow_symlinks": False}

    @contextlib.contextmanager
    def reading(self, backing: str) -> Iterator[tuple[str | int, dict[str, Any]]]:
        """The same to read an attribute, without a lock where there is no working copy."""
        inode = self._inodes.find(FileId.of(os.lstat(backing)))
        if inode is None or inode.working is None:
            yield backing, {"follow_symlinks": False}
            return
        with inode.lock:
            if (working := inode.working) is not None:
                yield working.fd, {}
            else:
                yield backing, {"follow_symlinks": False}


def _attributes(status: os.stat_result, preamble: Preamble | None) -> Attributes:
    return Attributes(
        FileId.of(status),
        logical_mode(status, preamble),
        status.st_nlink,
        status.st_size if preamble is None else preamble.rendered_size,
        status.st_uid,
        status.st_gid,
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_blocks,
        status.st_rdev,
    )


def is_foreign_xattr(name: str) -> bool:
    """POSIX ACLs, which FUSE would show and nobody enforces; SELinux's labels, for which `ls -l` asks at every file until it is told so."""
    return name.startswith("system.posix_acl_") or name == "security.selinux"


def refuse_foreign_xattr(name: str) -> None:
    if is_foreign_xattr(name):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), name)


def refuse_own_xattr(name: str) -> None:
    refuse_foreign_xattr(name)
    if name.startswith(XATTR_PREFIX):
        raise PermissionError(errno.EPERM, "the attribute is the store's own", name)
