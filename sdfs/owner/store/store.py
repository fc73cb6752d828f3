"""The backing directory of a store: layout, ownership, staging, trash. docs/STORE.md is normative.

    <store>/…                the tree, one to one: unwrapped files, blobs, folders, links
    <store>/.sdfs/           0700; not part of the tree
        config.toml          format, features, defaults; written last by `init`, so that what has it is a store
        lock                 flock()ed by the owner; holds the owner's process id and control socket
        secret               what the owner shows at its socket, so that others know it for this store's
        staging/             files that are being made; each is renamed into the tree or is worthless after a crash
        trash/               what a swap or a commit replaced (`sdfs.owner.store.trash`)

Invariants:

- A regular file of the tree begins with the blob magic exactly if it is a blob. Whoever would break that with user bytes
  keeps them in staging and installs a blob around them.
- A name of the tree changes its content only by a rename of a staged file that was fsynced before.
- Only the owner, the process that holds the flock, changes anything.
- `.sdfs` and all in it is reached by descriptors, and refused where it is not plainly our user's (`sdfs.owner.store.private_folder`). What
is   removed there has a name that this module, or `sdfs.owner.store.trash`, makes.
- What gets a name in the tree gets it by a descriptor of the folder (`reach`), without following links.

Order, which a power loss at any moment relies on (`tests/crash` tries them all):

1. Content before its name: a staged file is fsynced, attributes included, before it is renamed.
2. An original in the trash before its blob in the tree: the original is fsynced, linked, and the trash fsynced, before the rename.
3. Nobody is told before the name is durable: the folder is fsynced after the rename, and before it, from the root down, the
   folders above it that are new (`sdfs.owner.store.durable_names`).
4. A file that is kept and was not replaced, so that it has two names, loses the one in the trash when the next owner starts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import logging
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sdfs.errors import NotAStore, StoreBusy, StoreTooNew, UserError
from sdfs.owner.store.fitness import refuse_unfit
from sdfs.owner.store.private_folder import PrivateFolder
from sdfs.owner.store.trash import Trash
from sdfs.settings import DEFAULTS, EncodeSettings
from sdfs.system.file_id import Identity
from sdfs.system.files import data_ranges, fsync_path, is_locked, rename_noreplace, write_all
from sdfs.system.no_follow import folder_of, name_in, open_folder

FORMAT = 1
FEATURES: frozenset[str] = frozenset()
INTERNAL = ".sdfs"
COPY_BYTES = 1 << 22  # of a copy that are in memory at once
CONFIG = "config.toml"
CONFIG_BYTES = 1 << 16  # more is no configuration
LOCK_BYTES = 1024  # of the lock file, whatever it says
LOG_BYTES = 1 << 20  # after which it becomes log.old
STAGED = re.compile(r"[0-9]+-[0-9]+")  # names in staging
_SECRET_BYTES = 32
HIDDEN = re.compile(r"\.fuse_hidden[0-9a-f]{16}")  # what libfuse renames an open file to when it is unlinked
_log = logging.getLogger(__name__)
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


def open_internal(root: str) -> PrivateFolder:
    """Open the `.sdfs` of a store. Raises NotAStore where there is none, or one that is not to be trusted."""
    try:
        return PrivateFolder.open(root, INTERNAL)
    except (FileNotFoundError, NotADirectoryError):
        raise NotAStore(f"{root} is no SDFS store: it has no {INTERNAL}/{CONFIG}") from None
    except UserError as error:
        raise NotAStore(str(error)) from error
    except OSError as error:
        raise NotAStore(f"{root}/{INTERNAL} cannot be opened: {error.strerror}") from error


def is_store(root: Path) -> bool:
    """Tell whether a folder is a store of ours. Raises NotAStore where its `.sdfs` is not to be trusted."""
    try:
        os.lstat(root / INTERNAL)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise NotAStore(f"{root} cannot be looked into: {error.strerror}") from error
    with open_internal(str(root)) as internal:
        return internal.has(CONFIG)


def looks_like_store(folder: str) -> bool:
    """Tell whether a folder has what a store has, whoever's it is: what is in there is to be left alone."""
    return os.path.lexists(f"{folder}/{INTERNAL}/{CONFIG}")


