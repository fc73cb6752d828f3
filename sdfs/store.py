"""The backing directory of a store: layout, ownership, staging, trash. docs/STORE.md is normative.

    <store>/…                the tree, one to one: unwrapped files, blobs, folders, links
    <store>/.sdfs/           0700; not part of the tree
        config.toml          format, features, defaults; written last by `init`, so that what has it is a store
        lock                 flock()ed by the owner; holds the owner's process id and control socket
        staging/             files that are being made; each is renamed into the tree or is worthless after a crash
        trash/               what a swap or a commit replaced (`sdfs.trash`)

Invariants:

- A regular file of the tree begins with the blob magic exactly if it is a blob. Whoever would break that with user bytes
  keeps them in staging and installs a blob around them.
- A name of the tree changes its content only by a rename of a staged file that was fsynced before.
- Only the owner, the process that holds the flock, changes anything.

Order, which a power loss at any moment relies on (`tests/crash` tries them all):

1. Content before its name: a staged file is fsynced, attributes included, before it is renamed.
2. An original in the trash before its blob in the tree: the original is fsynced, linked, and the trash fsynced, before the rename.
3. Nobody is told before the name is durable: the folder is fsynced after the rename, and before it, from the root down, the
   folders above it that are new (`sdfs.tree.folders`).
4. A file that is kept and was not replaced, so that it has two names, loses the one in the trash when the next owner starts.
"""

# System calls on `str` paths, which need not be decodable, and on descriptors.
# ruff: noqa: PTH103, PTH108, PTH116, PTH120
from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sdfs.errors import NotAStore, StoreBusy, StoreTooNew, UserError
from sdfs.files import data_ranges, fsync_path, write_all
from sdfs.filesystems import refuse_unfit
from sdfs.settings import DEFAULTS, EncodeSettings
from sdfs.trash import Trash

FORMAT = 1
FEATURES: frozenset[str] = frozenset()
INTERNAL = ".sdfs"
COPY_BYTES = 1 << 22  # of a copy that are in memory at once
LOCK_BYTES = 1024  # of the lock file, whatever it says
HIDDEN = re.compile(r"\.fuse_hidden[0-9a-f]{16}")  # what libfuse renames an open file to when it is unlinked
_T = TypeVar("_T")


