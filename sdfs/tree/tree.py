"""The virtual file tree: every operation of a filesystem, without FUSE.

Paths are those of the mount: absolute, normalised, `str` with surrogateescape. `.sdfs` does not exist in it. Errors are OSError with the
errno a kernel would give, or DamagedError, StoreTooNew, EngineError. Thread-safe; the locks are described in `sdfs.tree.inode`.

The operations on names and attributes are here; those on open files are `sdfs.tree.handle.Handle`'s.

    open        descriptor → inode → under its lock: is the name still this inode? else once more. So an opener either is seen by a
                swap, which then waits, or sees the new file.
    chmod …     under the inode's lock, and on its working copy while there is one
    rename …    under `names`, so that whoever renames a staged file into the tree does it over the file it means
"""

# System calls on `str` paths, which need not be decodable, and on descriptors.
# ruff: noqa: PTH101, PTH102, PTH106, PTH108, PTH115, PTH116, PTH119, PTH120, PTH211
from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sdfs.container import KIND_RAW, Preamble, is_blob
from sdfs.errors import DamagedError, SdfsError, SourceChanged, StoreTooNew
from sdfs.files import XATTR_PREFIX, content_sha256, copy_attributes, rename_noreplace
from sdfs.signatures import HEAD_BYTES, picture_format
from sdfs.store import HIDDEN, INTERNAL, Store
from sdfs.tree.folders import Folders
from sdfs.tree.handle import Handle
from sdfs.tree.heads import Heads
from sdfs.tree.inode import BEGINS_LIKE_A_BLOB, Inode, InodeTable, key_of, logical_mode, split_mode
from sdfs.tree.known import KnownBlobs
from sdfs.tree.pending import Key, Pending
from sdfs.tree.raw import wrap
from sdfs.tree.renders import Renders

_INTERNAL = "/" + INTERNAL
_REMEMBERED_OPENS = 1 << 16
_DROPPED_FLAGS = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_DIRECT | os.O_NOFOLLOW


@dataclass(frozen=True)
class Attributes:
    """The parts of `struct stat`; and which backing inode they are of."""

    key: Key
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


