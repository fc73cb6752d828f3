"""Records, in order, every system call of this process that changes a folder: the functions of `os` that SDFS makes them with, wrapped.

What the wrappers miss is noticed: `tests.support.replay` rebuilds the folder from a whole recording, and it has to be what is there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sdfs.system import files

Number = int  # names an inode for good: st_ino may be used again
Place = tuple[Number, str]  # a name in a folder


@dataclass(frozen=True)
class Made:
    """A new inode. `mode` has the file type."""

    number: Number
    mode: int
    target: str = ""  # of a symbolic link


@dataclass(frozen=True)
class Named:
    """A name was given to an inode (`to`), taken from it (`away`), or both at once: create, mkdir, link, unlink, rmdir, rename."""

    number: Number
    to: Place | None
    away: Place | None


@dataclass(frozen=True)
class Wrote:
    number: Number
    offset: int
    data: bytes


@dataclass(frozen=True)
class Resized:
    number: Number
    size: int


@dataclass(frozen=True)
class Attributed:
    """`name`: 'mode', 'mtime_ns', or that of an extended attribute; a `value` of None removes it."""

    number: Number
    name: str
    value: int | bytes | None


@dataclass(frozen=True)
class Synced:
    """fsync or fdatasync of a file or folder."""

    number: Number


@dataclass(frozen=True)
class View:
    """What the next owner of a store finds."""

    files: dict[str, bytes]  # what readers get, by path
    attributes: dict[str, tuple[int, int]]  # mode and mtime_ns
    blobs: frozenset[str]  # the paths of those that are blobs
    trash: frozenset[bytes]  # contents


@dataclass(frozen=True)
class Promised:
    """From here on, whatever happens, `holds` says yes to what is found. Replaces the promise of the same name."""

    name: str
    holds: Callable[[View], bool]


Event = Made | Named | Wrote | Resized | Attributed | Synced | Promised


@dataclass
class Recording:
    root: Path
    top: Number = 0
    events: list[Event] = field(default_factory=list)
    start: int = 0  # events before it are what was there, and durable
    _numbers: dict[tuple[int, int], Number] = field(default_factory=dict)
    _made: int = 0

    def __post_init__(self) -> None:
        self.top = self._new(self.root.lstat())
        self._snapshot(self.root)
        self.start = len(self.events)

    def _snapshot(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            status = path.lstat()
            if self.find(status) is None:
                self.made(path, status)
                if stat.S_ISREG(status.st_mode):
                    self.events.append(Wrote(self.number(status), 0, path.read_bytes()))
                self.events.append(Attributed(self.number(status), "mtime_ns", status.st_mtime_ns))
                for name in os.listxattr(path, follow_symlinks=False):
                    self.events.append(Attributed(self.number(status), name, os.getxattr(path, name, follow_symlinks=False)))
            else:
                self.events.append(Named(self.number(status), self.place(path), None))
            if stat.S_ISDIR(status.st_mode):
                self._snapshot(path)

    def _new(self, status: os.stat_result) -> Number:
        self._made += 1
        self._numbers[status.st_dev, status.st_ino] = self._made
        return self._made

    def find(self, status: os.stat_result) -> Number | None:
        return self._numbers.get((status.st_dev, status.st_ino))

    def number(self, status: os.stat_result) -> Number:
        return self._numbers[status.st_dev, status.st_ino]

    def place(self, path: str | Path) -> Place:
        return self.number(os.stat(os.path.dirname(path))), os.path.basename(path)

    def made(self, path: str | Path, status: os.stat_result) -> None:
        """A new inode, and its first name."""
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
        self.events.append(Made(self._new(status), status.st_mode, target))
        self.events.append(Named(self.number(status), self.place(path), None))

    def promise(self, name: str, holds: Callable[[View], bool]) -> None:
        self.events.append(Promised(name, holds))


class _Wrappers:
    """Stand-ins for functions of `os`: each does the call and notes it, under one lock, so that the order is the real one."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._inside = f"{recording.root}/"
        self._lock = threading.RLock()
        self._os = {name: getattr(os, name) for name in _WRAPPED}
        self._renameat2 = files._libc.renameat2

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in _WRAPPED:
            patch.setattr(os, name, functools.partial(self._call, name))
        patch.setattr(files, "_libc", self)

    def renameat2(self, *arguments: Any) -> int:
        _, old, _, new, _ = arguments
        with self._lock:
            status = os.lstat(old) if os.path.lexists(old) else None
            failed: int = self._renameat2(*arguments)
            if not failed and status is not None:
                self._renamed(status, os.fsdecode(old), os.fsdecode(new))
            return failed

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        with self._lock:
            return getattr(self, f"_{name}", functools.partial(self._attribute, name))(*arguments, **options)

    def _ours(self, path: Any) -> bool:
        """By the folder that it is in, which may be named by a descriptor."""
        return not isinstance(path, int) and f"{os.path.realpath(os.path.dirname(os.fsdecode(path)))}/".startswith(self._inside)

    def _of(self, what: Any, **options: Any) -> Number | None:
        """The inode of a descriptor or path; None where it is not below the root."""
        return self._recording.find(os.fstat(what) if isinstance(what, int) else os.stat(what, **options))

    def _note(self, event: Event) -> None:
        self._recording.events.append(event)

    def _open(self, path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        is_new = self._ours(path) and bool(flags & os.O_CREAT) and not os.path.lexists(path)
        fd: int = self._os["open"](path, flags, mode, **options)
        assert not (self._ours(path) and flags & os.O_TRUNC), "nobody opens with O_TRUNC here"
        if is_new:
            self._recording.made(os.fsdecode(path), os.fstat(fd))
        return fd

    def _make(self, name: str, path: Any, *arguments: Any, **options: Any) -> None:
        self._os[name](path, *arguments, **options)
        if self._ours(path):
            self._recording.made(os.fsdecode(path), os.lstat(path))

    def _mkdir(self, path: Any, *arguments: Any, **options: Any) -> None:
        self._make("mkdir", path, *arguments, **options)

    def _symlink(self, target: Any, path: Any) -> None:
        self._os["symlink"](target, path)
        self._recording.made(os.fsdecode(path), os.lstat(path))

    def _link(self, old: Any, new: Any, **options: Any) -> None:
        self._os["link"](old, new, **options)
        self._note(Named(self._recording.number(os.lstat(new)), self._recording.place(new), None))

    def _unlink(self, path: Any) -> None:
        self._remove("unlink", os.fspath(path))

    def _rmdir(self, path: Any) -> None:
        self._remove("rmdir", os.fspath(path))

    def _remove(self, name: str, path: Any) -> None:
        status = os.lstat(path) if self._ours(path) else None
        self._os[name](path)
        if status is not None:
            self._note(Named(self._recording.number(status), None, self._recording.place(path)))

    def _rename(self, old: Any, new: Any) -> None:
        status = os.lstat(old)
        self._os["rename"](old, new)
        if self._ours(new):
            self._renamed(status, old, new)

    def _renamed(self, status: os.stat_result, old: str, new: str) -> None:
        recording = self._recording
        self._note(Named(recording.number(status), recording.place(new), recording.place(old)))

    def _pwrite(self, fd: int, data: Any, offset: int) -> int:
        written: int = self._os["pwrite"](fd, data, offset)
        if (number := self._of(fd)) is not None:
            self._note(Wrote(number, offset, bytes(data[:written])))
        return written

    def _ftruncate(self, fd: int, size: int) -> None:
        self._os["ftruncate"](fd, size)
        if (number := self._of(fd)) is not None:
            self._note(Resized(number, size))

    def _fsync(self, fd: int) -> None:
        self._os["fsync"](fd)
        if (number := self._of(fd)) is not None:
            self._note(Synced(number))

    def _fdatasync(self, fd: int) -> None:
        self._os["fdatasync"](fd)
        if (number := self._of(fd)) is not None:
            self._note(Synced(number))

    def _attribute(self, name: str, target: Any, *arguments: Any, **options: Any) -> None:
        self._os[name](target, *arguments, **options)
        if (number := self._of(target)) is None:
            return
        if name in ("chmod", "fchmod"):
            self._note(Attributed(number, "mode", arguments[0]))
        elif name == "utime":
            self._note(Attributed(number, "mtime_ns", options["ns"][1]))
        else:
            self._note(Attributed(number, arguments[0], bytes(arguments[1]) if name == "setxattr" else None))


_WRAPPED = (
    *("open", "mkdir", "symlink", "link", "unlink", "rmdir", "rename", "pwrite", "ftruncate", "fsync", "fdatasync"),
    *("chmod", "fchmod", "utime", "setxattr", "removexattr"),
)


@contextlib.contextmanager
def recording(root: Path) -> Iterator[Recording]:
    """Of what this process does below `root`, an absolute path without links, while the context lasts."""
    made = Recording(root)
    with pytest.MonkeyPatch.context() as patch:
        _Wrappers(made).install(patch)
        yield made
