"""Has those pictures decoded that are likely to be read next: where a folder's pictures are read in order, the following ones.

A reader only leaves the path that it opened; a thread looks what follows. The order is that of the names, or that in which the folder is
listed, whichever the last two reads kept to.

- Bounded: `pictures` at a time, each of a size that so many of them take half of the cache of renders.
- No burden: readers are served before it (`sdfs.engine.requests`).
- No harm: what fails here fails again, and is told, when it is read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sdfs.blob.container import KIND_RAW
from sdfs.blob.file import BlobFile
from sdfs.errors import SdfsError
from sdfs.owner.index.preambles import Preambles
from sdfs.owner.renders.renders import Renders

MAX_NAMES = 1 << 14  # a larger folder is not looked through
STRIDE = 4  # names that a reader in order may pass over: some are no pictures, some it has read before
_FOLDERS = 4  # remembered
_MAX_NOTED = 16  # reads that wait to be looked at; readers that are faster need no read-ahead
_log = logging.getLogger(__name__)


class _Order(NamedTuple):
    names: list[str]
    positions: dict[str, int]  # of the names


class _Folder(NamedTuple):
    mtime_ns: int
    orders: list[_Order]  # of its names
    last: str  # read


class ReadAhead:
    """Thread-safe. Paths are of the backing filesystem."""

    def __init__(self, preambles: Preambles, renders: Renders, pictures: int) -> None:
        """`pictures`: at least 1."""
        self._preambles = preambles
        self._renders = renders
        self._pictures = pictures
        self._largest = renders.cache.max_bytes // (2 * pictures)
        self._folders: OrderedDict[str, _Folder] = OrderedDict()  # the looking thread's alone, the last used at the end
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._noted = threading.BoundedSemaphore(_MAX_NOTED)
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="sdfs-look-ahead")
        self._decoding = ThreadPoolExecutor(pictures, thread_name_prefix="sdfs-read-ahead")

    def note(self, path: str) -> None:
        """A reader opened this picture."""
        if self._noted.acquire(blocking=False):
            with contextlib.suppress(RuntimeError):  # it was closed
                self._looking.submit(self._look, path)

    def close(self) -> None:
        """After the engine was closed, so that nothing is waited for."""
        for pool in (self._looking, self._decoding):
            pool.shutdown(cancel_futures=True)

    def _look(self, path: str) -> None:
        try:
            for following in self._following(path):
                self._begin(following)
        except OSError as error:
            _log.debug("no read-ahead after %s: %s", path, error)
        finally:
            self._noted.release()

    def _following(self, path: str) -> list[str]:
        """The pictures that come after this one, if its folder is read in order."""
        folder, name = os.path.split(path)
        known = self._folders.pop(folder, None)
        mtime_ns = os.stat(folder).st_mtime_ns
        if known is None or known.mtime_ns != mtime_ns:
            known = _Folder(mtime_ns, _orders(folder), known.last if known else name)
        self._folders[folder] = known._replace(last=name)
        if len(self._folders) > _FOLDERS:
            self._folders.popitem(last=False)
        for names, positions in known.orders:
            before, at = positions.get(known.last), positions.get(name)
            if before is not None and at is not None and 0 < at - before <= STRIDE:
                names = names[at + 1 : at + 1 + STRIDE * self._pictures]
                return [path for path in (f"{folder}/{name}" for name in names) if self._is_suitable(path)][: self._pictures]
        return []

    def _is_suitable(self, path: str) -> bool:
        try:
            _, blob = self._preambles.look(path)
        except (OSError, SdfsError):
            return False
        return blob is not None and blob.kind != KIND_RAW and blob.rendered_size <= self._largest

    def _begin(self, path: str) -> None:
        with self._lock:
            if path in self._under_way or len(self._under_way) >= self._pictures:
                return
            self._under_way.add(path)
        with contextlib.suppress(RuntimeError):
            self._decoding.submit(self._decode, path)

    def _decode(self, path: str) -> None:
        try:
            with BlobFile.open(path) as blob:
                if blob is not None and blob.preamble.kind != KIND_RAW:
                    self._renders.get_ahead(blob)
        except (OSError, SdfsError) as error:
            _log.debug("no read-ahead of %s: %s", path, error)
        finally:
            with self._lock:
                self._under_way.discard(path)


def _orders(folder: str) -> list[_Order]:
    names = os.listdir(folder)
    if len(names) > MAX_NAMES:
        return []
    return [_Order(order, {name: at for at, name in enumerate(order)}) for order in (sorted(names), names)]