def _attributes(status: os.stat_result, preamble: Preamble | None) -> Attributes:
    return Attributes(
        key_of(status),
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


class Folder:
    """An open folder."""

    def __init__(self, fd: int, hide: str | None, sync_name: Callable[[], None]) -> None:
        """`sync_name` makes the folder's own name durable."""
        self._fd = fd
        self._hide = hide
        self._sync_name = sync_name

    def entries(self) -> Iterator[tuple[str, int]]:
        """Names and file types (the S_IFMT bits)."""
        yield ".", stat.S_IFDIR
        yield "..", stat.S_IFDIR
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.name != self._hide:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.name, _file_type(entry)

    def fsync(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # it was renamed or removed since it was opened
            self._sync_name()
        os.fsync(self._fd)

    def release(self) -> None:
        os.close(self._fd)


def _file_type(entry: os.DirEntry[str]) -> int:
    """From the listing itself where it says, which it does for all but special files."""
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)


class Tree:
    def __init__(self, store: Store, renders: Renders, pending: Pending) -> None:
        self.store = store
        self.heads = Heads()
        self.pending = pending
        self.folders = Folders(store.root)
        self.inodes = InodeTable(store, self.heads, renders, pending, self.folders)
        self._root = store.root.rstrip("/")
        self.known = KnownBlobs(store)
        self.hidden: set[str] = set()  # backing paths that libfuse hid
        self._renders = renders
        self._opened_lock = threading.Lock()
        self._opened: dict[Key, tuple[int, int]] = {}  # size and mtime_ns of what the kernel may have pages of

    # paths

    def backing(self, path: str) -> str:
        """Where the tree's `path` is. Raises FileNotFoundError inside `.sdfs`."""
        if _is_internal(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._root + path if path != "/" else self.store.root

    def virtual(self, backing: str) -> str:
        """The tree's path of a backing path."""
        return backing[len(self._root) :] or "/"

    def _new(self, path: str) -> str:
        """Where a new name would be. Raises PermissionError for `.sdfs`."""
        if _is_internal(path):
            raise PermissionError(errno.EPERM, "the name is the store's own", path)
        return self._root + path

    # names

    def mkdir(self, path: str, mode: int, owner: tuple[int, int] | None = None) -> None:
        """`owner`: uid and gid of who asks, where it may be somebody else than the owner process."""
        backing = self._new(path)
        self.store.with_room(lambda: os.mkdir(backing, mode))
        self.folders.changed(backing)
        self._give(backing, owner)

    def rmdir(self, path: str) -> None:
        os.rmdir(self.backing(path))

    def mknod(self, path: str, mode: int, device: int, owner: tuple[int, int] | None = None) -> None:
        backing = self._new(path)
        self.store.with_room(lambda: os.mknod(backing, mode, device))
        self.folders.changed(backing)
        self._give(backing, owner)

    def symlink(self, target: str, path: str, owner: tuple[int, int] | None = None) -> None:
        backing = self._new(path)
        self.store.with_room(lambda: os.symlink(target, backing))
        self._give(backing, owner)

    def readlink(self, path: str) -> str:
        return os.readlink(self.backing(path))

    def link(self, old: str, new: str) -> None:
        """A second name for an unwrapped file. Raises ENOTSUP for a blob, and for a file whose content is not in the tree yet."""
        backing, target = self.backing(old), self._new(new)
        with self._locked(backing) as inode, self.inodes.names:
            if inode is not None and (inode.staged is not None or self.heads.is_blob(backing)):
                raise OSError(errno.ENOTSUP, "a picture in the store cannot have a second name", old)
            self.store.with_room(lambda: os.link(backing, target, follow_symlinks=False))
            self.folders.changed(target)

    def rename(self, old: str, new: str, *, replace: bool = True) -> None:
        source, target = self.backing(old), self._new(new)
        with self.inodes.names:
            moved, replaced = os.lstat(source), _lstat(target)
            same = replaced is not None and os.path.samestat(moved, replaced)
            if replace and not same:
                self._keep_blob(target)
            self.store.with_room(partial(os.rename if replace else rename_noreplace, source, target))  # a folder may have to grow
            self.folders.changed(target)
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
            inode = self.inodes.find(key_of(os.lstat(backing)))
            if inode is not None and inode.handles:
                return
            self.store.trash.rescue(backing)
        self.hidden.discard(backing)

    def _keep_blob(self, path: str) -> None:
        """Keep a blob that is to be replaced: its successor may be a render of it, edited, and wants its latents."""
        with contextlib.suppress(OSError):
            if self.heads.is_blob(path):
                self.store.keep(path)

    def _follow(self, moved: os.stat_result, source: str, target: str) -> None:
        """What is remembered by path goes where the file, or the folder with all below it, went."""
        if stat.S_ISDIR(moved.st_mode):
            self.pending.rename_folder(source, target)
            self.known.rename_folder(source, target)
        elif stat.S_ISREG(moved.st_mode):
            self.pending.rename(key_of(moved), target)
            self.known.rename(source, target, moved.st_size)

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
            self.pending.search_for(key_of(status))

    def open_folder(self, path: str) -> Folder:
        backing = self.backing(path)
        fd = os.open(backing, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return Folder(fd, INTERNAL if path == "/" else None, partial(self.folders.sync, backing))

    # attributes

    def getattr(self, path: str) -> Attributes:
        """Never decodes: at most one pread of a blob's preamble. A damaged blob has the size of its backing file."""
        backing = self.backing(path)
        status, preamble = self._look(backing)
        inode = self.inodes.find(key_of(status))
        if inode is not None and inode.is_ahead:
            with inode.lock:
                if inode.is_ahead:
                    return _attributes(os.fstat(inode.working), None)
            return self.getattr(path)
        return _attributes(status, preamble)

    def _look(self, backing: str) -> tuple[os.stat_result, Preamble | None]:
        """lstat, and the preamble where it is a blob that is not damaged."""
        try:
            return self.heads.look(backing)
        except (DamagedError, StoreTooNew):
            return os.lstat(backing), None

    def getattr_open(self, handle: Handle) -> Attributes:
        """The same for an open file, unlinked or not."""
        inode = handle.inode
        path = inode.path
        if path is not None and inode.staged is not None and not inode.is_ahead:
            return self.getattr(self.virtual(path))
        return _attributes(os.fstat(handle.fd), inode.preamble if inode.working < 0 else None)

    def chmod(self, path: str, mode: int) -> None:
        backing = self.backing(path)
        with self._locked(backing) as inode:
            if inode is None:
                os.chmod(backing, mode)
            elif inode.working >= 0:
                os.fchmod(inode.working, mode)
                inode.dirty = inode.staged is not None
            else:
                _, preamble = self._look(backing)
                backing_mode, preamble_mode = split_mode(mode)
                if preamble is None:
                    os.chmod(backing, mode)
                elif preamble.mode == preamble_mode:
                    os.chmod(backing, backing_mode)
                else:
                    inode.replace_mode(backing, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """-1: leave it."""
        with self._changing(path) as (target, how):
            os.chown(target, uid, gid, **how)

    def utimens(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        """None: leave it."""
        with self._changing(path) as (target, how):
            status = os.stat(target, **how)
            times = (status.st_atime_ns if atime_ns is None else atime_ns, status.st_mtime_ns if mtime_ns is None else mtime_ns)
            os.utime(target, ns=times, **how)

    def getxattr(self, path: str, name: str) -> bytes:
        _refuse_acl(name)
        with self._reading(path) as (target, how):
            return os.getxattr(target, name, **how)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        _refuse_own_xattr(name)
        with self._changing(path) as (target, how):
            os.setxattr(target, name, value, flags, **how)

    def listxattr(self, path: str) -> list[str]:
        with self._reading(path) as (target, how):
            return [name for name in os.listxattr(target, **how) if not name.startswith(XATTR_PREFIX)]

    def removexattr(self, path: str, name: str) -> None:
        _refuse_own_xattr(name)
        with self._changing(path) as (target, how):
            os.removexattr(target, name, **how)

    def statfs(self) -> os.statvfs_result:
        return os.statvfs(self.store.root)

    @contextlib.contextmanager
    def _locked(self, backing: str) -> Iterator[Inode | None]:
        """The inode behind a name, locked, the name being its for as long as nobody renames; None for what is no regular file."""
        while True:
            status = os.lstat(backing)
            if not stat.S_ISREG(status.st_mode):
                yield None
                return
            with self.inodes.holding(key_of(status)) as inode, inode.lock:
                if key_of(os.lstat(backing)) in inode.keys:
                    yield inode
                    return

    @contextlib.contextmanager
    def _changing(self, path: str) -> Iterator[tuple[str | int, dict[str, Any]]]:
        """What to change an attribute of: the working copy or the tree's file, and the further arguments this takes."""
        backing = self.backing(path)
        with self._locked(backing) as inode:
            if inode is not None and inode.working >= 0:
                yield inode.working, {}
                inode.dirty = inode.staged is not None
            else:
                yield backing, {"follow_symlinks": False}

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[tuple[str | int, dict[str, Any]]]:
        """The same to read an attribute, without a lock where there is no working copy."""
        backing = self.backing(path)
        inode = self.inodes.find(key_of(os.lstat(backing)))
        if inode is None or inode.working < 0:
            yield backing, {"follow_symlinks": False}
            return
        with inode.lock:
            if inode.working >= 0:
                yield inode.working, {}
            else:
                yield backing, {"follow_symlinks": False}

    # files

    def create(self, path: str, mode: int, flags: int, owner: tuple[int, int] | None = None) -> Handle:
        """open() with O_CREAT."""
        backing = self._new(path)
        try:
            fd = self.store.with_room(lambda: os.open(backing, _backing_flags(flags) | os.O_CREAT | os.O_EXCL, mode))
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return self.open(path, flags)
        try:
            self.folders.changed(backing)
            self._give(backing, owner)
        except OSError:
            os.close(fd)
            raise
        handle = self._register(backing, fd, flags)
        return handle if handle is not None else self.open(path, flags)

    def open(self, path: str, flags: int) -> Handle:
        backing = self.backing(path)
        while True:
            try:
                fd = os.open(backing, _backing_flags(flags))
            except PermissionError:
                if flags & os.O_ACCMODE != os.O_WRONLY:
                    raise
                fd = os.open(backing, flags & ~_DROPPED_FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC)
            handle = self._register(backing, fd, flags)
            if handle is not None:
                break
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
            if inode.written and inode.staged is None:
                self._note_opened(handle.fd)
        handle.release()

    def _register(self, backing: str, fd: int, flags: int) -> Handle | None:
        """A handle for `fd`, opened as `backing`; None if that is another file by now. Takes over `fd`."""
        try:
            status = os.fstat(fd)
            with self.inodes.holding(key_of(status)) as inode, inode.lock:
                if not self._names_it(backing, inode, key_of(status)):
                    os.close(fd)
                    return None
                if not inode.handles:
                    inode.blob = self._head(fd, status)
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    self.pending.touch(key_of(status))
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

    def _names_it(self, backing: str, inode: Inode, key: Key) -> bool:
        """Whether the name still is of the very file that was opened, `key`, and that file still is the inode's.

        While the opener waited for the lock, a commit may have given the inode another file: what was opened is outdated then.
        """
        with self.inodes.names:
            try:
                same = key_of(os.lstat(backing)) == key and key in inode.keys
            except FileNotFoundError:
                return False
            if same:
                inode.path = backing
            return same

    def _head(self, fd: int, status: os.stat_result) -> Preamble | SdfsError | None:
        try:
            return self.heads.of(fd, status)
        except OSError as error:
            if error.errno != errno.EBADF:  # writable only: no blob, for these are readable for their owner
                raise
            return None
        except (DamagedError, StoreTooNew) as error:
            return error

    def _may_keep_cache(self, handle: Handle, fd: int, status: os.stat_result) -> bool:
        """Whether the pages that the kernel may have of this name are what the handle will read.

        The kernel has a page cache per name, and a name keeps its cache when its file is swapped: so no at the first open of a
        backing inode, at an inode that several names write to, and at a render that may come out differently.
        """
        state = (status.st_size, status.st_mtime_ns)
        known = self._opened.get(key_of(status)) == state
        if not known:
            self._note_opened(fd)
        blob = handle.inode.blob  # before `working`, as in Handle.read
        if status.st_nlink > 1 or not known or handle.inode.working >= 0:
            return False
        if blob is None or (isinstance(blob, Preamble) and blob.kind == KIND_RAW):
            return True
        with contextlib.suppress(DamagedError, StoreTooNew):
            return self._renders.is_canonical(handle.head(blob)[0])
        return False

    def _note_opened(self, fd: int) -> None:
        status = os.fstat(fd)
        with self._opened_lock:
            if len(self._opened) >= _REMEMBERED_OPENS:
                self._opened.clear()
            self._opened[key_of(status)] = (status.st_size, status.st_mtime_ns)

    def forget_opened(self, key: Key) -> None:
        """The file behind a name was replaced by this inode."""
        self._opened.pop(key, None)

    def import_file(self, source: int, path: str, sha256: str | None = None) -> None:
        """Make `path`, a new name, a copy of the open file `source`, with its attributes; durable when it returns.

        `sha256`: what is copied must have this hash (hexadecimal), else SourceChanged. Raises FileExistsError.
        """
        backing = self._new(path)
        status = os.fstat(source)
        mode = stat.S_IMODE(status.st_mode)
        staged = self.store.stage()
        try:
            self.store.copy(source, staged.fd)
            if sha256 is not None and content_sha256(staged.fd) != sha256:
                raise SourceChanged(f"{path} changes while it is copied")
            head = os.pread(staged.fd, HEAD_BYTES, 0)
            if is_blob(head):
                mode, preamble_mode = split_mode(mode)
                copied, staged = staged, wrap(self.store, staged.fd, BEGINS_LIKE_A_BLOB, preamble_mode)
                copied.discard()
            copy_attributes(source, staged.fd, mode)
            os.fsync(staged.fd)
            with self.inodes.names:
                self.store.with_room(partial(rename_noreplace, staged.path, backing))
                self.folders.changed(backing)
            self.folders.sync(backing)
            if picture_format(head) is not None:
                self.pending.offer(key_of(os.fstat(staged.fd)), backing)
        except BaseException:
            staged.discard()
            raise
        os.close(staged.fd)

    @staticmethod
    def _give(backing: str, owner: tuple[int, int] | None) -> None:
        """Give a new name to who asked for it; its group stays that of a set-gid folder."""
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


def _backing_flags(flags: int) -> int:
    """How to open the backing file: readable even for a writer, who may have to look at its head."""
    if flags & os.O_ACCMODE == os.O_WRONLY:
        flags = flags & ~os.O_ACCMODE | os.O_RDWR
    return flags & ~_DROPPED_FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC


def _refuse_acl(name: str) -> None:
    """FUSE would show POSIX ACLs that nobody enforces."""
    if name.startswith("system.posix_acl_"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), name)


def _refuse_own_xattr(name: str) -> None:
    _refuse_acl(name)
    if name.startswith(XATTR_PREFIX):
        raise PermissionError(errno.EPERM, "the attribute is the store's own", name)
