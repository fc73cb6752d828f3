"""The files of a watched folder that may be taken."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from daemon.names import is_skipped_folder, is_temporary
from sdfs.access import store_at


def is_watched(root: str, path: str) -> bool:
    """Whether a file, by its path below the watched folder `root`, may be taken: neither it nor a folder on the way is hidden or
    temporary, or a store, or a mount of one.
    """
    *folders, name = path[len(root) + 1 :].split("/")
    if is_temporary(name) or any(map(is_skipped_folder, folders)):
        return False
    return not any(_is_store("/".join([root, *folders[: count + 1]])) for count in range(len(folders)))


def scan(root: str, folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files of `folder`, which is `root` or below it, and of the folders in it; skips what vanishes meanwhile.

    Symbolic links are not followed. Raises OSError where `folder` itself cannot be read.
    """
    folders = [folder]
    while folders:
        at = folders.pop()
        try:
            entries = list(os.scandir(at))
        except OSError:
            if at == folder:
                raise
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode):
                if not is_skipped_folder(entry.name) and not _is_store(entry.path):
                    folders.append(entry.path)
            elif stat.S_ISREG(status.st_mode) and not is_temporary(entry.name):
                yield entry.path, status


def _is_store(folder: str) -> bool:
    return store_at(folder) is not None
