"""Names reached through descriptors of their folders, one component after the other: no symbolic link on the way is followed.

A path that is looked up twice may lead to two places, if somebody swaps a folder for a link in between. A descriptor stays with its folder.
"""

# System calls on descriptors, and on `str` paths, which need not be decodable.
from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence

FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 4096


def is_name(name: str) -> bool:
    """Tell whether `name` can be that of an entry of a folder, and is no way up or out of it."""
    return name not in ("", ".", "..") and not ("/" in name or "\0" in name) and len(os.fsencode(name)) <= _MAX_NAME_BYTES


def is_path(path: str) -> bool:
    """Tell whether `path` can be one of a tree: absolute, and nothing in it but names."""
    return path == "/" or (path.startswith("/") and len(path) <= _MAX_PATH_BYTES and all(map(is_name, path[1:].split("/"))))


def name_in(folder: int, name: str) -> str:
    """Return a path of the entry `name` of an open folder, good for calls that take no descriptor, in this process, while it is open."""
    return f"/proc/self/fd/{folder}/{name}"


def open_folder(top: int | str, names: Sequence[str], *, on_missing: Callable[[str, int], None] | None = None) -> int:
    """Open the folder that `names` lead to, from the folder `top` down. The caller closes the descriptor, which is for names only (O_PATH).

    `on_missing(path, depth)` is asked to make the folder that is missing after `depth` names, at a path of this process. Raises OSError,
    ELOOP where there is a link on the way.
    """
    folder = os.dup(top) if isinstance(top, int) else os.open(top, FOLDER)
    try:
        for depth, name in enumerate(names):
            if not is_name(name):
                raise OSError(errno.EINVAL, "that is no name of a folder", "/".join(names[: depth + 1]))
            if on_missing is not None and not _exists(folder, name):
                on_missing(name_in(folder, name), depth)
            inner = _open_inner(folder, name, "/".join(names[: depth + 1]))
            os.close(folder)
            folder = inner
    except BaseException:
        os.close(folder)
        raise
    return folder


@contextlib.contextmanager
def folder_of(top: int | str, names: Sequence[str]) -> Iterator[int]:
    """Have the folder that `names` lead to open, as `open_folder` does."""
    folder = open_folder(top, names)
    try:
        yield folder
    finally:
        os.close(folder)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _open_inner(folder: int, name: str, path: str) -> int:
    try:
        return os.open(name, FOLDER, dir_fd=folder)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "there is a symbolic link on the way", path) from None
        raise