def init(root: Path, settings: EncodeSettings = DEFAULTS) -> None:
    """Make the folder `root`, which need not exist or be empty, a store. Pictures it has become pending.

    Raises UserError, also where `.sdfs` is there and is, or has, what SDFS would not have made.
    """
    if is_store(root):
        raise UserError(f"{root} is an SDFS store already")
    refuse_unfit(str(root))
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (root / INTERNAL).mkdir(mode=0o700)
        with open_internal(str(root)) as internal:
            _fill(internal, settings)
        fsync_path(root)
    except OSError as error:
        raise UserError(f"{root} cannot be made a store: {error.strerror}") from error


def _fill(internal: PrivateFolder, settings: EncodeSettings) -> None:
    """What `.sdfs` has, the configuration last."""
    for name in ("staging", "trash"):
        internal.folder(name, make=True).close()
    for name, size in (("lock", LOCK_BYTES), ("secret", 2 * _SECRET_BYTES)):  # room: a full disk must keep nobody from opening a store
        _write(internal, name, bytes(size))
    made = f"{CONFIG}.new"
    internal.remove(made)
    text = f"# An SDFS store: see docs/STORE.md\nformat = {FORMAT}\nfeatures = []\n{_toml(settings)}"
    _write(internal, made, text.encode(), sync=True)
    os.rename(internal.name(made), internal.name(CONFIG))
    os.fsync(internal.fd)


def _write(internal: PrivateFolder, name: str, content: bytes, *, sync: bool = False) -> None:
    fd = internal.file(name, os.O_WRONLY | os.O_CREAT)
    try:
        write_all(fd, content)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_owner(root: Path) -> Owner | None:
    """Who owns, or last owned, the store. Says nothing about whether it lives."""
    try:
        owner = json.loads(_read(root, "lock", LOCK_BYTES))
        pid, socket = owner["pid"], owner["socket"]
    except (OSError, UserError, ValueError, RecursionError, KeyError, TypeError):
        return None
    if type(pid) is not int or pid <= 0 or not (socket is None or isinstance(socket, str)):
        return None
    return Owner(pid, socket)


def read_identity(root: Path) -> Identity:
    """What the owner of the store, and nobody else, says at its socket. Raises NotAStore, OSError, UserError."""
    with open_internal(str(root)) as internal:
        return _identity(internal)


def _identity(internal: PrivateFolder) -> Identity:
    status, secret = os.fstat(internal.fd), ""
    with contextlib.suppress(FileNotFoundError):
        fd = internal.file("secret", os.O_RDONLY)
        try:
            if not os.fstat(fd).st_mode & 0o077:
                secret = os.pread(fd, 2 * _SECRET_BYTES, 0).decode("ascii", "replace").strip("\0")
        finally:
            os.close(fd)
    return Identity(status.st_dev, status.st_ino, secret)


