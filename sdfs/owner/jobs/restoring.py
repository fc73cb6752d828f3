"""What was replaced and is still there: listing it, putting it back, forgetting it.

A restored original would be shrunk into the same blob again. So it is marked, by the extended attribute `store.PLAIN_XATTR`, and the
worker leaves it alone until somebody writes to it. A copy of it is a file like any other.
"""

# System calls on `str` paths, which need not be decodable, and on descriptors.
from __future__ import annotations

import contextlib
import errno
import os
import posixpath

from sdfs.blob.file import BlobFile
from sdfs.control.answers import Trashed
from sdfs.errors import SdfsError, UserError
from sdfs.owner.store.attributes import PLAIN_XATTR
from sdfs.owner.store.store import INTERNAL
from sdfs.owner.store.trash import PATH_XATTR
from sdfs.owner.tree.tree import Tree
from sdfs.system.files import opened
from sdfs.system.no_follow import is_name


def entries(tree: Tree) -> list[Trashed]:
    """The oldest first."""
    found = []
    for name, status, match in tree.store.trash.files():
        with contextlib.suppress(OSError):  # expired meanwhile
            path = f"{tree.store.trash.folder}/{name}"
            logical = _logical_bytes(path, status.st_size)
            found.append(Trashed(name, _recorded_path(path), logical, status.st_size, int(match["time_ns"])))
    return sorted(found, key=lambda trashed: (trashed.trashed_ns, trashed.name))


def _recorded_path(path: str) -> str | None:
    """None also where that is no path of a file of the tree: anybody may have written it."""
    try:
        recorded = os.fsdecode(os.getxattr(path, PATH_XATTR, follow_symlinks=False))
    except OSError:
        return None
    names = recorded.split("/")[1:]
    return recorded if recorded.startswith("/") and all(map(is_name, names)) and names[0] != INTERNAL else None


def _logical_bytes(path: str, stored: int) -> int:
    with contextlib.suppress(SdfsError), BlobFile.open(path) as blob:
        return stored if blob is None else blob.preamble.rendered_size
    return stored


def choose(tree: Tree, wanted: str) -> Trashed:
    """By its name in the trash, or the newest of a path. Raises UserError."""
    path = posixpath.normpath("/" + wanted.lstrip("/"))
    for trashed in reversed(entries(tree)):
        if wanted == trashed.name or path == trashed.path:
            return trashed
    raise UserError(f"{wanted} is not in the trash, neither as a name nor as a path: `sdfs trash list` shows what is")


def restore(tree: Tree, trashed: Trashed, target: str) -> None:
    """Move what was trashed to the backing path `target`, a new name in a folder that is there; durable when it returns.

    In order: the mark, on the file in the trash; fsync; rename; fsync of the folders. Cut anywhere, the file has one name, in the
    trash or in the tree, and it is not in the tree without its mark. Raises OSError, DamagedError, UserError.
    """
    source = f"{tree.store.trash.folder}/{trashed.name}"
    with opened(source) as fd:
        if os.fstat(fd).st_nlink > 1:
            raise UserError(f"{trashed.name} has another name outside the trash: the file is still there")
        if not _is_blob(trashed.name, fd):
            _mark(trashed.name, fd)
        os.fsync(fd)
        tree.install.add(source, target, is_picture=False, room_from_trash=False)


def _is_blob(name: str, fd: int) -> bool:
    """Raises what is wrong with one that is damaged: the tree has no file that begins like a blob and is none."""
    try:
        if (blob := BlobFile.of(fd)) is not None:
            blob.check()
    except SdfsError as error:
        raise type(error)(f"{name}: {error}") from None
    return blob is not None


def _mark(name: str, fd: int) -> None:
    try:
        os.setxattr(fd, PLAIN_XATTR, b"1")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        raise UserError(
            f"SDFS would shrink {name} again at once, because the store's filesystem has no extended attributes: "
            "copy it from .sdfs/trash to a place outside"
        ) from None


def empty(tree: Tree) -> None:
    """Remove everything from the trash. Raises UserError, which names what could not be removed, at the end."""
    kept = []
    for name, _, _ in tree.store.trash.files():
        try:
            tree.store.trash.forget(f"{tree.store.trash.folder}/{name}")
        except OSError as error:
            kept.append(f"{tree.store.internal}/trash/{name} cannot be removed: {error.strerror}")
    if kept:
        raise UserError("; ".join(kept[:3]))


def stored_bytes(tree: Tree, path: str) -> int:
    """What the trash keeps of `path`, a mount path, and of all below it; of the root, everything."""
    below = path.rstrip("/") + "/"
    return sum(
        trashed.stored_bytes for trashed in entries(tree) if path == "/" or trashed.path == path or (trashed.path or "").startswith(below)
    )
