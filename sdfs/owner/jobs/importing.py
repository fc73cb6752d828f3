"""A copy of a file from outside becomes a new file of the tree."""

from __future__ import annotations

import os
import stat

from sdfs.blob.container import is_blob
from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.errors import SourceChanged
from sdfs.owner.store.attributes import copy_attributes
from sdfs.owner.store.store import Staged
from sdfs.owner.store.wrapping import wrap
from sdfs.owner.tree.inode import BEGINS_LIKE_A_BLOB, split_mode
from sdfs.owner.tree.tree import Tree
from sdfs.system.files import content_sha256, fsync_path


def import_file(tree: Tree, source: int, path: str, sha256: str | None = None) -> None:
    """Make `path`, a new name, a copy of the open file `source`, with its attributes; durable when it returns.

    `sha256`: what is copied must have this hash (hexadecimal), else SourceChanged. Raises FileExistsError; not where the name has that
    very content, and could not be made durable before: then it is now.
    """
    backing = tree.new_backing(path)
    staged, is_picture = _copy(tree, source, path, sha256)
    try:
        tree.install.add(staged.path, backing, is_picture=is_picture)
    except FileExistsError:
        if not (
            tree.durable_names.is_volatile(backing) and tree.content_index.holds(backing, content_sha256(source), os.fstat(source).st_size)
        ):
            raise
        fsync_path(backing)
        tree.durable_names.sync(backing)
    finally:
        staged.discard()


def _copy(tree: Tree, source: int, path: str, sha256: str | None) -> tuple[Staged, bool]:
    """The copy, durable; and whether it begins like a picture."""
    mode = stat.S_IMODE(os.fstat(source).st_mode)
    staged = tree.store.stage()
    try:
        tree.store.copy(source, staged.fd)
        if sha256 is not None and content_sha256(staged.fd) != sha256:
            raise SourceChanged(f"{path} changes while it is copied")
        head = os.pread(staged.fd, HEAD_BYTES, 0)
        if is_blob(head):
            mode, preamble_mode = split_mode(mode)
            copied, staged = staged, wrap(tree.store, staged.fd, BEGINS_LIKE_A_BLOB, preamble_mode)
            copied.discard()
        copy_attributes(source, staged.fd, mode)
        os.fsync(staged.fd)
    except BaseException:
        staged.discard()
        raise
    return staged, picture_format(head) is not None
