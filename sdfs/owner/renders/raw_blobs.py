"""Raw blobs: the user's bytes as they are, behind a head. They are read and written on the disk itself, whatever their size: without the
engine, without the cache, and with no more than a chunk of them in memory.

A payload is served once its checksum was found right, which is remembered for the file as it is.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

from sdfs.errors import DamagedError
from sdfs.owner.store.store import Store
from sdfs.system.file_id import FileState

REMEMBERED = 1 << 16
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Payload:
    """All of an open file from `start` on."""

    fd: int
    start: int = 0

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, self.start + offset)

    def copy_to(self, store: Store, target: int) -> None:
        """`target`: an empty file of the store."""
        store.copy(self.fd, target, source_offset=self.start)


class Checked:
    """The checksums of payloads, as far as they were looked at. Thread-safe: who asks for one that is being read waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[FileState, Future[int]] = OrderedDict()  # the CRC-32 of what follows the head

    def check(self, fd: int, start: int, crc: int) -> Payload:
        """The payload of the blob open as `fd`, from `start` on. Raises DamagedError, and OSError, which is not remembered."""
        state = FileState.of(os.fstat(fd))
        with self._lock:
            if reads := state not in self._found:
                self._found[state] = Future()
                if len(self._found) > REMEMBERED:
                    self._found.popitem(last=False)
            found = self._found[state]
        if reads:
            self._read(state, fd, start, found)
        if (have := found.result()) != crc:
            raise DamagedError(f"blob section 'file': want checksum {crc:08x}, have {have:08x}")
        return Payload(fd, start)

    def _read(self, state: FileState, fd: int, start: int, found: Future[int]) -> None:
        try:
            found.set_result(_crc32(fd, start))
        except BaseException as error:
            with self._lock:
                self._found.pop(state, None)
            found.set_exception(error)


def _crc32(fd: int, offset: int) -> int:
    crc = 0
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        crc = zlib.crc32(chunk, crc)
        offset += len(chunk)
    return crc
