"""The kernel's side: a thin FUSE adapter over the tree, and mounting and unmounting.

    run → checks → (background: fork, before any thread exists) → Owner → FUSE(…), which returns once it is unmounted

Facts about mfusepy 3.1 and libfuse 3.14 that the code relies on, all tried:

- Paths are needed for operations on names only. With `nullpath_ok` libfuse does not hold its locks on a path, and on all folders
  above it, while a file is read: else a rename beside a slow decode would stop every lookup in the folder.
- The kernel has at most `max_background` readahead requests under way, and libfuse at most `max_threads` handlers: 64 of each, for some
  of them wait for decodes.
- mfusepy drops rename's flags and ftruncate's handle, and UTIME_NOW and UTIME_OMIT come as tv_nsec: `_Fuse` takes the raw calls.
- Whatever a handler raises becomes an errno in `_Fuse._wrapper`, nowhere else.
- After SIGTERM `FUSE()` may raise RuntimeError(8) though it unmounted cleanly.
"""

# ruff: noqa: PTH100, PTH208
from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import json
import logging
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from sdfs import errors
from sdfs.control import serving
from sdfs.errors import MountError, NotAStore, SdfsError, UserError
from sdfs.store import INTERNAL, is_store, read_owner
from sdfs.tree.inode import Handle
from sdfs.tree.links import Links
from sdfs.tree.owner import Owner
from sdfs.tree.pending import Key
from sdfs.tree.tree import Attributes, Folder

os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # mfusepy would take libfuse 2 where both are installed
try:
    import mfusepy
except OSError as error:
    raise MountError(f"libfuse 3 is not to be had ({error}): install the package fuse3") from error
if mfusepy.fuse_version_major != 3:
    raise MountError(f"libfuse: want version 3, have {mfusepy.fuse_version_major}.{mfusepy.fuse_version_minor}")

MAX_REQUESTS = 64
MAX_LOG_BYTES = 1 << 20
_UTIME_NOW = (1 << 30) - 1
_UTIME_OMIT = (1 << 30) - 2
_RENAME_NOREPLACE = 1
_OWNER_END_SECONDS = 30.0
_FUSERMOUNT_SECONDS = 60.0
_log = logging.getLogger("sdfs.mount")


class _KernelCache:
    """Makes the kernel forget pages. It must not be asked to by a thread that holds a lock which a handler may wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # libfuse's struct is there while it is held and `_fuse` is not None
        self._fuse: int | None = None

    def attach(self) -> None:
        """In a handler, once the mount is there."""
        self._fuse = mfusepy._libfuse.fuse_get_context().contents.fuse

    def detach(self) -> None:
        with self._lock:
            self._fuse = None

    def forget(self, path: str) -> None:
        with self._lock:
            if self._fuse is not None:
                mfusepy._libfuse.fuse_invalidate_path(ctypes.c_void_p(self._fuse), os.fsencode(path))


class _Operations(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    """Turns file handles into numbers and back, and the tree's answers into mfusepy's."""

    use_ns = True
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(self, owner: Owner, *, read_only: bool, shared: bool, on_mounted: Callable[[], None]) -> None:
        """`shared`: others than the owner process's user may come; what they make is theirs."""
        self.mounted = False
        self._owner = owner
        self._tree = owner.tree
        self._read_only = read_only
        self._shared = shared
        self._on_mounted = on_mounted
        self._cache = _KernelCache()
        self._links = Links()
        self._numbers = itertools.count(1)
        self._handles: dict[int, Handle] = {}
        self._folders: dict[int, Folder] = {}

    def init_with_config(self, connection: Any, config: Any) -> None:
        connection.max_background = MAX_REQUESTS
        connection.congestion_threshold = MAX_REQUESTS * 3 // 4
        self._cache.attach()
        self._owner.compressor.on_swap = self._cache.forget
        if not self._read_only:
            self._owner.compressor.start()
        self.mounted = True
        self._on_mounted()

    def destroy(self, path: str) -> None:
        self._cache.detach()

    def _asking(self) -> tuple[int, int] | None:
        if not self._shared:
            return None
        uid, gid, _ = mfusepy.fuse_get_context()
        return uid, gid

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

    def _forget_others(self, key: Key, path: str) -> None:
        for other in self._links.others(key, path):
            self._cache.forget(other)

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
                return json.dumps(asdict(self._owner.stat(path))).encode()
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
        if self._links and handle.inode.path is not None:
            self._forget_others(self._tree.getattr_open(handle).key, self._tree.virtual(handle.inode.path))

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


