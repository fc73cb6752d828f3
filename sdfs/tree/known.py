"""Which latent blobs a store has, by what names their renders: so that a render that comes back keeps its latents.

A render carries its blob's id as a marker (its format permitting), and the blob's header has the render's hash. Both are hints: a path
that is remembered is looked at again before its blob is given out, and where it is another file by now, the store is searched.
Thread-safe: all state is replaced or added to in single steps, and a lost update costs a search.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

from sdfs.container import KIND_LATENT, MAGIC, PREAMBLE_BYTES, Preamble, parse_header
from sdfs.errors import SdfsError
from sdfs.store import Store, read_all

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SEARCH_SECONDS = 60.0  # a name that a search did not find is not searched for again so soon


class KnownBlobs:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._paths: dict[str, str] = {}  # an id, or the beginning of a render's hash → backing path
        self._missing_at: dict[str, float] = {}

    def note(self, path: str) -> None:
        """There may be a latent blob at `path`."""
        for name in _names(path):
            self._paths[name] = path

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

    def _trash_files(self) -> Iterator[str]:
        with os.scandir(f"{self._store.internal}/trash") as entries:
            return iter([entry.path for entry in entries])

    def _tree_files(self) -> Iterator[str]:
        return (path for path, _ in self._store.walk())

    def by_render(self, sha256: str) -> bytes | None:
        """The blob that is known to render to bytes of this hash; does not search."""
        return self._open(sha256[:16])

    def _open(self, name: str) -> bytes | None:
        path = self._paths.get(name)
        if path is None or name not in _names(path):
            return None
        try:
            fd = os.open(path, _FLAGS)
        except OSError:
            return None
        try:
            return read_all(fd)
        finally:
            os.close(fd)


def _names(path: str) -> tuple[str, ...]:
    """What names the latent blob at `path`; nothing where there is none."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return ()
    try:
        head = os.pread(fd, PREAMBLE_BYTES, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        if not head.startswith(MAGIC):
            return ()
        preamble = Preamble.parse(head)
        if preamble.kind != KIND_LATENT:
            return ()
        header = parse_header(preamble, os.pread(fd, preamble.header_length, PREAMBLE_BYTES))
        return str(header["id"]), str(header["render"])
    except (OSError, SdfsError, KeyError):
        return ()
    finally:
        os.close(fd)
