"""Which names a power loss may still undo: those that came into a folder since it was last fsynced.

Linux filesystems make a new file's name durable with the file's fsync, most of the time; POSIX, and so a store on any filesystem,
does not. Whoever is told that a file is durable gets its name with it, and those of all folders above.
"""

from __future__ import annotations

import contextlib
import os
import threading

from sdfs.system.file_id import FileId

REMEMBERED = 1 << 16
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class DurableNames:
    """Thread-safe. Paths are of the backing filesystem, folders are known by their inode, so that renames do not matter.

    A folder leaves `_changes` only if nothing came into it since before its fsync began.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._changes: dict[FileId, int] = {}  # of folders with such names: how many

    def changed(self, path: str) -> None:
        """The name `path` was made, or given to another file; called after that, and before anybody is told."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(os.path.dirname(path))
            key = FileId.of(status)
            with self._lock:
                self._changes[key] = self._changes.get(key, 0) + 1
                full = len(self._changes) > REMEMBERED
            if full:
                self._sync_all()

    def is_volatile(self, path: str) -> bool:
        """Whether a name came into the folder of `path` that a power loss may still undo."""
        status = os.stat(os.path.dirname(path))
        return FileId.of(status) in self._changes

    def sync(self, path: str) -> None:
        """Make the name `path` durable, and those of the folders it is in. Raises FileNotFoundError where these are not there.

        From the root down: a file that was moved into a new folder must not lose its old name before that folder has its own.
        """
        if not self._changes:
            return
        above = []
        while path != self._root:
            path = os.path.dirname(path)
            above.append(path)
        for folder in reversed(above):
            self._sync_folder(folder)

    def _sync_folder(self, path: str) -> None:
        status = os.stat(path)
        key = FileId.of(status)
        if (seen := self._changes.get(key)) is None:
            return
        try:
            fd = os.open(path, _FLAGS)
        except PermissionError:  # a folder that its owner may not list
            self._sync_all()
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._forget({key: seen})

    def _sync_all(self) -> None:
        with self._lock:
            seen = dict(self._changes)
        os.sync()
        self._forget(seen)

    def _forget(self, seen: dict[FileId, int]) -> None:
        with self._lock:
            for key, count in seen.items():
                if self._changes.get(key) == count:
                    del self._changes[key]
