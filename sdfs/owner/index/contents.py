"""Which contents a store has: by what names a blob's renders, and by the originals.

A render carries its blob's id as a marker (its format permitting), and the blob's header has the render's hash: so a render that comes
back keeps its latents. The header has the original's hash, too, and files that are no blobs are known by their size: so whoever brings
a content a second time can be told that it is there.

All of it are hints that a scan rebuilds: a path that is remembered is looked at again before it is believed. Thread-safe: all state is
replaced or added to in single steps, and a lost update costs a search, or a second copy.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator

from sdfs.blob.container import KIND_LATENT, latent_id
from sdfs.blob.file import BlobFile
from sdfs.errors import SdfsError
from sdfs.owner.index.paths import Paths
from sdfs.owner.store.store import HIDDEN, Store
from sdfs.system.files import content_sha256, opened, read_all

REMEMBERED_SIZES = 1 << 14
REMEMBERED_OF_SIZE = 8
RENDER_DIGITS = 16  # of a render's hash that a blob's header has
SEARCH_SECONDS = 60.0  # a name that a search did not find is not searched for again so soon


class ContentIndex:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._paths = Paths()  # backing paths by a latent blob's id, by the beginning of its render's hash, by an original's
        self._unwrapped: OrderedDict[int, list[str]] = OrderedDict()  # size → backing paths of files that were no blobs
        self._missing_at: dict[str, float] = {}

    def note(self, path: str) -> None:
        """There is a file at `path`."""
        for name in self._names(path):
            self._paths.put(name, path)

    def rename(self, old: str, new: str, size: int) -> None:
        """A file of the tree, of `size` bytes on the disk, is now `new`."""
        if old in (paths := self._unwrapped.get(size, [])):
            self._unwrapped[size] = [new if path == old else path for path in paths]
        else:
            self.note(new)

    def rename_folder(self, old: str, new: str) -> None:
        """A folder of the tree, with all below it, is now `new`."""
        self._paths.rename_folder(old, new)
        below = old + "/"
        for size, paths in list(self._unwrapped.items()):
            self._unwrapped[size] = [new + path[len(old) :] if path.startswith(below) else path for path in paths]

    def by_id(self, identity: str) -> bytes | None:
        """The blob whose renders carry `identity`; searches the trash, where what was just replaced is, and the tree for it."""
        if (found := self._open(identity)) is not None:
            return found
        if time.monotonic() - self._missing_at.get(identity, -SEARCH_SECONDS) < SEARCH_SECONDS:
            return None
        for search in (self._trash_files, self._tree_files):
            for path in search():
                self.note(path)
            if (found := self._open(identity)) is not None:
                return found
        self._missing_at[identity] = time.monotonic()
        return None

    def by_render(self, sha256: str) -> bytes | None:
        """The blob that is known to render to bytes of this hash; does not search."""
        return self._open(sha256[:RENDER_DIGITS])

    def by_content(self, sha256: str, size: int) -> str | None:
        """A file of the tree that holds, or as a whole blob stands for, a content of this hash (hexadecimal) and size; does not search.

        A blob stands for what it was made of, and for its render.
        """
        for name in (_original(sha256), sha256[:RENDER_DIGITS]):
            path = self._paths.get(name)
            if path is not None and not (_is_hidden(path) or self._is_trashed(path)) and _stands_for(path, sha256):
                return path
        unwrapped = (path for path in self._unwrapped.get(size, ()) if not _is_hidden(path))
        return next((path for path in unwrapped if self.holds(path, sha256, size)), None)

    @staticmethod
    def holds(path: str, sha256: str, size: int) -> bool:
        """Whether the file at `path` holds, or as a whole blob stands for, a content of this hash (hexadecimal) and size."""
        return _content_sha256(path, size) == sha256 or _stands_for(path, sha256)

    def _trash_files(self) -> Iterator[str]:
        return (f"{self._store.trash.folder}/{name}" for name, _, _ in self._store.trash.files())

    def _tree_files(self) -> Iterator[str]:
        return (path for path, _ in self._store.walk())

    def _open(self, name: str) -> bytes | None:
        path = self._paths.get(name)
        if path is None or name not in self._names(path):
            return None
        with contextlib.suppress(OSError), opened(path) as fd:
            return read_all(fd)
        return None

    def _names(self, path: str) -> list[str]:
        """What names the blob at `path`; nothing where there is none. What is in the trash has no original: the store gives it up."""
        with contextlib.suppress(OSError, SdfsError, KeyError), opened(path) as fd:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return []
            if (blob := BlobFile.of(fd)) is None:
                if not self._is_trashed(path):
                    self._note_unwrapped(path, status.st_size)
                return []
            header = blob.header
            names = [] if self._is_trashed(path) else [_original(str(header["original_sha256"]))]
            return [latent_id(header), str(header["render"]), *names] if blob.preamble.kind == KIND_LATENT else names
        return []

    def _note_unwrapped(self, path: str, size: int) -> None:
        """Of many files of one size, such as empty ones, only some are remembered: each costs a hash when its size is asked for."""
        others = [other for other in self._unwrapped.pop(size, []) if other != path]
        self._unwrapped[size] = [path, *others[: REMEMBERED_OF_SIZE - 1]]
        if len(self._unwrapped) > REMEMBERED_SIZES:
            self._unwrapped.popitem(last=False)

    def _is_trashed(self, path: str) -> bool:
        return path.startswith((self._store.internal + "/", self._store.trash.folder + "/"))


def _is_hidden(path: str) -> bool:
    """Removed, though somebody still has it open."""
    return HIDDEN.fullmatch(posixpath.basename(path)) is not None


def _original(sha256: str) -> str:
    return "=" + sha256[:32]


def _stands_for(path: str, sha256: str) -> bool:
    """Whether a whole blob of that original, or of that render, is there."""
    with contextlib.suppress(OSError, SdfsError), BlobFile.open(path) as blob:
        if blob is not None and stands_for(blob, sha256):
            blob.check()
            return True
    return False


def stands_for(blob: BlobFile, sha256: str) -> bool:
    """Whether a blob was made of a content of this hash, or renders to it."""
    return sha256 == blob.header.get("original_sha256") or sha256[:RENDER_DIGITS] == blob.header.get("render")


def _content_sha256(path: str, size: int) -> str | None:
    """None where there is no unwrapped file of that size."""
    with contextlib.suppress(OSError, SdfsError), opened(path) as fd:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_size == size and BlobFile.of(fd) is None:
            return content_sha256(fd)
    return None
