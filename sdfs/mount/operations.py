"""The kernel's side: a thin adapter over the tree, which turns file handles into numbers and back, and its answers into mfusepy's."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from sdfs.errors import UserError
from sdfs.mount.fuse import MAX_REQUESTS, Connection, asking
from sdfs.mount.hard_links import HardLinks
from sdfs.owner.owner import Owner
from sdfs.owner.tree.attributes import Attributes
from sdfs.owner.tree.handle import Handle
from sdfs.owner.tree.open_folder import OpenFolder
from sdfs.system.file_id import FileId

_RENAME_NOREPLACE = 1


class Operations:
    """A method is a handler of libfuse's if it has the name of one; libfuse answers itself for those that are not here."""

    use_ns = True
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(self, owner: Owner, connection: Connection, *, shared: bool, on_mounted: Callable[[], None]) -> None:
        """`shared`: others than the owner process's user may come; what they make is theirs."""
        self.mounted = False
        self._owner = owner
        self._tree = owner.tree
        self._shared = shared
        self._on_mounted = on_mounted
        self._connection = connection
        self._links = HardLinks()
        self._numbers = itertools.count(1)
        self._handles: dict[int, Handle] = {}
        self._folders: dict[int, OpenFolder] = {}

    def init_with_config(self, connection: Any, config: Any) -> None:
        connection.max_background = MAX_REQUESTS
        connection.congestion_threshold = MAX_REQUESTS * 3 // 4
        self._connection.attach(self._owner.give_up)
        if not self._owner.read_only:
            self._owner.compressor.start()
        self.mounted = True
        self._on_mounted()

    def destroy(self, path: str) -> None:
        self._connection.detach()

    def _asking(self) -> tuple[int, int] | None:
        return asking() if self._shared else None

    @contextlib.contextmanager
    def _changing(self, path: str) -> Iterator[None]:
        """What is done to the file at `path` changes attributes that the kernel may know by its other names, too."""
        key = None
        if self._links:
            with contextlib.suppress(OSError):
                key = self._tree.getattr(path).key
        yield
        if key is not None:
            self._forget_others(key, path)

    def _forget_others(self, key: FileId, path: str) -> None:
        for other in self._links.others(key, path):
            self._connection.forget(other)

    # names

    def readlink(self, path: str) -> str:
        return self._tree.readlink(path)

    def mknod(self, path: str, mode: int, device: int) -> None:
        self._tree.mknod(path, mode, device, self._asking())

    def mkdir(self, path: str, mode: int) -> None:
        self._tree.mkdir(path, mode, self._asking())

    def unlink(self, path: str) -> None:
        with self._changing(path):
            self._tree.unlink(path)

    def rmdir(self, path: str) -> None:
        self._tree.rmdir(path)

    def symlink(self, path: str, target: str) -> None:
        self._tree.symlink(target, path, self._asking())

    def rename_with_flags(self, old: str, new: str, flags: int) -> None:
        if flags & ~_RENAME_NOREPLACE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        with self._changing(old), self._changing(new):
            self._tree.rename(old, new, replace=not flags)

    def rename(self, old: str, new: str) -> None:  # its presence has mfusepy register `rename_fuse_3`
        self.rename_with_flags(old, new, 0)

    def link(self, new: str, old: str) -> None:
        self._tree.link(old, new)
        key = self._tree.getattr(old).key
        for path in (old, new):
            self._links.note(key, path)
        self._forget_others(key, new)

    def opendir(self, path: str) -> int:
        number = next(self._numbers)
        self._folders[number] = self._tree.open_folder(path)
        return number

    def readdir(self, path: str | None, number: int) -> Iterator[tuple[str, int, int]]:
        for name, file_type in self._folders[number].entries():
            yield name, file_type, 0

    def fsyncdir(self, path: str | None, data_only: int, number: int) -> None:
        self._folders[number].fsync()

    def releasedir(self, path: str | None, number: int) -> None:
        self._folders.pop(number).release()

    # attributes

    def getattr(self, path: str | None, info: Any = None) -> dict[str, int]:
        if info is not None:
            return _stat(self._tree.getattr_open(self._handles[info.fh]))
        assert path is not None
        attributes = self._tree.getattr(path)
        if self._tree.hidden and self._tree.backing(path) in self._tree.hidden:  # it was unlinked, as far as its users know
            attributes = replace(attributes, nlink=attributes.nlink - 1)
        if attributes.nlink > 1 and not stat.S_ISDIR(attributes.mode):
            self._links.note(attributes.key, path)
        return _stat(attributes)

    def chmod(self, path: str, mode: int) -> None:
        with self._changing(path):
            self._tree.chmod(path, mode & 0o7777)

    def chown(self, path: str, uid: int, gid: int) -> None:
        with self._changing(path):
            self._tree.chown(path, uid, gid)

    def utimens(self, path: str, times: tuple[int | None, int | None]) -> None:
        with self._changing(path):
            self._tree.utimens(path, *times)

    def statfs(self, path: str) -> dict[str, int]:
        status = self._tree.statfs()
        return {name: getattr(status, name) for name in dir(status) if name.startswith("f_")}

    def getxattr(self, path: str, name: str) -> bytes:
        if name == "user.sdfs.store" and path == "/":
            return os.fsencode(self._owner.store.root)
        if name == "user.sdfs.status":
            with contextlib.suppress(UserError):
                return json.dumps(asdict(self._owner.services.stat(path))).encode()
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return self._tree.getxattr(path, name)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        self._tree.setxattr(path, name, value, flags)

    def listxattr(self, path: str) -> list[str]:
        return self._tree.listxattr(path)

    def removexattr(self, path: str, name: str) -> None:
        self._tree.removexattr(path, name)

    # files

    def create(self, path: str, mode: int, info: Any) -> None:
        self._opened(info, self._tree.create(path, mode, info.flags, self._asking()))

    def open(self, path: str, info: Any) -> None:
        self._opened(info, self._tree.open(path, info.flags))

    def _opened(self, info: Any, handle: Handle) -> None:
        info.keep_cache = handle.keep_cache
        info.fh = next(self._numbers)
        self._handles[info.fh] = handle

    def read(self, path: str | None, size: int, offset: int, info: Any) -> bytes:
        return self._handles[info.fh].read(size, offset)

    def write(self, path: str | None, data: bytes, offset: int, info: Any) -> int:
        return self._handles[info.fh].write(data, offset)

    def truncate(self, path: str | None, size: int, info: Any = None) -> None:
        if info is not None:
            self._handles[info.fh].truncate(size)
        else:
            assert path is not None
            with self._changing(path):
                self._tree.truncate(path, size)

    def fallocate(self, path: str | None, mode: int, offset: int, size: int, info: Any) -> None:
        if mode:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._handles[info.fh].allocate(offset, size)

    def flush(self, path: str | None, info: Any) -> None:
        handle = self._handles[info.fh]
        handle.flush()
        if self._links and (path := handle.inode.path) is not None:
            self._forget_others(self._tree.getattr_open(handle).key, self._tree.virtual(path))

    def fsync(self, path: str | None, data_only: int, info: Any) -> None:
        self._handles[info.fh].fsync(data_only=bool(data_only))

    def release(self, path: str | None, info: Any) -> None:
        self._tree.release(self._handles.pop(info.fh))


def _stat(attributes: Attributes) -> dict[str, int]:
    return {
        "st_mode": attributes.mode,
        "st_nlink": attributes.nlink,
        "st_size": attributes.size,
        "st_uid": attributes.uid,
        "st_gid": attributes.gid,
        "st_atime": attributes.atime_ns,
        "st_mtime": attributes.mtime_ns,
        "st_ctime": attributes.ctime_ns,
        "st_blocks": attributes.blocks,
        "st_rdev": attributes.rdev,
    }
