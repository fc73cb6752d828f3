"""A watched folder that stays watched: whatever happens to it, to the kernel's queue and limits, or to the thread that reads events.

Why nothing is missed: a change is an event (`daemon.watches`), or a `rescan` tells of it:

- of a folder that is new; of all, after the kernel's queue was full, the folder itself was replaced, something was mounted in it, or the
  thread that reads events ended;
- every `poll_seconds` where there are no events, because a limit is reached or polling is asked for.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from daemon.watches import Listener, Watches
from sdfs.errors import UserError
from sdfs.system.mounts import Mount, is_within, mounts

__all__ = ["Listener", "Watcher"]
_LIMITS = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}
_log = logging.getLogger(__name__)


class Watcher:
    """Tells `listener` what happens in the folder `root`. `start`, `check` and `stop` are called by one thread."""

    def __init__(self, root: str, listener: Listener, *, polling: bool = False, poll_seconds: float = 30.0) -> None:
        """`polling`: no events, but a rescan every `poll_seconds`, for folders that other machines write to."""
        self._root = root
        self._listener = listener
        self._polling = polling
        self._poll_seconds = poll_seconds
        self._poll_due = 0.0
        self._watches: Watches | None = None
        self._place: object = None  # where the folder was, when it was last looked at
        self._warned: set[int] = set()

    def start(self) -> None:
        """What is in the folder already is the caller's to find, afterwards. Raises UserError where `root` is no readable folder."""
        try:
            os.scandir(self._root).close()
        except OSError as error:
            raise UserError(f"{self._root} cannot be watched: {error.strerror}") from error
        self._place = _place(self._root)
        self._watch()

    def stop(self) -> None:
        """Nothing is told afterwards, and no thread is left."""
        watches, self._watches = self._watches, None
        if watches is not None:
            watches.close()

    def check(self) -> None:
        """To be called every few seconds: notices what no event tells, looks where there are no events, and starts again what ended."""
        before, self._place = self._place, _place(self._root)
        if self._place is None:
            if before is not None:
                self._lost()
            return
        if before != self._place:
            self._watch_again("it is there again" if before is None else "it was replaced, or something was mounted in it")
        elif self._watches is not None and not self._watches.working:
            self._watch_again("its events were no longer read")
        elif self._watches is not None:
            self._watches.settle_moves()
        if time.monotonic() >= self._poll_due:
            self._poll()

    def _watch(self) -> None:
        self._poll_due = time.monotonic() + self._poll_seconds
        if self._polling:
            return
        try:
            self._watches = Watches(self._root, self._listener)
        except OSError as error:
            self._warn([error.errno or errno.EIO])
        else:
            self._warn(self._watches.unwatched.values())

    def _watch_again(self, reason: str) -> None:
        _log.info("%s is scanned: %s", self._root, reason)
        self.stop()
        self._watch()
        self._listener.rescan(self._root, reason)

    def _lost(self) -> None:
        _log.warning("%s is not there; it is watched again when it is", self._root)
        self.stop()
        self._listener.gone(self._root)

    def _poll(self) -> None:
        if self._watches is None:
            self._watch()
            self._listener.rescan(self._root, "polling")
        else:
            self._poll_due = time.monotonic() + self._poll_seconds
            self._watches.poll()
            self._warn(self._watches.unwatched.values())

    def _warn(self, errors: Iterable[int]) -> None:
        """Once of each; folders that may not be read are for the scans to tell of."""
        for error in set(errors) - self._warned - {errno.EACCES}:
            self._warned.add(error)
            why = _limit_reached(_LIMITS[error]) if error in _LIMITS else os.strerror(error)
            _log.warning("%s is not watched in full, and is scanned every %g seconds instead: %s", self._root, self._poll_seconds, why)


def _limit_reached(name: str) -> str:
    limit = int(Path("/proc/sys/fs/inotify", name).read_text())
    raised = f"fs.inotify.{name}={4 * limit}"
    return f"fs.inotify.{name} is {limit}. To raise it: sudo sysctl {raised}; for good, write {raised} to /etc/sysctl.d/60-inotify.conf"


def _place(root: str) -> object:
    """Which folder a path leads to, and what is mounted below; None where there is no folder."""
    try:
        status = Path(root).stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, _mounts_below(os.path.realpath(root))) if stat.S_ISDIR(status.st_mode) else None


def _mounts_below(folder: str) -> list[Mount]:
    try:
        return [mount for mount in mounts() if mount.point != folder and is_within(mount.point, folder)]
    except OSError:
        return []
