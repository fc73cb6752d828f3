"""Renders on a disk, in a folder that several owners may share. Least recently used first out, bounded in bytes, thread-safe.

- A file is the SHA-256 of a render, and the render. One that is not so is as good as not there, and removed. So a crash needs no care:
  it leaves files that are whole, files that fail their checksum, and files under names that nobody reads, which go after an hour.
- Files come under their names by a rename, whole. Two owners that write the same one write the same.
- A thread of its own writes, and what comes while it has enough to do is not kept: no reader waits for that. The disk may be full or gone:
  then renders are not kept, which is logged once until they are again.
- What is in the folder under other names than ours is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from sdfs.errors import UserError
from sdfs.system.files import make_private

DEFAULT_DISK_BYTES = 4 << 30
_DIGEST_BYTES = 32
_RENDER = re.compile(r"[0-9a-f]{32}\.render")
_UNFINISHED = "unfinished-"
_UNFINISHED_SECONDS = 3600.0
_MAX_WAITING = 4  # renders to be written
_LOOKS = 16  # a shared folder is looked at again after this part of its bound was written
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_log = logging.getLogger(__name__)


class DiskCache:
    def __init__(self, folder: str, max_bytes: int = DEFAULT_DISK_BYTES) -> None:
        """Makes the folder. Raises UserError where it cannot be made, or is not only its user's; a full disk is no error."""
        try:
            make_private(folder, "is to hold what readers get")
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise UserError(f"{folder} cannot hold renders: {error.strerror}") from error
        self.hits = 0
        self.misses = 0
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sdfs-disk-cache")
        self._bytes = 0  # this and the next two: the writer's alone
        self._room = -1  # what may be written until the folder is looked at again
        self._told = False
        self._writer.submit(self._make_room, 0)

    @property
    def size_bytes(self) -> int:
        """As far as this owner knows."""
        return self._bytes

    def get(self, key: str, size: int) -> bytes | None:
        """The render of `key`, which has so many bytes. None: it is not there."""
        render = self._read(key, size)
        with self._lock:
            self.hits += render is not None
            self.misses += render is None
        return render

    def put(self, key: str, render: bytes) -> None:
        """Keep a render, soon, if there is time. `key`: 32 hexadecimal digits."""
        if len(render) + _DIGEST_BYTES <= self._max_bytes and self._waiting.acquire(blocking=False):
            with contextlib.suppress(RuntimeError):  # it was closed
                self._writer.submit(self._write, key, render)

    def close(self) -> None:
        """What was put is written."""
        self._writer.shutdown()

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}.render"

    def _read(self, key: str, size: int) -> bytes | None:
        path = self._path(key)
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                fits = os.fstat(file.fileno()).st_size == _DIGEST_BYTES + size
                digest, render = (file.read(_DIGEST_BYTES), file.read(size)) if fits else (b"", b"")
            if fits and hashlib.sha256(render).digest() == digest:
                os.utime(path)
                return render
            _log.warning("%s is damaged, and removed", path)
            os.unlink(path)
        except OSError:
            pass
        return None

    # the writer

    def _write(self, key: str, render: bytes) -> None:
        try:
            self._make_room(len(render) + _DIGEST_BYTES)
            fd, path = tempfile.mkstemp(prefix=_UNFINISHED, dir=self._folder)
            try:
                with open(fd, "wb") as file:
                    file.write(hashlib.sha256(render).digest())
                    file.write(render)
                os.rename(path, self._path(key))
            except BaseException:
                os.unlink(path)
                raise
            self._told = False
        except OSError as error:
            if not self._told:
                _log.warning("%s: renders are not kept for now: %s", self._folder, error.strerror or error)
            self._told = True
        finally:
            self._waiting.release()

    def _make_room(self, size: int) -> None:
        """`size` bytes more do not exceed the bound, but for what other owners wrote since the last look."""
        if size > self._room:
            room = max(size, self._max_bytes // _LOOKS)
            self._bytes = self._shrink(self._max_bytes - room)
            self._room = room
        self._room -= size
        self._bytes += size

    def _shrink(self, max_bytes: int) -> int:
        """What the folder holds afterwards."""
        renders = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if _RENDER.fullmatch(entry.name):
                        renders.append((status.st_mtime_ns, status.st_size, entry.path))
                    elif entry.name.startswith(_UNFINISHED) and time.time() - status.st_mtime > _UNFINISHED_SECONDS:
                        os.unlink(entry.path)
        held = sum(size for _, size, _ in renders)
        for _, size, path in sorted(renders):
            if held <= max_bytes:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            held -= size
        return held