def is_owned(root: Path) -> bool:
    """Whether a process owns the store now; unknown, so False, where there is no lock file. Raises UserError."""
    try:
        with open_internal(str(root)) as internal:
            fd = internal.file("lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def open_log(root: Path) -> int:
    """Open the log of a store for appending; one that is large becomes log.old before. Raises OSError, UserError."""
    with open_internal(str(root)) as internal:
        fd = internal.file("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if os.fstat(fd).st_size <= LOG_BYTES:
            return fd
        os.close(fd)
        internal.remove("log.old")
        os.rename(internal.name("log"), internal.name("log.old"))
        return internal.file("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _read(root: Path, name: str, most: int) -> bytes:
    """The beginning of a file of `.sdfs`."""
    with open_internal(str(root)) as internal:
        fd = internal.file(name, os.O_RDONLY)
    try:
        return os.pread(fd, most, 0)
    finally:
        os.close(fd)


class Store:
    """An owned store. Every name it takes or gives is a path of the backing filesystem."""

    def __init__(self, root: Path) -> None:
        """Become the owner. Where the filesystem is read-only, or the store root's and we are not, nothing is changed.

        Raises NotAStore, StoreTooNew, StoreBusy, and UserError on a filesystem that cannot keep a store safe, or where something in
        `.sdfs` is not what SDFS makes there.
        """
        self.root = os.path.realpath(root)
        self.internal = f"{self.root}/{INTERNAL}"
        self.settings = read_config(Path(self.root))
        refuse_unfit(self.root)
        self.device = os.stat(self.root).st_dev
        self._numbers = itertools.count()
        self._lock_fd = -1
        with contextlib.ExitStack() as opened:
            self._internal = opened.enter_context(open_internal(self.root))
            self._top = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, self._top)
            self.read_only = not self._internal.is_ours  # or its filesystem is: nothing is written, not even who owns it
            self._take_lock()
            if self._lock_fd >= 0:
                opened.callback(os.close, self._lock_fd)
            self._staging, trash = (self._open_inner(name, opened) for name in ("staging", "trash"))
            self.trash = Trash(self.root, trash)
            if not self.read_only:
                self._sweep_staging()
                self.trash.sweep()
                self.announce(None)
            self._opened = opened.pop_all()

    def _take_lock(self) -> None:
        try:
            if not self.read_only:
                self._lock_fd = lock(self._internal)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            self.read_only = True
        if self.read_only:
            with contextlib.suppress(FileNotFoundError):
                self._lock_fd = lock(self._internal, read_only=True)

    def _open_inner(self, name: str, opened: contextlib.ExitStack) -> PrivateFolder | None:
        """None where it is missing, and cannot be made."""
        try:
            return opened.enter_context(self._internal.folder(name, make=not self.read_only))
        except FileNotFoundError:
            return None

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the disk failed meanwhile: who comes next finds the lock free all the same
            self._write_lock(bytes(LOCK_BYTES))
        self._opened.close()

    def announce(self, socket: str | None) -> None:
        """Write this process and its control socket into the lock file, for others to find, and a new secret, for them to know it by."""
        if self.read_only:
            return
        if socket is not None:
            try:
                self._write_secret()
            except OSError as error:
                _log.warning("nobody else can use %s meanwhile: %s/secret: %s", self.root, self.internal, error.strerror)
                socket = None
        self._write_lock(json.dumps({"pid": os.getpid(), "socket": socket}).encode().ljust(LOCK_BYTES))

    @property
    def identity(self) -> Identity:
        """What this owner shows at its socket."""
        return _identity(self._internal)

    def _write_secret(self) -> None:
        fd = self.with_room(lambda: self._internal.file("secret", os.O_RDWR | os.O_CREAT))
        try:
            os.fchmod(fd, 0o600)
            self.write(fd, secrets.token_hex(_SECRET_BYTES).encode())
        finally:
            os.close(fd)

    def _write_lock(self, record: bytes) -> None:
        if not self.read_only:
            os.pwrite(self._lock_fd, record, 0)

    # staging

    def stage(self, content: bytes = b"") -> Staged:
        """A new file in staging, mode 0600."""
        if self._staging is None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{self.internal}/staging")
        path = self._staging.name(f"{os.getpid()}-{next(self._numbers)}")
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
        """Remove what an owner that was killed left. What else is there is told, and stays."""
        for name, is_left in staged_in(self._staging):
            try:
                if is_left:
                    os.unlink(self._staging.name(name))  # type: ignore[union-attr]
                else:
                    _log.warning("%s/staging/%s is not the store's: move it away", self.internal, name)
            except OSError as error:
                _log.warning("%s/staging/%s cannot be removed: %s", self.internal, name, error.strerror)

    # trash

    def replace(self, staged: str, path: str) -> None:
        """Rename a staged file, which was fsynced, over `path`: for `sdfs.owner.tree.install` alone, which keeps others from the folder.

        The folder keeps its times, for nothing came into it or left it: else every swap would have rsync and backups see it changed.
        """
        with self.reach(path) as name:
            folder = os.path.dirname(name)
            times = os.stat(folder)
            self.with_room(partial(os.rename, staged, name))
            with contextlib.suppress(OSError):
                os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))

    def keep(self, path: str) -> str:
        """Give the file at `path`, which is about to be replaced, a second name in the trash; returns that."""
        with self.reach(path) as name:
            return self.with_room(lambda: self.trash.keep(path, name))

    def add(self, made: str, path: str, *, room_from_trash: bool) -> None:
        """Rename a file of staging or the trash to the new name `path`: for `sdfs.owner.tree.install` alone. Raises FileExistsError.

        `room_from_trash`: where the disk is full, what is in the trash may go.
        """
        with self.reach(path) as name:
            rename = partial(rename_noreplace, made, name)
            self.with_room(rename) if room_from_trash else rename()

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

    @contextlib.contextmanager
    def reach(self, path: str) -> Iterator[str]:
        """Give the path of a name of the tree by a descriptor of its folder. Raises OSError, ELOOP where a link is on the way to that."""
        *folders, name = self._names(path)
        with folder_of(self._top, folders) as folder:
            yield name_in(folder, name)

    def make_folders(self, path: str, on_made: Callable[[str], None]) -> None:
        """Make a folder of the tree, with mode 0755, and those above it that are missing; `on_made` is told of each.

        Raises OSError, ELOOP where a link is on the way.
        """
        names = self._names(path)

        def make(name: str, depth: int) -> None:
            with contextlib.suppress(FileExistsError):  # somebody else made it meanwhile
                self.with_room(lambda: os.mkdir(name, 0o755))
                on_made("/".join((self.root.rstrip("/"), *names[: depth + 1])))

        os.close(open_folder(self._top, names, on_missing=make))

    def inner_store(self, path: str) -> str | None:
        """Return the folder of the tree, `path` or one that it is in, that is a store by itself, and not this one's business."""
        names = self._names(path)
        folders = ("/".join((self.root.rstrip("/"), *names[:depth])) for depth in range(1, len(names) + 1))
        return next(filter(looks_like_store, folders), None)

    def _names(self, path: str) -> list[str]:
        return path[len(self.root.rstrip("/")) + 1 :].split("/") if path != self.root else []

    def walk(self, folder: str | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """As `walk`; skips what vanishes meanwhile."""
        return walk(self.root, lambda error: None, folder)


def walk(root: str, on_error: Callable[[OSError], None], folder: str | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file of the tree, or of a folder of it; `.sdfs`, inner stores and other filesystems mounted into it left out.

    `on_error` is told of what cannot be looked at.
    """
    internal, device = f"{root}/{INTERNAL}", os.stat(root).st_dev
    folders = [folder or root]
    while folders:
        try:
            entries = list(os.scandir(at := folders.pop()))
        except OSError as error:
            on_error(error)
            continue
        if at != root and any(entry.name == INTERNAL for entry in entries) and looks_like_store(at):
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
    path = root / INTERNAL / CONFIG
    try:
        content = _read(root, CONFIG, CONFIG_BYTES + 1)
        if len(content) > CONFIG_BYTES:
            raise UserError(f"{path} is no configuration: want at most {CONFIG_BYTES:,} bytes")
        config = tomllib.loads(content.decode())
        have, features = config["format"], config["features"]
    except FileNotFoundError:
        raise NotAStore(f"{root} is no SDFS store: it has no {INTERNAL}/{CONFIG}") from None
    except KeyError as error:
        raise NotAStore(f"{path} cannot be read: it does not say what {error} is") from error
    except (OSError, ValueError) as error:
        raise NotAStore(f"{path} cannot be read: {error.strerror if isinstance(error, OSError) else error}") from error
    except RecursionError as error:
        raise NotAStore(f"{path} cannot be read: it nests too deeply") from error
    if type(have) is not int or not isinstance(features, list) or not all(isinstance(feature, str) for feature in features):
        raise NotAStore(f"{path} cannot be read: want a number for `format`, and a list of names for `features`")
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


def lock(internal: PrivateFolder, *, read_only: bool = False) -> int:
    """Become the owner for as long as the descriptor is open. Raises StoreBusy, UserError; OSError, EROFS, on a read-only filesystem.

    `read_only`: in order to keep others from changing the store; raises FileNotFoundError where nobody has ever owned it.
    """
    try:
        fd = internal.file("lock", os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno == (errno.ENOENT if read_only else errno.EROFS):
            raise
        raise UserError(f"{internal.path}/lock cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        root = os.path.dirname(internal.path)
        owner = read_owner(Path(root))
        raise StoreBusy(f"{root} is in use by process {owner.pid if owner else 'unknown'}: unmount it, or wait for it to end") from None
    return fd


def staged_in(staging: PrivateFolder | None) -> list[tuple[str, bool]]:
    """What is in staging while nobody owns the store, by name; whether a store's own naming made it, so that it is worthless."""
    if staging is None:
        return []
    found = []
    for name in sorted(os.listdir(staging.address)):
        with contextlib.suppress(FileNotFoundError):
            status = staging.look(name)
            found.append((name, STAGED.fullmatch(name) is not None and stat.S_ISREG(status.st_mode) and status.st_nlink == 1))
    return found
