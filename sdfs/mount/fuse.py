"""libfuse through mfusepy: the only importer of it. What is said here of them was tried with mfusepy 3.1 and libfuse 3.14.

- Paths are needed for operations on names only. With `nullpath_ok` libfuse does not hold its locks on a path, and on all folders
  above it, while a file is read: else a rename beside a slow decode would stop every lookup in the folder.
- The kernel has at most `max_background` readahead requests under way, and libfuse at most `max_threads` handlers: 64 of each, for some
  of them wait for decodes.
- mfusepy drops rename's flags and ftruncate's handle, and UTIME_NOW and UTIME_OMIT come as tv_nsec: `Fuse` takes the raw calls.
- Whatever a handler raises becomes an errno in `Fuse._wrapper`, nowhere else.
- After SIGTERM `FUSE()` may raise RuntimeError(8) though it unmounted cleanly.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from sdfs.errors import MountError, SdfsError

os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # mfusepy would take libfuse 2 where both are installed
try:
    import mfusepy
except OSError as error:
    raise MountError(f"libfuse 3 cannot be loaded ({error}): install the package fuse3") from error
if mfusepy.fuse_version_major != 3:
    raise MountError(f"libfuse: want version 3, have {mfusepy.fuse_version_major}.{mfusepy.fuse_version_minor}")

MAX_REQUESTS = 64
_LOOK_SECONDS = 1.0
_UTIME_NOW = (1 << 30) - 1
_UTIME_OMIT = (1 << 30) - 2
_log = logging.getLogger(__name__)


class Connection:
    """What the kernel and this process tell each other besides requests and answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # libfuse's structs are there while it is held and `_fuse` is not None
        self._fuse: int | None = None

    def attach(self, on_end: Callable[[], None]) -> None:
        """In a handler, once the mount is there. `on_end` is called, by a thread, once nobody can ask for anything any more.

        That is, when it is unmounted and nobody has a file of it open, or this process was told to end. libfuse then waits for the
        handlers that are under way, and nobody waits for them.
        """
        self._fuse = mfusepy._libfuse.fuse_get_context().contents.fuse
        get_session = mfusepy._libfuse.fuse_get_session
        get_session.restype = ctypes.c_void_p
        session = ctypes.c_void_p(get_session(ctypes.c_void_p(self._fuse)))
        poll = select.poll()
        poll.register(mfusepy._libfuse.fuse_session_fd(session), 0)  # an error: there is no mount any more

        def watch() -> None:
            while not (poll.poll(1000 * _LOOK_SECONDS) or self._is_ending(session)):
                pass
            on_end()

        threading.Thread(target=watch, name="sdfs-connection", daemon=True).start()

    def _is_ending(self, session: ctypes.c_void_p) -> bool:
        with self._lock:
            return self._fuse is None or bool(mfusepy._libfuse.fuse_session_exited(session))

    def detach(self) -> None:
        with self._lock:
            self._fuse = None

    def forget(self, path: str) -> None:
        """Make the kernel forget pages. Not for a thread that holds a lock which a handler may wait for."""
        with self._lock:
            if self._fuse is not None:
                mfusepy._libfuse.fuse_invalidate_path(ctypes.c_void_p(self._fuse), os.fsencode(path))


class Fuse(mfusepy.FUSE):  # type: ignore[misc]  # mfusepy has no types
    def _wrapper(self, call: Callable[..., int | None], *arguments: Any) -> int:
        """The one place where errors become errnos. The tree has logged what is worth it; other exceptions are bugs."""
        try:
            return call(*arguments) or 0
        except OSError as error:
            return -(error.errno or errno.EIO)
        except SdfsError:
            return -errno.EIO
        except Exception:
            _log.exception("a handler failed")
            return -errno.EIO

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> None:
        self.operations.rename_with_flags(old.decode(self.encoding, self.errors), new.decode(self.encoding, self.errors), flags)

    def truncate_fuse_3(self, path: bytes | None, size: int, info: Any) -> None:
        decoded = None if path is None else path.decode(self.encoding, self.errors)
        self.operations.truncate(decoded, size, info.contents if info else None)

    def utimens_fuse_3(self, path: bytes, times: Any, info: Any) -> None:
        pair = (times.contents.actime, times.contents.modtime)
        self.operations.utimens(path.decode(self.encoding, self.errors), tuple(map(_nanoseconds, pair)))


def _nanoseconds(time_: Any) -> int | None:
    if time_.tv_nsec == _UTIME_OMIT:
        return None
    return time.time_ns() if time_.tv_nsec == _UTIME_NOW else time_.tv_sec * 10**9 + time_.tv_nsec


def asking() -> tuple[int, int]:
    """In a handler: the user and the group of who asks."""
    uid, gid, _ = mfusepy.fuse_get_context()
    return uid, gid


def arguments(source: str, options: Iterable[str], *, read_only: bool) -> dict[str, Any]:
    """What `Fuse` is to be called with for a mount of `source` with the flags `options`."""
    chosen: dict[str, Any] = {
        "foreground": True,  # libfuse must not fork: there are threads
        "raw_fi": True,  # keep_cache is set at each open
        "encoding": sys.getfilesystemencoding(),
        "fsname": source.replace("\\", "\\\\").replace(",", "\\,"),
        "subtype": "sdfs",
        "default_permissions": True,  # logical modes are not those of the backing
        "ro": read_only,
    }
    if mfusepy.fuse_version_minor >= 12:
        chosen["max_threads"] = chosen["max_idle_threads"] = MAX_REQUESTS
    return chosen | dict.fromkeys(options, True)
