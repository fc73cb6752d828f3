"""The virtual file tree: every operation of a filesystem, without FUSE.

Paths are those of the mount: absolute, normalised, `str` with surrogateescape. `.sdfs` does not exist in it. Errors are OSError with the
errno a kernel would give, or DamagedError, StoreTooNew, EngineError. Thread-safe; the locks are described in `sdfs.owner.tree.inode`.

The operations on names and attributes are here; those on open files are `sdfs.owner.tree.handle.Handle`'s.

    chmod …     under the inode's lock, and on its working copy while there is one (`sdfs.owner.tree.attributes`)
    rename …    under `names`, so that whoever renames a staged file into the tree does it over the file it means, and finds its folder
                as it was (`sdfs.owner.tree.install`)
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from sdfs.blob.container import KIND_LATENT
from sdfs.errors import SdfsError
from sdfs.owner.index.contents import ContentIndex
from sdfs.owner.index.pending import Pending
from sdfs.owner.index.preambles import Preambles
from sdfs.owner.renders.read_ahead import ReadAhead
from sdfs.owner.renders.renders import Renders
from sdfs.owner.store.attributes import XATTR_PREFIX
from sdfs.owner.store.durable_names import DurableNames
from sdfs.owner.store.store import HIDDEN, INTERNAL, Store
from sdfs.owner.tree.attributes import Attributes, Targets, is_foreign_xattr, refuse_foreign_xattr, refuse_own_xattr
from sdfs.owner.tree.handle import Handle
from sdfs.owner.tree.inode import InodeTable, split_mode
from sdfs.owner.tree.install import Install, SeveralNames
from sdfs.owner.tree.open_folder import OpenFolder
from sdfs.owner.tree.opening import Opener, backing_flags
from sdfs.owner.tree.pages import Pages
from sdfs.system.file_id import FileId
from sdfs.system.files import rename_noreplace

_INTERNAL = "/" + INTERNAL
_T = TypeVar("_T")


class Tree:
    def __init__(self, store: Store, renders: Renders, pending: Pending, *, read_ahead: int, forget: Callable[[str], None]) -> None:
        """`read_ahead`: pictures. `forget`: has the kernel forget its pages of a path."""
        self.store = store
        self._root = store.root.rstrip("/")
        self.preambles = Preambles()
        self.pending = pending
        self.durable_names = DurableNames(store.root)
        self.content_index = ContentIndex(store)
        pages = Pages()
        self.install = Install(store, self.durable_names, self.content_index, pages, pending, lambda backing: forget(self.virtual(backing)))
        self.read_ahead = ReadAhead(self.preambles, renders, read_ahead) if read_ahead else None
        on_read = self.read_ahead.note if self.read_ahead is not None else lambda path: None
        self.inodes = InodeTable(
            store, self.preambles, renders, pending, self.durable_names, self.content_index, pages, self.install, on_read
        )
        self.hidden: set[str] = set()  # backing paths that libfuse hid
        self.opener = Opener(self.inodes)
        self._targets = Targets(self.inodes)
        self._renders = renders

    # paths

    def backing(self, path: str) -> str:
        """Where the tree's `path` is. Raises FileNotFoundError inside `.sdfs`."""
        if _is_internal(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._root + path if path != "/" else self.store.root

    def virtual(self, backing: str) -> str:
        """The tree's path of a backing path."""
        return backing[len(self._root) :] or "/"

    def new_backing(self, path: str) -> str:
        """Where a new name would be. Raises PermissionError for `.sdfs`."""
        if _is_internal(path):
            raise PermissionError(errno.EPERM, "the name is the store's own", path)
        return self._root + path

    # names

    def mkdir(self, path: str, mode: int, owner: tuple[int, int] | None = None) -> None:
        """`owner`: uid and gid of who asks, where it may be somebody else than the owner process."""
        backing = self.new_backing(path)
        self._make(backing, lambda: os.mkdir(backing, mode), owner, os.rmdir)

    def rmdir(self, path: str) -> None:
        backing = self.backing(path)
        with self.inodes.names:
            os.rmdir(backing)

    def mknod(self, path: str, mode: int, device: int, owner: tuple[int, int] | None = None) -> None:
        backing = self.new_backing(path)
        self._make(backing, lambda: os.mknod(backing, mode, device), owner)

    def symlink(self, target: str, path: str, owner: tuple[int, int] | None = None) -> None:
        backing = self.new_backing(path)
        self._make(backing, lambda: os.symlink(target, backing), owner)

    def readlink(self, path: str) -> str:
        return os.readlink(self.backing(path))

    def link(self, old: str, new: str) -> None:
        """A second name for an unwrapped file. Raises ENOTSUP for a blob, and for a file whose content is not in the tree yet."""
        backing, target = self.backing(old), self.new_backing(new)
        with self._targets.locked(backing) as inode, self.inodes.names:
            if inode is not None and (inode.is_staged or self.preambles.is_blob(backing)):
                raise OSError(errno.ENOTSUP, "a picture in the store cannot have a second name", old)
            self.store.with_room(lambda: os.link(backing, target, follow_symlinks=False))
            self.durable_names.changed(target)

    def rename(self, old: str, new: str, *, replace: bool = True) -> None:
        source, target = self.backing(old), self.new_backing(new)
        with self.inodes.names:
            moved, replaced = os.lstat(source), _lstat(target)
            same = replaced is not None and os.path.samestat(moved, replaced)
            with self._keeping_blob(target) if replace and not same else contextlib.nullcontext():
                self.store.with_room(partial(os.rename if replace else rename_noreplace, source, target))  # a folder may have to grow
            self.durable_names.changed(target)
            if not same:
                self.inodes.renamed(source, target)
                self._follow(moved, source, target)
        if replaced is not None and not same:
            self._lost_name(replaced)
        if HIDDEN.fullmatch(os.path.basename(target)):
            self.hidden.add(target)
            self.sweep_hidden(target)
            self.pending.poke()

    def sweep_hidden(self, backing: str) -> None:
        """Remove what libfuse hid, since it was open when it was removed, once nobody has it open.

        libfuse does that at the release, but forgets it if the release comes while it hides the file; then the folder could not
        be removed. Into the trash, for a user may have given a file such a name.
        """
        with contextlib.suppress(FileNotFoundError), self.inodes.names:
            inode = self.inodes.find(FileId.of(os.lstat(backing)))
            if inode is not None and inode.handles:
                return
            with self.store.reach(backing) as name:
                self.store.trash.rescue(name)
        self.hidden.discard(backing)

    @contextlib.contextmanager
    def _keeping_blob(self, path: str) -> Iterator[None]:
        """Keep a blob that is replaced: its successor may be a render of it, edited, and wants its latents."""
        kept = None
        with contextlib.suppress(OSError):
            if self.preambles.is_blob(path):
                kept = self.store.keep(path)
        try:
            yield
        except BaseException:
            if kept is not None:
                self.store.trash.forget(kept)
            raise

    def _follow(self, moved: os.stat_result, source: str, target: str) -> None:
        """What is remembered by path goes where the file, or the folder with all below it, went."""
        if stat.S_ISDIR(moved.st_mode):
            self.pending.rename_folder(source, target)
            self.content_index.rename_folder(source, target)
        elif stat.S_ISREG(moved.st_mode):
            self.pending.rename(FileId.of(moved), target)
            self.content_index.rename(source, target, moved.st_size)

    def unlink(self, path: str) -> None:
        backing = self.backing(path)
        with self.inodes.names:
            status = os.lstat(backing)
            os.unlink(backing)
            self.inodes.unlinked(backing)
        self._lost_name(status)

    def _lost_name(self, status: os.stat_result) -> None:
        """A picture that has one name left, which one nobody knows, may become a blob now."""
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 2:
            self.pending.search_for(FileId.of(status))

    def open_folder(self, path: str) -> OpenFolder:
        backing = self.backing(path)
        fd = os.open(backing, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return OpenFolder(fd, INTERNAL if path == "/" else None, partial(self.durable_names.sync, backing), partial(self._foresee, backing))

    def _foresee(self, folder: str, names: list[str]) -> None:
        """Have the model loaded where one of these files is latents: whoever lists pictures is likely to open one."""
        for name in names:
            with contextlib.suppress(OSError, SdfsError):
                blob = self.preambles.look(f"{folder}/{name}")[1]
                if blob is not None and blob.kind == KIND_LATENT:
                    self._renders.warm()
                    return

    # attributes

    def getattr(self, path: str) -> Attributes:
        """Never decodes: at most one pread of a blob's preamble. A damaged blob has the size of its backing file."""
        return self._targets.show(self.backing(path))

    def getattr_open(self, handle: Handle) -> Attributes:
        """The same for an open file, unlinked or not."""
        return self._targets.show_open(handle)

    def chmod(self, path: str, mode: int) -> None:
        """Raises PermissionError for a picture that has several names and cannot have the mode in the backing."""
        backing = self.backing(path)
        try:
            while not self._chmod(backing, mode):  # the name is another file's by now: it is that one's turn
                pass
        except SeveralNames:  # they would be two files then
            raise PermissionError(errno.EPERM, "a picture in the store that has several names keeps its mode", path) from None

    def _chmod(self, backing: str, mode: int) -> bool:
        with self._targets.locked(backing) as inode:
            if inode is None:
                os.chmod(backing, mode)
                return True
            if (working := inode.working) is not None:
                os.fchmod(working.fd, mode)
                inode.changed()
                return True
            with self.inodes.names:
                status, preamble = self._targets.look(backing)
                if not self.inodes.is_known_by(FileId.of(status), inode):
                    return False
                backing_mode, preamble_mode = split_mode(mode)
                if preamble is None or preamble.mode == preamble_mode:
                    os.chmod(backing, mode if preamble is None else backing_mode)
                    return True
                if status.st_nlink > 1:  # before it is copied in vain
                    raise SeveralNames
            return inode.replace_mode(backing, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """-1: leave it."""
        with self._targets.changing(self.backing(path)) as (target, how):
            os.chown(target, uid, gid, **how)

    def utimens(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        """None: leave it."""
        with self._targets.changing(self.backing(path)) as (target, how), self.inodes.names:  # of a folder: no swap puts its own back
            status = os.stat(target, **how)
            times = (status.st_atime_ns if atime_ns is None else atime_ns, status.st_mtime_ns if mtime_ns is None else mtime_ns)
            os.utime(target, ns=times, **how)

    def getxattr(self, path: str, name: str) -> bytes:
        refuse_foreign_xattr(name)
        with self._targets.reading(self.backing(path)) as (target, how):
            return os.getxattr(target, name, **how)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        refuse_own_xattr(name)
        with self._targets.changing(self.backing(path)) as (target, how):
            os.setxattr(target, name, value, flags, **how)

    def listxattr(self, path: str) -> list[str]:
        with self._targets.reading(self.backing(path)) as (target, how):
            return [name for name in os.listxattr(target, **how) if not (name.startswith(XATTR_PREFIX) or is_foreign_xattr(name))]

    def removexattr(self, path: str, name: str) -> None:
        refuse_own_xattr(name)
        with self._targets.changing(self.backing(path)) as (target, how):
            os.removexattr(target, name, **how)

    def statfs(self) -> os.statvfs_result:
        return os.statvfs(self.store.root)

    # files

    def create(self, path: str, mode: int, flags: int, owner: tuple[int, int] | None = None) -> Handle:
        """open() with O_CREAT."""
        backing = self.new_backing(path)
        try:
            fd = self._make(backing, lambda: os.open(backing, backing_flags(flags) | os.O_CREAT | os.O_EXCL, mode), owner)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return self.open(path, flags)
        handle = self.opener.register(backing, fd, flags)
        return handle if handle is not None else self.open(path, flags)

    def open(self, path: str, flags: int) -> Handle:
        handle = self.opener.open(self.backing(path), flags)
        if flags & os.O_TRUNC:
            try:
                handle.truncate(0)
            except BaseException:
                self.release(handle)
                raise
        return handle

    def truncate(self, path: str, size: int) -> None:
        handle = self.open(path, os.O_WRONLY)
        try:
            handle.truncate(size)
            handle.flush()
        finally:
            self.release(handle)

    def release(self, handle: Handle) -> None:
        """Nobody uses the handle any more."""
        inode = handle.inode
        with inode.lock:
            if inode.written and not inode.is_staged:
                self.inodes.pages.note(handle.fd)
        handle.release()

    def _make(self, backing: str, make: Callable[[], _T], owner: tuple[int, int] | None, unmake: Callable[[str], None] = os.unlink) -> _T:
        """Make a new name, of whoever asked for it, or none; returns what `make` does, which is a descriptor of it or nothing."""
        with self.inodes.names:
            made = self.store.with_room(make)
            try:
                _give(backing, owner)
            except BaseException:
                unmake(backing)
                if isinstance(made, int):
                    os.close(made)
                raise
            self.durable_names.changed(backing)
        return made


def _give(backing: str, owner: tuple[int, int] | None) -> None:
    """Give a new name to whoever asked for it; its group stays that of a set-gid folder."""
    if owner is None or owner == (os.geteuid(), os.getegid()):
        return
    inherits = os.stat(os.path.dirname(backing)).st_mode & stat.S_ISGID
    os.chown(backing, owner[0], -1 if inherits else owner[1], follow_symlinks=False)


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _is_internal(path: str) -> bool:
    return path.startswith(_INTERNAL) and path[len(_INTERNAL) :][:1] in ("", "/")
