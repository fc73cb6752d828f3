"""Paths by names, such as hashes, in little memory: a store has some hundred thousand blobs, and its owner is to stay small.

A dictionary needs objects of a hundred bytes for each name and each path. Here a name with its path is one record of a bucket:

    NUL, digits of the name's hash, number of the folder, "/", name of the file

The folder's number stands for its path, which many share, and which one step renames for all that is in it.
"""

from __future__ import annotations

import os
import threading
from base64 import b64encode

_HASH_BYTES = 6  # among a million names, two have the same in one of 500 stores
_BUCKET_DIGITS = 2  # of 8 in base 64: 4096 buckets


class Paths:
    """Thread-safe. Of a name, only a hash is kept: hardly ever, what it gives is the path of another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # for changes
        self._buckets: dict[bytes, bytes] = {}
        self._folders: list[str] = []
        self._numbers: dict[str, int] = {}  # of folders

    def get(self, name: str) -> str | None:
        bucket, begin = _place(name)
        _, found, tail = self._buckets.get(bucket, b"").partition(begin)
        if not found:
            return None
        number, _, file = tail.partition(b"\0")[0].partition(b"/")
        return f"{self._folders[int(number)]}/{os.fsdecode(file)}"

    def put(self, name: str, path: str) -> None:
        """`path`: absolute; instead of the one that the name had."""
        bucket, begin = _place(name)
        folder, _, file = path.rpartition("/")
        with self._lock:
            if (number := self._numbers.setdefault(folder, len(self._folders))) == len(self._folders):
                self._folders.append(folder)
            before, _, tail = self._buckets.get(bucket, b"").partition(begin)
            _, nul, after = tail.partition(b"\0")
            self._buckets[bucket] = b"".join((before, nul, after, begin, b"%d/" % number, os.fsencode(file)))

    def rename_folder(self, old: str, new: str) -> None:
        """Of all paths below `old`."""
        with self._lock:
            for number, folder in enumerate(self._folders):
                if folder == old or folder.startswith(old + "/"):
                    self._folders[number] = new + folder[len(old) :]
            self._numbers = {folder: number for number, folder in enumerate(self._folders)}


def _place(name: str) -> tuple[bytes, bytes]:
    """The bucket, and what a record there begins with."""
    digits = b64encode((hash(name) % (1 << 8 * _HASH_BYTES)).to_bytes(_HASH_BYTES, "big"))
    return digits[:_BUCKET_DIGITS], b"\0" + digits[_BUCKET_DIGITS:]