@dataclass(frozen=True)
class Staged:
    """A file in staging; `fd` is open for reading and writing, and whoever has the object closes it."""

    fd: int
    path: str

    def discard(self) -> None:
        """Remove the file, and close it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        os.close(self.fd)


@dataclass(frozen=True)
class Owner:
    """What the lock file says of the process that owns the store."""

    pid: int
    socket: str | None


def is_store(root: Path) -> bool:
    return (root / INTERNAL / "config.toml").is_file()


def init(root: Path, settings: EncodeSettings = DEFAULTS) -> None:
    """Make the folder `root`, which need not exist or be empty, a store. Pictures it has become pending."""
    if is_store(root):
        raise UserError(f"{root} is an SDFS store already")
    refuse_unfit(str(root))
    try:
        internal = root / INTERNAL
        root.mkdir(parents=True, exist_ok=True)
        internal.mkdir(mode=0o700, exist_ok=True)
        for name in ("staging", "trash"):
            (internal / name).mkdir(mode=0o700, exist_ok=True)
        made = internal / "config.toml.new"
        made.write_text(f"# An SDFS store: see docs/STORE.md\nformat = {FORMAT}\nfeatures = []\n{_toml(settings)}")
        (internal / "lock").write_bytes(bytes(LOCK_BYTES))  # its room: a full disk must not keep a store from being opened
        fsync_path(made)
        made.rename(internal / "config.toml")
        fsync_path(internal)
        fsync_path(root)
    except OSError as error:
        raise UserError(f"{root} cannot be made a store: {error.strerror}") from error


def read_owner(root: Path) -> Owner | None:
    """Who owns, or last owned, the store. Says nothing about whether it lives."""
    try:
        owner = json.loads((root / INTERNAL / "lock").read_bytes())
        return Owner(int(owner["pid"]), owner["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_owned(root: Path) -> bool:
    """Whether a process owns the store now; unknown, so False, where there is no lock file."""
    try:
        fd = os.open(root / INTERNAL / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Store:
    """An owned store. Every name it takes or gives is a path of the backing filesystem."""

    def __init__(self, root: Path) -> None:
        """Become the owner. Where the filesystem is read-only, nothing is changed.

        Raises NotAStore, StoreTooNew, StoreBusy, and UserError on a filesystem that cannot keep a store safe.
        """
        self.root = os.path.realpath(root)
        self.internal = f"{self.root}/{INTERNAL}"
        self.settings = read_config(Path(self.root))
        refuse_unfit(self.root)
        self.device = os.stat(self.root).st_dev
        self.read_only = False  # its filesystem is: nothing is written, not even who owns it
        self._numbers = itertools.count()
        self.trash = Trash(self.root, f"{self.internal}/trash")
        self._lock_fd = -1
        try:
            self._own()
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            self.read_only = True
            with contextlib.suppress(FileNotFoundError):
                self._lock_fd = lock(self.root, read_only=True)

    def _own(self) -> None:
        self._lock_fd = lock(self.root)
        try:
            for name in ("staging", "trash"):
                os.makedirs(f"{self.internal}/{name}", mode=0o700, exist_ok=True)
            self._sweep_staging()
            self.trash.sweep()
            self.announce(None)
        except BaseException:
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the disk failed meanwhile: who comes next finds the lock free all the same
            self._write_lock(bytes(LOCK_BYTES))
        if self._lock_fd >= 0:
            os.close(self._lock_fd)

    def announce(self, socket: str | None) -> None:
        """Write this process and its control socket into the lock file, for others to find."""
        self._write_lock(json.dumps({"pid": os.getpid(), "socket": socket}).encode().ljust(LOCK_BYTES))

    def _write_lock(self, record: bytes) -> None:
        if not self.read_only:
            os.pwrite(self._lock_fd, record, 0)

    # staging

    def stage(self, content: bytes = b"") -> Staged:
        """A new file in staging, mode 0600."""
        path = f"{self.internal}/staging/{os.getpid()}-{next(self._numbers)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        staged = Staged(self.with_room(lambda: os.open(path, flags, 0o600)), path)
        try:
            self.write(staged.fd, content)
        except BaseException:
            staged.discard()
            raise
        return staged

    def write(self, fd: int, content: bytes, offset: int = 0) -> None:
        """All of `content`."""
        self.with_room(partial(write_all, fd, content, offset), len(content))

    def copy(self, source: int, target: int, *, source_offset: int = 0, target_offset: int = 0) -> None:
        """Copy the rest of a file, from `source_offset` on, to the end of another. Holes stay holes, where the filesystem tells of them."""
        end, shift = os.fstat(source).st_size, target_offset - source_offset
        for begin, stop in data_ranges(source, source_offset, end):
            offset = begin
            while offset < stop:
                chunk = os.pread(source, min(COPY_BYTES, stop - offset), offset)
                if not chunk:  # somebody cut it meanwhile
                    return
                self.write(target, chunk, offset + shift)
                offset += len(chunk)
        os.ftruncate(target, end + shift)  # there may be a hole at its end

    def _sweep_staging(self) -> None:
        with os.scandir(f"{self.internal}/staging") as entries:
            for entry in entries:
                os.unlink(entry)

    # trash

    def replace(self, staged: str, path: str) -> None:
        """Rename a staged file, which was fsynced, over `path`: for `sdfs.tree.install` alone, which keeps others from the folder.

        The folder keeps its times, for nothing came into it or left it: else every swap would have rsync and backups see it changed.
        """
        folder = os.path.dirname(path)
        times = os.stat(folder)
        self.with_room(partial(os.rename, staged, path))
        with contextlib.suppress(OSError):
            os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))

    def keep(self, path: str) -> str:
        """Give the file at `path`, which is about to be replaced, a second name in the trash; returns that."""
        return self.with_room(lambda: self.trash.keep(path))

    def expire_trash(self, now: float) -> None:
        if not self.read_only:
            self.trash.expire(now)

    def with_room(self, change: Callable[[], _T], size_bytes: int = 0) -> _T:
        """What `change` returns, which takes so many bytes of the disk. If there are not as many, it gets them from the trash: once.

        The trash is left alone where all of it would not be enough. Not for calls that say ENOSPC for another reason, as setxattr does.
        """
        try:
            return change()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self.trash.give_up(size_bytes):
                raise
        return change()

    # the tree

    def walk(self, folder: str | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """As `walk`; skips what vanishes meanwhile."""
        return walk(self.root, lambda error: None, folder)


def walk(root: str, on_error: Callable[[OSError], None], folder: str | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file of the tree, or of a folder of it, `.sdfs` and other filesystems mounted into it left out.

    `on_error` is told of what cannot be looked at.
    """
    internal, device = f"{root}/{INTERNAL}", os.stat(root).st_dev
    folders = [folder or root]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError as error:
            on_error(error)
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                on_error(error)
                continue
            if entry.path == internal:
                continue
            if stat.S_ISDIR(status.st_mode):
                if status.st_dev == device:  # files of one filesystem may have other numbers: overlayfs
                    folders.append(entry.path)
            elif stat.S_ISREG(status.st_mode):
                yield entry.path, status


def read_config(root: Path) -> EncodeSettings:
    """What a store that this version understands is set to. Raises NotAStore, StoreTooNew, UserError."""
    path = root / INTERNAL / "config.toml"
    try:
        config = tomllib.loads(path.read_text())
        have, features = config["format"], config["features"]
    except (FileNotFoundError, NotADirectoryError):
        raise NotAStore(f"{root} is no SDFS store: it has no {INTERNAL}/config.toml") from None
    except (OSError, ValueError, KeyError) as error:
        raise NotAStore(f"{path} cannot be read: {error}") from error
    if have != FORMAT:
        raise StoreTooNew(f"{root}: store format: want {FORMAT}, have {have}: use an SDFS that reads it")
    if unknown := sorted(set(features) - FEATURES):
        raise StoreTooNew(f"{root}: store features: want none beyond {sorted(FEATURES)}, have {unknown}: use an SDFS that knows them")
    try:
        return EncodeSettings.parse(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _toml(settings: EncodeSettings) -> str:
    """Strings and numbers are in TOML what they are in JSON."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in asdict(settings).items())


def lock(root: str, *, read_only: bool = False) -> int:
    """Become the owner for as long as the descriptor is open. Raises StoreBusy; OSError, EROFS, on a filesystem that is read-only.

    `read_only`: in order to keep others from changing the store; raises FileNotFoundError where nobody has ever owned it.
    """
    path = f"{root}/{INTERNAL}/lock"
    try:
        fd = os.open(path, os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT), 0o600)
    except OSError as error:
        if error.errno == (errno.ENOENT if read_only else errno.EROFS):
            raise
        raise UserError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        owner = read_owner(Path(root))
        raise StoreBusy(f"{root} is in use by process {owner.pid if owner else 'unknown'}: unmount it, or wait for it to end") from None
    return fd
