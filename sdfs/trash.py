"""The trash of a store: what was replaced, for a grace time.

    <time in ns>-<number>.<name>           what a swap or a commit replaced; given up before its time where the disk is full
    <time in ns>-<number>-rescued.<name>   what could not be committed, and is nowhere else: only its user removes it

docs/STORE.md is normative.
"""

# System calls on `str` paths, which need not be decodable.
# ruff: noqa: PTH104, PTH108, PTH119
from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import stat
import threading
import time
from dataclasses import dataclass

from sdfs.files import XATTR_PREFIX, fsync_path

GRACE_SECONDS = 24 * 3600.0
MAX_BYTES = 10 << 30
ROOM_BYTES = 1 << 30  # that the trash leaves free on the disk, or, where that is less,
ROOM_DIVISOR = 20  # this part of it
GIVEN_UP_BYTES = 1 << 20  # beyond what is needed: else each write to a full disk would search the trash
TRASHED = re.compile(r"(?P<time_ns>[0-9]{1,20})-[0-9]+(?P<rescued>-rescued)?\.(?P<name>.*)", re.DOTALL)  # names in the trash
PATH_XATTR = XATTR_PREFIX + "path"  # of a file in the trash: where it was, from the store's root
_log = logging.getLogger("sdfs.store")


@dataclass(frozen=True, order=True)
class _Trashed:
    """What may go."""

    at: float  # seconds since the epoch
    size: int  # bytes
    disk_bytes: int
    path: str


class Trash:
    """Thread-safe. All names are paths of the backing filesystem."""

    def __init__(self, root: str, folder: str) -> None:
        """`folder`, which has the trash of the store at `root`, need not be there yet."""
        self.folder = folder
        self._root = root
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # held while something expires or is given up

    def keep(self, path: str) -> str:
        """Give the file at `path`, which is about to be replaced, a second name in the trash; returns that."""
        kept = self._name(path)
        os.link(path, kept, follow_symlinks=False)
        self._note_path(kept, path)
        return kept

    def rescue(self, path: str, origin: str | None = None) -> str:
        """Move the file at `path` into the trash; returns where it is now.

        `origin`: where its content was to be, which is nowhere else. Then it remains there until somebody restores or removes it.
        """
        rescued = self._name(origin or path, "" if origin is None else "-rescued")
        os.rename(path, rescued)
        if origin is not None:
            self._note_path(rescued, origin)
        return rescued

    def forget(self, kept: str) -> None:
        """Remove a file from the trash, if it is still there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(kept)

    def sync(self) -> None:
        """Make the names in the trash durable."""
        fsync_path(self.folder)

    def newest(self, path: str) -> str | None:
        """What was at the path of the tree last, as far as that is recorded."""
        found, ending = [], "." + trash_name(path)
        with os.scandir(self.folder) as entries:
            for entry in entries:
                match = TRASHED.fullmatch(entry.name)
                if match and entry.name.endswith(ending) and _recorded(entry.path) == self._within(path):
                    found.append((int(match["time_ns"]), entry.path))
        return max(found)[1] if found else None

    def sweep(self) -> None:
        """Remove what a killed owner kept but did not replace: the tree still has it, and does not shrink what has two names."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and os.lstat(entry).st_nlink > 1:
                    os.unlink(entry)

    def expire(self, now: float, *, grace_seconds: float = GRACE_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        """Remove what is older than the grace time, then the oldest until the rest fits `max_bytes`, and leaves room on the disk."""
        with self._lock:
            total = 0
            for trashed in reversed(self._expendable()):
                total += trashed.size
                if total > max_bytes or now - trashed.at > grace_seconds:
                    self.forget(trashed.path)
            disk = os.statvfs(self._root)
            wanted = min(ROOM_BYTES, disk.f_blocks * disk.f_frsize // ROOM_DIVISOR)
            self._remove(self._expendable(), wanted - disk.f_bavail * disk.f_frsize)

    def give_up(self, size_bytes: int) -> bool:
        """Make so much room on a full disk, with the oldest; whether any was made. Nothing goes where all of it would not be enough."""
        with self._lock:
            trash, disk = self._expendable(), os.statvfs(self._root)
            if sum(trashed.disk_bytes for trashed in trash) + disk.f_bavail * disk.f_frsize < size_bytes:
                return False
            self._remove(trash, size_bytes + GIVEN_UP_BYTES)
            return bool(trash)

    def _expendable(self) -> list[_Trashed]:
        """What may go, the oldest first: nothing that has another name, too, as the original of a swap under way does."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # restored meanwhile
                    status, match = entry.stat(follow_symlinks=False), TRASHED.match(entry.name)
                    if status.st_nlink == 1 and not stat.S_ISDIR(status.st_mode) and not (match and match["rescued"]):
                        at = int(match["time_ns"]) / 1e9 if match else 0.0  # long ago, for a name that SDFS did not make
                        found.append(_Trashed(at, status.st_size, status.st_blocks * 512, entry.path))
        return sorted(found)

    def _remove(self, trash: list[_Trashed], size_bytes: int) -> None:
        """The first, until so much room was made."""
        freed = number = 0
        while freed < size_bytes and number < len(trash):
            self.forget(trash[number].path)
            freed += trash[number].disk_bytes
            number += 1
        if number:
            _log.warning("%s has no room on its disk: the trash gave up its oldest %d files, %d bytes", self._root, number, freed)

    def _name(self, path: str, mark: str = "") -> str:
        return f"{self.folder}/{time.time_ns()}-{next(self._numbers)}{mark}.{trash_name(path)}"

    def _note_path(self, trashed: str, path: str) -> None:
        """A help for who wants it back, which some filesystems have no room for."""
        with contextlib.suppress(OSError):
            os.setxattr(trashed, PATH_XATTR, self._within(path), follow_symlinks=False)

    def _within(self, path: str) -> bytes:
        return os.fsencode(path[len(self._root.rstrip("/")) :])


def _recorded(trashed: str) -> bytes | None:
    try:
        return os.getxattr(trashed, PATH_XATTR, follow_symlinks=False)
    except OSError:
        return None


def trash_name(path: str) -> str:
    """What a name in the trash has of the path."""
    return os.fsdecode(os.fsencode(os.path.basename(path))[-200:])
