"""The trash of a store: what was replaced, for a grace time.

    <time in ns>-<number>.<name>           what a swap or a commit replaced; given up before its time where the disk is full
    <time in ns>-<number>-rescued.<name>   what could not be committed, and is nowhere else: only its user removes it

docs/STORE.md is normative.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sdfs.owner.store.attributes import XATTR_PREFIX
from sdfs.owner.store.private_folder import PrivateFolder

GRACE_SECONDS = 24 * 3600.0
MAX_BYTES = 10 << 30
ROOM_BYTES = 1 << 30  # that the trash leaves free on the disk, or, where that is less,
ROOM_DIVISOR = 20  # this part of it
GIVEN_UP_BYTES = 1 << 20  # beyond what is needed: else each write to a full disk would search the trash
TRASHED = re.compile(r"(?P<time_ns>[0-9]{1,20})-[0-9]+(?P<rescued>-rescued)?\.(?P<name>.*)", re.DOTALL)  # names in the trash
PATH_XATTR = XATTR_PREFIX + "path"  # of a file in the trash: where it was, from the store's root
_log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class _Trashed:
    """What may go."""

    at: float  # seconds since the epoch
    size: int  # bytes
    disk_bytes: int
    name: str


class Trash:
    """Thread-safe. Names are paths, in this process; `folder` is where they are. Only plain files of its own naming are its business."""

    def __init__(self, root: str, folder: PrivateFolder | None) -> None:
        """`folder` has the trash of the store at `root`; None where there is none, and none can be made."""
        self.folder = f"{root}/.sdfs/trash" if folder is None else folder.address
        self._folder = folder
        self._root = root
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # held while something expires or is given up

    def keep(self, path: str, at: str | None = None) -> str:
        """Give the file at `path` of the tree, which is about to be replaced, a second name in the trash; returns that.

        `at`: where it is reached, if not by that path.
        """
        kept = self._name(path)
        os.link(at or path, kept, follow_symlinks=False)
        self._note_path(kept, path)
        return kept

    def rescue(self, path: str, origin: str | None = None) -> str:
        """Move the file at `path` into the trash; returns where users find it now.

        `origin`: where its content was to be, which is nowhere else. Then it remains there until somebody restores or removes it.
        """
        rescued = self._name(origin or path, "" if origin is None else "-rescued")
        os.rename(path, rescued)
        if origin is not None:
            self._note_path(rescued, origin)
        return f"{self._root}/.sdfs/trash/{os.path.basename(rescued)}"

    def forget(self, kept: str) -> None:
        """Remove a file from the trash, if it is still there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(kept)

    def sync(self) -> None:
        """Make the names in the trash durable."""
        if self._folder is not None:
            os.fsync(self._folder.fd)

    def files(self) -> Iterator[tuple[str, os.stat_result, re.Match[str]]]:
        """What a swap or a commit put there: names, what lstat says of them, and the match of TRASHED."""
        if self._folder is None:
            return
        for name in os.listdir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                if (match := TRASHED.fullmatch(name)) and stat.S_ISREG((status := self._folder.look(name)).st_mode):
                    yield name, status, match

    def newest(self, path: str) -> str | None:
        """What was at the path of the tree last, as far as that is recorded."""
        found = [
            (int(match["time_ns"]), f"{self.folder}/{name}")
            for name, _, match in self.files()
            if match["name"] == trash_name(path) and _recorded(f"{self.folder}/{name}") == self._within(path)
        ]
        return max(found)[1] if found else None

    def sweep(self) -> None:
        """Remove what a killed owner kept but did not replace: the tree still has it, and does not shrink what has two names."""
        for name, status, _ in self.files():
            if status.st_nlink > 1:
                self._remove(name)

    def expire(self, now: float, *, grace_seconds: float = GRACE_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        """Remove what is older than the grace time, then the oldest until the rest fits `max_bytes`, and leaves room on the disk."""
        with self._lock:
            total = 0
            for trashed in reversed(self._expendable()):
                total += trashed.size
                if total > max_bytes or now - trashed.at > grace_seconds:
                    self._remove(trashed.name)
            disk = os.statvfs(self._root)
            wanted = min(ROOM_BYTES, disk.f_blocks * disk.f_frsize // ROOM_DIVISOR)
            self._make_room(self._expendable(), wanted - disk.f_bavail * disk.f_frsize)

    def give_up(self, size_bytes: int) -> bool:
        """Make so much room on a full disk, with the oldest; whether any was made. Nothing goes where all of it would not be enough."""
        with self._lock:
            trash, disk = self._expendable(), os.statvfs(self._root)
            if sum(trashed.disk_bytes for trashed in trash) + disk.f_bavail * disk.f_frsize < size_bytes:
                return False
            return self._make_room(trash, size_bytes + GIVEN_UP_BYTES)

    def _expendable(self) -> list[_Trashed]:
        """What may go, the oldest first: nothing that has another name, too, as the original of a swap under way does."""
        return sorted(
            _Trashed(int(match["time_ns"]) / 1e9, status.st_size, status.st_blocks * 512, name)
            for name, status, match in self.files()
            if status.st_nlink == 1 and not match["rescued"]
        )

    def _make_room(self, trash: list[_Trashed], size_bytes: int) -> bool:
        """Remove the first, until there is so much more room; whether any could be removed."""
        freed = number = 0
        for trashed in trash:
            if freed >= size_bytes:
                break
            if self._remove(trashed.name):
                freed, number = freed + trashed.disk_bytes, number + 1
        if number:
            _log.warning("%s has no room on its disk: the trash gave up its oldest %d files, %d bytes", self._root, number, freed)
        return bool(number)

    def _remove(self, name: str) -> bool:
        """Whether it is not there any more; what keeps it is told."""
        try:
            self.forget(f"{self.folder}/{name}")
        except OSError as error:
            _log.warning("%s/.sdfs/trash/%s cannot be removed: %s", self._root, name, error.strerror)
            return False
        return True

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