class _Fuse(mfusepy.FUSE):  # type: ignore[misc]  # mfusepy has no types
    def _wrapper(self, call: Callable[..., int | None], *arguments: Any) -> int:
        """The one place where errors become errnos. The tree has logged what is worth it; other exceptions are bugs."""
        try:
            return call(*arguments) or 0
        except OSError as error:
            return -(error.errno or errno.EIO)
        except SdfsError:
            return -errno.EIO
        except Exception:
            _log.exception("a handler failed")
            return -errno.EIO

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> None:
        self.operations.rename_with_flags(old.decode(self.encoding, self.errors), new.decode(self.encoding, self.errors), flags)

    def truncate_fuse_3(self, path: bytes | None, size: int, info: Any) -> None:
        decoded = None if path is None else path.decode(self.encoding, self.errors)
        self.operations.truncate(decoded, size, info.contents if info else None)

    def utimens_fuse_3(self, path: bytes, times: Any, info: Any) -> None:
        pair = (times.contents.actime, times.contents.modtime)
        self.operations.utimens(path.decode(self.encoding, self.errors), tuple(map(_nanoseconds, pair)))


def _nanoseconds(time_: Any) -> int | None:
    if time_.tv_nsec == _UTIME_OMIT:
        return None
    return time.time_ns() if time_.tv_nsec == _UTIME_NOW else time_.tv_sec * 10**9 + time_.tv_nsec


# mounting


