"""Which file it is that a path or a descriptor leads to, and whether it is still as it was; and which store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple


class FileId(NamedTuple):
    """Names a file for as long as it is there: once it is gone, another one may get its number."""

    device: int
    inode: int

    @staticmethod
    def of(status: os.stat_result) -> FileId:
        """Take it from what stat says."""
        return FileId(status.st_dev, status.st_ino)


class FileState(NamedTuple):
    """Is another where a file's content may have changed, or another file is in its place."""

    file: FileId
    size: int
    mtime_ns: int
    ctime_ns: int

    @staticmethod
    def of(status: os.stat_result) -> FileState:
        """Take it from what stat says."""
        return FileState(FileId.of(status), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Identity:
    """What only the owner of a store can tell: which `.sdfs` it has, and what is in its file `secret` (hexadecimal, '' for none)."""

    device: int
    inode: int
    secret: str
