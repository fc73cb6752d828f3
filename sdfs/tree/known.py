"""Which contents a store has: by what names a blob's renders, and by the originals.

A render carries its blob's id as a marker (its format permitting), and the blob's header has the render's hash: so a render that comes
back keeps its latents. The header has the original's hash, too, and files that are no blobs are known by their size: so whoever brings
a content a second time can be told that it is there.

All of it are hints that a scan rebuilds: a path that is remembered is looked at again before it is believed. Thread-safe: all state is
replaced or added to in single steps, and a lost update costs a search, or a second copy.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial

from sdfs import container
from sdfs.container import KIND_LATENT, MAGIC, PREAMBLE_BYTES, Preamble, latent_id, parse_header
from sdfs.errors import SdfsError
from sdfs.files import content_sha256, read_all
from sdfs.store import HIDDEN, Store
from sdfs.tree.paths import Paths

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
REMEMBERED_SIZES = 1 << 14
REMEMBERED_OF_SIZE = 8
SEARCH_SECONDS = 60.0  # a name that a search did not find is not searched for again so soon


class KnownBlobs:
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
        return self._open(sha256[:16])

    def by_original(self, sha256: str, size: int) -> str | None:
        """A file of the tree that holds, or as a whole blob stands for, a content of this hash (hexadecimal) and size; does not search."""
        path = self._paths.get(_original(sha256))
        if path is not None and not _is_hidden(path) and _stands_for(path, sha256):
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
        try:
            fd = os.open(path, _FLAGS)
        except OSError:
            return None
        try:
            return read_all(fd)
        finally:
            os.close(fd)

    def _names(self, path: str) -> list[str]:
        """What names the blob at `path`; nothing where there is none. What is in the trash has no original: the store gives it up."""
        try:
            fd = os.open(path, _FLAGS)
        except OSError:
            return []
        try:
            status = os.fstat(fd)
            head = os.pread(fd, PREAMBLE_BYTES, 0) if stat.S_ISREG(status.st_mode) else b""
            if not head.startswith(MAGIC):
                if stat.S_ISREG(status.st_mode) and not self._is_trashed(path):
                    self._note_unwrapped(path, status.st_size)
                return []
            preamble = Preamble.parse(head)
            header = parse_header(preamble, os.pread(fd, preamble.header_length, PREAMBLE_BYTES))
            names = [] if self._is_trashed(path) else [_original(str(header["original_sha256"]))]
            return [latent_id(header), str(header["render"]), *names] if preamble.kind == KIND_LATENT else names
        except (OSError, SdfsError, KeyError):
            return []
        finally:
            os.close(fd)

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
    """Whether a whole blob of that original is there."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return False
    try:
        header = container.check(partial(os.pread, fd), os.fstat(fd).st_size)[1]
    except (OSError, SdfsError):
        return False
    finally:
        os.close(fd)
    return header.get("original_sha256") == sha256


def _content_sha256(path: str, size: int) -> str | None:
    """None where there is no unwrapped file of that size."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size or os.pread(fd, len(MAGIC), 0) == MAGIC:
            return None
        return content_sha256(fd)
    finally:
        os.close(fd)