def run(
    store: Path,
    mountpoint: Path,
    *,
    foreground: bool = False,
    options: str = "",
    become_owner: Callable[[Path], Owner] = Owner,
) -> None:
    """Mount a store.

    In the foreground it returns once it is unmounted; else once the mount is there, served by a process of its own that logs to
    `.sdfs/log`. `options`: FUSE's, separated by commas; and `nonempty`. Raises NotAStore, StoreBusy, StoreTooNew, MountError.
    """
    chosen = _parse(options)
    root, target = Path(os.path.realpath(store)), _mountpoint(mountpoint)
    if not is_store(root):
        raise NotAStore(f"{store} is no SDFS store: make it one with `sdfs init`")
    _check_places(root, target, allow_nonempty=bool(chosen.pop("nonempty", False)))
    if foreground:
        _log_to_stderr()
        _serve(root, target, chosen, become_owner, lambda: None)
    else:
        _serve_in_background(root, target, chosen, become_owner)


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount, and wait until the owner has ended. `lazy`: even while files are open, and without waiting. Raises MountError."""
    try:
        root = Path(os.fsdecode(os.getxattr(mountpoint, "user.sdfs.store")))
    except OSError:  # a dead mount, or none of ours: fusermount3 knows
        root = None
    owner = read_owner(root) if root else None
    _fusermount(mountpoint, lazy=lazy)
    end = time.monotonic() + _OWNER_END_SECONDS
    while not lazy and root and owner and read_owner(root) == owner:
        if time.monotonic() > end:
            raise MountError(f"{mountpoint} is unmounted, but process {owner.pid} still has {root}: somebody waits for an answer of it")
        time.sleep(0.02)


def _fusermount(mountpoint: Path, *, lazy: bool) -> None:
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), os.path.abspath(mountpoint)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_FUSERMOUNT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"{mountpoint} cannot be unmounted: {error}") from error
    if result.returncode:
        raise MountError(f"{mountpoint} cannot be unmounted: {result.stderr.strip() or 'fusermount3 does not say why'}")


def _parse(options: str) -> dict[str, str | bool]:
    parsed: dict[str, str | bool] = {}
    for option in filter(None, options.split(",")):
        name, equals, value = option.partition("=")
        parsed[name] = value if equals else True
    return parsed


def _mountpoint(path: Path) -> Path:
    """Where to mount; makes the folder, and unmounts what a killed owner left there."""
    try:
        os.statvfs(path)  # stat() may be answered from the kernel's cache for a second after the owner's death
    except FileNotFoundError:
        try:
            path.mkdir()
        except OSError as error:
            raise MountError(f"{path} is not there and cannot be made: {error.strerror}") from error
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise MountError(f"{path} cannot be used: {error.strerror}") from error
        _fusermount(path, lazy=True)
        _log.warning("%s was the dead mount of a process that was killed: it is unmounted now", path)
    if not path.is_dir():
        raise MountError(f"{path} is no folder")
    return Path(os.path.realpath(path))


def _check_places(root: Path, mountpoint: Path, *, allow_nonempty: bool) -> None:
    if os.path.ismount(mountpoint):
        raise MountError(f"{mountpoint} is a mountpoint already")
    if mountpoint == root or root in mountpoint.parents:
        raise MountError(f"the mountpoint {mountpoint} is inside the store {root}: take a folder elsewhere")
    if mountpoint in root.parents:
        raise MountError(f"the store {root} is inside the mountpoint {mountpoint}, which would hide it: take a folder elsewhere")
    if not allow_nonempty and os.listdir(mountpoint):
        raise MountError(f"{mountpoint} is not empty, and the mount would hide what it has: take an empty folder, or use -o nonempty")


def _serve(
    root: Path,
    mountpoint: Path,
    options: dict[str, str | bool],
    become_owner: Callable[[Path], Owner],
    on_mounted: Callable[[], None],
) -> None:
    """Own the store and serve the mount until it is unmounted."""
    os.umask(0)  # modes come with the caller's umask applied
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an open file of the mount is one of ours
    owner = become_owner(root)
    with serving(owner):
        owner.mountpoint = str(mountpoint)
        owner.unmount = lambda: _fusermount(mountpoint, lazy=False)
        owner.read_only = bool(options.get("ro"))
        operations = _Operations(owner, read_only=owner.read_only, shared=bool(options.get("allow_other")), on_mounted=on_mounted)
        try:
            _Fuse(operations, str(mountpoint), **_fuse_arguments(root, options))
        except RuntimeError as error:
            if not operations.mounted:
                raise MountError(f"{mountpoint} cannot be mounted: libfuse ended with {error}; it has written why to stderr") from None
            if error.args != (8,):
                _log.warning("libfuse ended with %s", error)
        finally:
            owner.interrupt()


def _fuse_arguments(root: Path, options: dict[str, str | bool]) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "foreground": True,  # libfuse must not fork: there are threads
        "raw_fi": True,  # keep_cache is set at each open
        "encoding": sys.getfilesystemencoding(),
        "fsname": str(root).replace("\\", "\\\\").replace(",", "\\,"),
        "subtype": "sdfs",
        "default_permissions": True,  # logical modes are not those of the backing
    }
    if mfusepy.fuse_version_minor >= 12:
        arguments["max_threads"] = arguments["max_idle_threads"] = MAX_REQUESTS
    return arguments | options


# the background process


def _serve_in_background(root: Path, mountpoint: Path, options: dict[str, str | bool], become_owner: Callable[[Path], Owner]) -> None:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        os.setsid()
        if os.fork() == 0:  # not a session leader, so that no terminal becomes its own
            _daemon(root, mountpoint, options, become_owner, writing)
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        message = pipe.read()
    if not message:
        raise MountError(f"{mountpoint} could not be mounted: its process was killed")
    name, text = json.loads(message)
    if name:
        raise getattr(errors, name)(text)


def _daemon(root: Path, mountpoint: Path, options: dict[str, str | bool], become_owner: Callable[[Path], Owner], pipe: int) -> NoReturn:
    """Serves the mount; tells through `pipe` how it went. Never returns into its parent's program."""
    told = False

    def tell(name: str, text: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(pipe, json.dumps([name, text]).encode())
            os.close(pipe)

    def mounted() -> None:
        tell("", "")
        _leave_terminal(root)

    status = 1
    try:
        os.chdir("/")
        _log_to_stderr()
        _serve(root, mountpoint, options, become_owner, mounted)
        status = 0
    except SdfsError as error:
        _log.error("%s", error) if told else tell(type(error).__name__, str(error))
    except BaseException as error:
        _log.exception("the mount of %s failed", root)
        tell("MountError", f"{mountpoint} could not be mounted: {type(error).__name__}: {error}")
    finally:
        sys.stderr.flush()
        os._exit(status)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    logger = logging.getLogger("sdfs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _leave_terminal(root: Path) -> None:
    """Standard input from nowhere, output and errors (libfuse's, the engine's, and the log) to `.sdfs/log`."""
    path = root / INTERNAL / "log"
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            path.rename(path.with_name("log.old"))
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
