"""A copy of a file from outside becomes a new file of the tree; or a HEIC or AVIF picture a blob that renders as a JPEG."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat

from sdfs.blob import container
from sdfs.blob.container import is_blob
from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.engine.interface import Engine
from sdfs.errors import EngineError, NotAPicture, SourceChanged, UserError
from sdfs.owner.jobs.compressor import MAX_PICTURE_BYTES
from sdfs.owner.store.attributes import copy_attributes
from sdfs.owner.store.store import Staged
from sdfs.owner.store.wrapping import wrap
from sdfs.owner.tree.inode import BEGINS_LIKE_A_BLOB, seal, split_mode
from sdfs.owner.tree.tree import Tree
from sdfs.system.files import content_sha256, fsync_path, read_all

_CONVERTED = ("heic", "avif")
_CONVERTED_NAMES = (".heic", ".heif", ".hif", ".avif")
_JPEG_NAMES = (".jpg", ".jpeg")


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
        if not _made_durable(tree, source, backing):
            raise
    finally:
        staged.discard()


def import_as_jpeg(tree: Tree, engine: Engine, source: int, path: str, sha256: str | None = None) -> str:
    """As `import_file`, but a HEIC or AVIF picture becomes a blob that renders as a JPEG, where that can hold all of it.

    Returns where it is: at `path`, as a JPEG with an extension that says so. Raises UserError where the engine failed, too.
    """
    status = os.fstat(source)
    if picture_format(os.pread(source, HEAD_BYTES, 0)) not in _CONVERTED or status.st_size > MAX_PICTURE_BYTES:
        import_file(tree, source, path, sha256)
        return path
    as_jpeg = jpeg_name(path)
    if os.path.lexists(backing := tree.new_backing(as_jpeg)):  # before it is converted in vain
        if _made_durable(tree, source, backing):
            return as_jpeg
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    data = read_all(source)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise SourceChanged(f"{path} changes while it is read")
    try:
        blob = engine.convert(data, tree.store.settings).result()
    except NotAPicture:
        import_file(tree, source, path, sha256)
        return path
    except EngineError as error:
        raise UserError(f"{path} could not be made a JPEG, and is not in the store: {error}") from error
    where = as_jpeg if container.parse(blob).header["format"] == "jpeg" else path
    _add_blob(tree, blob, source, tree.new_backing(where))
    return where


def jpeg_name(path: str) -> str:
    """The path of a picture once it is a JPEG."""
    stem, extension = posixpath.splitext(path)
    if extension.lower() in _CONVERTED_NAMES:
        return f"{stem}.jpg"
    return path if extension.lower() in _JPEG_NAMES else f"{path}.jpg"


def _made_durable(tree: Tree, source: int, backing: str) -> bool:
    """Whether the file that is there holds, or stands for, the content of an open one, and could not be made durable before: now it is."""
    if not tree.durable_names.is_volatile(backing):
        return False
    if not tree.content_index.holds(backing, content_sha256(source), os.fstat(source).st_size):
        return False
    fsync_path(backing)
    tree.durable_names.sync(backing)
    return True


def _add_blob(tree: Tree, blob: bytes, source: int, backing: str) -> None:
    """Make a blob a new file, with the attributes of an open one."""
    staged = tree.store.stage(blob)
    try:
        seal(staged, blob, source, os.fstat(source).st_mode)
        tree.install.add(staged.path, backing, is_picture=False)
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
