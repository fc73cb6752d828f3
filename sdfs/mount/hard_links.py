"""The names of files that have several, as far as they were looked at: for the kernel, each is a file of its own.

High-level FUSE gives every name a node, whose attributes the kernel remembers for a second. What changes a file through one name
has to make the kernel forget what it knows by the others. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from sdfs.system.file_id import FileId

REMEMBERED = 1 << 14  # files


class HardLinks:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: OrderedDict[FileId, set[str]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._names)

    def note(self, key: FileId, path: str) -> None:
        with self._lock:
            self._names.setdefault(key, set()).add(path)
            self._names.move_to_end(key)
            if len(self._names) > REMEMBERED:
                self._names.popitem(last=False)

    def others(self, key: FileId, path: str) -> list[str]:
        """The names of the file that are known, without `path`."""
        with self._lock:
            return sorted(self._names.get(key, set()) - {path})
