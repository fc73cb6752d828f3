"""From one blob to another of the same picture: other latents, of another model or at another quality, or none.

From the original where there is one: in an exact blob, or in the trash, where it is for a day after it was shrunk. Else only from what
readers get, if the user accepts that what was lost once is lost twice.

The swap is as that of a pending file (`sdfs.owner.tree.install`): only if nobody has the file open, it is what was read, and has one name.
"""

# System calls on `str` paths, which need not be decodable, and on descriptors.
from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from typing import Any

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, Preamble
from sdfs.blob.file import BlobFile
from sdfs.control.answers import Wish
from sdfs.engine.interface import Engine
from sdfs.errors import NotAPicture, UserError
from sdfs.owner.jobs.compressor import MAX_PICTURE_BYTES
from sdfs.owner.store.store import Staged
from sdfs.owner.tree.inode import logical_mode, seal
from sdfs.owner.tree.install import Changed, Over, SeveralNames
from sdfs.owner.tree.tree import Tree
from sdfs.settings import EncodeSettings
from sdfs.system.file_id import FileState
from sdfs.system.files import content_sha256, opened, read_all

_SEVERAL_NAMES = "has several names, which would be two files then: remove all but one of them first"


@dataclass(frozen=True)
class _Source:
    state: FileState
    preamble: Preamble
    header: dict[str, Any]
    key: str
    blob: bytes


def recompress(tree: Tree, engine: Engine, path: str, wish: Wish) -> None:
    """`path` is the mount's. Raises UserError where the original is gone, the file is open or no blob; OSError, and what engines raise."""
    backing = tree.backing(path)
    settings = EncodeSettings.parse({**asdict(tree.store.settings), **wish.changes})
    source = _read(backing, path)
    _refuse_several_names(tree, backing, path, source)
    data = _original(tree, engine, source)
    if data is None:
        if not wish.accept_loss:
            raise UserError(f"{path}: its original is no longer in the trash: --accept-loss starts from what readers get, and loses again")
        data = engine.decode(source.key, source.blob).result()
    try:
        blob = engine.encode(data, settings, reference=b"").result()
    except NotAPicture as error:
        raise UserError(f"{path}: {error}") from error
    container.parse(blob)
    staged = tree.store.stage(blob)
    try:
        _swap(tree, backing, path, source, staged, blob)
    except BaseException:
        staged.discard()
        raise
    os.close(staged.fd)
    tree.install.announce(backing)


def _read(backing: str, path: str) -> _Source:
    with BlobFile.open(backing) as blob:
        if blob is None or (status := os.fstat(blob.fd)).st_size > MAX_PICTURE_BYTES:
            raise UserError(f"{path} is no shrunk picture: there is nothing to recompress")
        return _Source(FileState.of(status), blob.preamble, blob.header, blob.key, blob.read())


def _refuse_several_names(tree: Tree, backing: str, path: str, source: _Source) -> None:
    """Before anything is encoded in vain. Under both locks, or the second name could be one in the trash that is being made."""
    with tree.inodes.holding(source.state.file) as inode, inode.lock, tree.inodes.names:
        status = os.lstat(backing)
        if status.st_nlink > 1 and FileState.of(status) == source.state:
            raise UserError(f"{path} {_SEVERAL_NAMES}")


def _original(tree: Tree, engine: Engine, source: _Source) -> bytes | None:
    """The file that was shrunk, bit for bit."""
    if source.preamble.kind != KIND_LATENT:
        return engine.decode(source.key, source.blob).result()
    for name, status, _ in tree.store.trash.files():
        with contextlib.suppress(OSError):  # expired meanwhile
            if status.st_size == source.header.get("original_size"):
                with opened(f"{tree.store.trash.folder}/{name}") as fd:
                    if content_sha256(fd) == source.header.get("original_sha256"):
                        return read_all(fd)
    return None


def _swap(tree: Tree, backing: str, path: str, source: _Source, staged: Staged, blob: bytes) -> None:
    with tree.inodes.holding(source.state.file) as inode, inode.lock:
        if inode.handles:
            raise UserError(f"{path} is open: close it, or try again later")
        with opened(backing) as fd:
            seal(staged, blob, fd, logical_mode(os.fstat(fd), source.preamble))
        try:
            tree.install.replace(staged.path, backing, Over(source.state, keep=True, only_name=True))
        except Changed:
            raise UserError(f"{path} was changed meanwhile: try again") from None
        except SeveralNames:
            raise UserError(f"{path} {_SEVERAL_NAMES}") from None
