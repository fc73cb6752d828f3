"""The files of a watched folder that may be taken."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from daemon.names import is_skipped_folder, is_temporary
from daemon.originals import ASIDE, put_back, trash_folder
from sdfs.errors import NotAStore
from sdfs.owner.access import is_store_of_anybody, store_at


def is_watched(root: str, path: str) -> bool:
    """Whether a file, by its path below the watched folder `root`, may be taken.

    Neither it nor a folder below the root is hidden or temporary, or a trash; and no folder on the way from / is a store or a mount of one.
    """
    *folders, name = path[len(root) + 1 :].split("/")
    if is_temporary(name) or any(map(is_skipped_folder, folders)) or path.startswith(trash_folder() + "/"):
        return False
    below = ("/".join((root, *folders[:depth])) for depth in range(1, len(folders) + 1))
    return not any(map(is_store_of_anybody, below)) and enclosing_store(root) is None


def enclosing_store(folder: str) -> str | None:
    """The folder, or one it is in, that is a store of ours or a mount of one.

    A store of somebody else above it, as in /tmp, keeps nobody from watching.
    """
    at = folder
    while True:
        with contextlib.suppress(NotAStore):
            if store_at(at, above=at != folder) is not None:
                return at
        if at in ("/", ""):
            return None
        at = os.path.dirname(at)


def scan(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files of a folder and of the folders in it; skips what vanishes meanwhile.

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
                if not is_skipped_folder(entry.name) and not is_store_of_anybody(entry.path):
                    folders.append(entry.path)
            elif entry.name.startswith(ASIDE):
                put_back(entry.path)  # and find it in the next scan, or by its event
            elif stat.S_ISREG(status.st_mode) and not is_temporary(entry.name):
                yield entry.path, status
