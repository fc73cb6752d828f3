"""The watch of one folder: a thread that turns events into settled files, and has these taken.

All state is the thread's own, apart from the events that wait for it. What it does is cut into steps of about a second, between which it
notices that it is to stop, or that somebody wants the store.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from daemon.config import WatchConfig
from daemon.ledger import Identity, Ledger
from daemon.scanning import enclosing_store, is_watched, scan
from daemon.session import Session
from daemon.settling import Settling
from daemon.taking import Result, Taker
from daemon.watching import Watcher
from sdfs.errors import UserError
from sdfs.system.file_id import FileState

CHECK_SECONDS = 5.0  # between looks at the watcher's health
PAUSE_SECONDS = 60.0  # after the store was full
AWAY_SECONDS = 5.0  # after the store was not to be had
LAST_PATIENCE_SECONDS = 60.0  # for the file in hand when the watch is to stop
MAX_EVENTS = 1 << 16  # more of them are forgotten, for a rescan
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What was taken since somebody last counted."""

    files: int = 0
    logical_bytes: int = 0
    stored_bytes: int = 0


class _Event(NamedTuple):
    kind: str  # 'touched' | 'closed' | 'gone' | 'moved'
    path: str
    new: str = ""


class FolderWatch:
    """From `start` to `stop`. `ready` is set after the first scan, `beat` is when the thread was last seen alive (monotonic), and
    `trouble` why it takes nothing now.
    """

    def __init__(self, watch: WatchConfig, *, session: Callable[[str], Session] = Session) -> None:
        """Raises UserError where another process watches the folder."""
        self.watch = watch
        self.ready = threading.Event()
        self.beat = time.monotonic()
        self._ledger = Ledger(watch.folder)
        self._session = session(watch.store)
        self._taker = Taker(watch, self._ledger, self._session, self._may_go_on)
        closed_seconds = min(2.0, watch.settle_seconds)
        self._settling = Settling(time.monotonic, quiet_seconds=watch.settle_seconds, closed_seconds=closed_seconds)
        self._watcher = Watcher(watch.folder, self, polling=watch.polling)
        self._thread = threading.Thread(target=self._run, name=f"sdfs-watch {watch.folder}")
        self._changed = threading.Condition()  # guards the next four
        self._events: deque[_Event] = deque()
        self._missed: dict[str, str] = {}  # folder → why it is to be scanned
        self._stopping = False
        self._counts = Counts()
        self._watching = False
        self._checked_at = self._scanned_at = self._began_at = 0.0  # monotonic
        self._held_until = 0.0  # monotonic: until then nothing is taken
        self.trouble = ""  # why nothing is taken

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Have the thread end after the file in hand; returns at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self) -> None:
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def discard(self) -> None:
        """Of one that was not started."""
        self._ledger.close()

    def take_counts(self) -> Counts:
        """What was taken since the last call."""
        with self._changed:
            counts, self._counts = self._counts, Counts()
        return counts

    # the watcher's threads

    def touched(self, path: str) -> None:
        self._tell(_Event("touched", path))

    def closed(self, path: str) -> None:
        self._tell(_Event("closed", path))

    def gone(self, path: str) -> None:
        self._tell(_Event("gone", path))

    def moved(self, old: str, new: str) -> None:
        self._tell(_Event("moved", old, new))

    def rescan(self, folder: str, reason: str) -> None:
        with self._changed:
            self._missed[folder] = reason
            self._changed.notify_all()

    def _tell(self, event: _Event) -> None:
        with self._changed:
            if len(self._events) >= MAX_EVENTS:
                self._events.clear()
                self._missed[self.watch.folder] = "more happened than can be followed"
            self._events.append(event)
            self._changed.notify_all()

    # the thread

    def _run(self) -> None:
        _log.info("watching %s for %s", self.watch.folder, self.watch.store)
        try:
            while not self._stopping:
                try:
                    self._step()
                except Exception as error:  # a bug, or a ledger that cannot be written: the folder goes on being watched
                    self._stumble(error)
        finally:
            self._watcher.stop()
            self._session.close()
            self._ledger.close()

    def _stumble(self, error: Exception) -> None:
        """Whatever was under way is found again by a scan."""
        if self.trouble != str(error):
            _log.exception("the watch of %s stumbled", self.watch.folder)
        self.rescan(self.watch.folder, "an unexpected error")
        self._hold(AWAY_SECONDS, str(error))
        with self._changed:
            if not self._stopping:
                self._changed.wait(AWAY_SECONDS)

    def _step(self) -> None:
        self.beat = time.monotonic()
        self._look_after_watcher()
        self._digest_events()
        self._scan_missed()
        if time.monotonic() >= self._held_until:
            self._take_settled()
        self._session.give_way()
        self._wait()

    def _look_after_watcher(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < CHECK_SECONDS and self._watching:
            return
        self._checked_at = now
        if self._watching:
            self._watcher.check()
        else:
            try:
                self._start_watching()
            except UserError as error:
                self.ready.set()  # a folder that is not there holds up nobody
                self._hold(AWAY_SECONDS, str(error))
                return
        if now - self._scanned_at > self.watch.rescan_seconds:
            self.rescan(self.watch.folder, "regularly")
        for path in self._ledger.due():
            self._settling.touched(f"{self.watch.folder}/{path}")

    def _start_watching(self) -> None:
        if (store := enclosing_store(self.watch.folder)) is not None:
            raise UserError(f"{self.watch.folder} is within {store}, a store or a mount of one: what is in there needs no watch")
        self._watcher.start()
        self._watching = True
        self._note_trouble("")
        self.rescan(self.watch.folder, "start")

    def _digest_events(self) -> None:
        with self._changed:
            events, self._events = self._events, deque()
        for event in events:
            if event.kind == "gone":
                self._settling.gone(event.path)
            elif event.kind == "moved":
                self._digest_move(event)
            elif is_watched(self.watch.folder, event.path):
                getattr(self._settling, event.kind)(event.path)

    def _digest_move(self, event: _Event) -> None:
        """A file that gets its final name is finished, unless somebody still has it open: whoever takes it notices that."""
        if not is_watched(self.watch.folder, event.new):
            self._settling.gone(event.path)
        elif is_watched(self.watch.folder, event.path):
            self._settling.moved(event.path, event.new)
        else:
            self._settling.closed(event.new)

    def _scan_missed(self) -> None:
        with self._changed:
            missed, self._missed = self._missed, {}
        for folder, reason in missed.items():
            _log.debug("scanning %s: %s", folder, reason)
            is_root = folder == self.watch.folder
            began_at = time.monotonic()
            try:
                known = self._scan(folder)
            except OSError as error:
                _log.debug("%s cannot be scanned: %s", folder, error)
                continue
            if is_root:
                if known:
                    self._forget_vanished()
                self._scanned_at = began_at
                self.ready.set()

    def _scan(self, folder: str) -> bool:
        """Whether there was a file that the ledger knows."""
        known = False
        for path, status in scan(folder):
            self.beat = time.monotonic()
            if self._taker.is_dealt_with(self._relative(path), Identity.of(status)):
                known = True
            elif is_watched(self.watch.folder, path):
                self._settling.touched(path)
        return known

    def _forget_vanished(self) -> None:
        """Not where nothing is known any more: then a filesystem is not mounted, which has lost nothing."""
        for entry in self._ledger.entries():
            if not os.path.lexists(f"{self.watch.folder}/{entry.path}"):
                self._ledger.forget(entry.path)

    def _take_settled(self) -> None:
        for path in self._settling.settled(self._look):
            self._began_at = self.beat = time.monotonic()
            try:
                result = self._taker.take(self._relative(path))
            except BaseException:
                self._settling.busy(path)
                raise
            self._note(path, result)
            if self._stopping or time.monotonic() < self._held_until or self._session.wanted.is_set():
                return
            self._digest_events()

    def _look(self, path: str) -> FileState | None:
        try:
            status = os.lstat(path)
        except OSError:
            self._taker.give_up(self._relative(path))
            return None
        if not stat.S_ISREG(status.st_mode) or self._taker.is_dealt_with(self._relative(path), Identity.of(status)):
            return None
        return FileState.of(status)

    def _note(self, path: str, result: Result) -> None:
        if result.kind == "busy":
            self._settling.busy(path)
        elif result.kind in ("full", "away"):
            self._settling.touched(path)
            self._hold(PAUSE_SECONDS if result.kind == "full" else AWAY_SECONDS, result.reason)
        elif self.trouble:
            self._note_trouble("")
            _log.info("%s: going on", self.watch.folder)
        if result.kind == "taken":
            with self._changed:
                counts = self._counts
                self._counts = replace(
                    counts,
                    files=counts.files + 1,
                    logical_bytes=counts.logical_bytes + result.logical_bytes,
                    stored_bytes=counts.stored_bytes + result.stored_bytes,
                )

    def _hold(self, seconds: float, reason: str) -> None:
        """Take nothing for a while, and say why when that changes."""
        self._held_until = time.monotonic() + seconds
        if reason != self.trouble:
            self._note_trouble(reason)
            _log.warning("%s is on hold: %s", self.watch.folder, reason)

    def _note_trouble(self, reason: str) -> None:
        self.trouble = reason
        with contextlib.suppress(sqlite3.Error):  # which may be the trouble
            self._ledger.note("trouble", reason)

    def _wait(self) -> None:
        """Until something happens or is due."""
        now = time.monotonic()
        until = self._checked_at + CHECK_SECONDS
        if (due := self._settling.next_due()) is not None:
            until = min(until, max(due, self._held_until))
        with self._changed:
            if not (self._events or self._missed or self._stopping):
                self._changed.wait(max(0.0, until - now))

    def _may_go_on(self, seconds: float) -> bool:
        """Whether the file in hand has not taken so long yet. One that is in hand when the watch is to stop is finished, if it can."""
        self.beat = time.monotonic()
        self._digest_events()
        return time.monotonic() - self._began_at < (min(seconds, LAST_PATIENCE_SECONDS) if self._stopping else seconds)

    def _relative(self, path: str) -> str:
        return path[len(self.watch.folder) + 1 :]
