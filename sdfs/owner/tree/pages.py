"""Which content the kernel may have pages of, by the backing inode that had it when it was last opened. Thread-safe."""

from __future__ import annotations

import os
import threading

from sdfs.system.file_id import FileId

_REMEMBERED = 1 << 16


class Pages:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[FileId, tuple[int, int]] = {}  # size and mtime_ns

    def are_of(self, status: os.stat_result) -> bool:
        """Whether the pages that the kernel may have are of this content."""
        return self._opened.get(FileId.of(status)) == (status.st_size, status.st_mtime_ns)

    def note(self, fd: int) -> None:
        """The kernel may have pages of what `fd` is open as: they are of the content as it is now."""
        status = os.fstat(fd)
        with self._lock:
            if len(self._opened) >= _REMEMBERED:
                self._opened.clear()
            self._opened[FileId.of(status)] = (status.st_size, status.st_mtime_ns)

    def forget(self, key: FileId) -> None:
        """A new file has this number, whatever had it before."""
        with self._lock:
            self._opened.pop(key, None)
