"""A plain passthrough filesystem in the same binding: what SDFS is measured against.

python -m bench.passthrough FOLDER MOUNTPOINT
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["FUSE_LIBRARY_NAME"] = "fuse3"
import mfusepy

_FIELDS = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_rdev", "st_blocks")


class Passthrough(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    use_ns = True

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        status = os.lstat(self._root + path)
        times = {f"st_{letter}time": getattr(status, f"st_{letter}time_ns") for letter in "amc"}
        return {name: getattr(status, name) for name in _FIELDS} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._root + path)]

    def create(self, path: str, mode: int, info: Any = None) -> int:
        return os.open(self._root + path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._root + path, flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._root + path, length)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def unlink(self, path: str) -> None:
        os.unlink(self._root + path)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._root + path, mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._root + path)

    def rename(self, old: str, new: str) -> None:
        os.rename(self._root + old, self._root + new)


if __name__ == "__main__":
    # with the permission checks that SDFS needs, and which cost the kernel a look at the folder after each change
    mfusepy.FUSE(Passthrough(sys.argv[1]), sys.argv[2], foreground=True, default_permissions=True)
