"""An open folder: what is in it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

SHOWN = 16  # of a folder's files, to whom it concerns


class OpenFolder:
    """An open folder."""

    def __init__(self, fd: int, hide: str | None, sync_name: Callable[[], None], show: Callable[[list[str]], None]) -> None:
        """`sync_name` makes the folder's own name durable; `show` is told the names of up to SHOWN files at the end of a listing."""
        self._fd = fd
        self._hide = hide
        self._sync_name = sync_name
        self._show = show

    def entries(self) -> Iterator[tuple[str, int]]:
        """Names and file types (the S_IFMT bits)."""
        yield ".", stat.S_IFDIR
        yield "..", stat.S_IFDIR
        files: list[str] = []
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.name != self._hide:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.name, (file_type := _file_type(entry))
                        if file_type == stat.S_IFREG and len(files) < SHOWN:
                            files.append(entry.name)
        self._show(files)

    def fsync(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # it was renamed or removed since it was opened
            self._sync_name()
        os.fsync(self._fd)

    def release(self) -> None:
        os.close(self._fd)


def _file_type(entry: os.DirEntry[str]) -> int:
    """From the listing itself where it says, which it does for all but special files."""
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
