"""The queue of files that may become blobs: a hint that a scan of the store rebuilds. Thread-safe.

- An entry is an inode; its path follows renames.
- `generation` counts what may have changed the content: a swap is allowed only if nobody opened the file for writing since the
  worker began to read it.
- A file that had two names and lost one may become a blob, too, but which one is left has to be searched for.
- The lock is a leaf: nothing else is taken under it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from sdfs.system.backoff import Backoff
from sdfs.system.file_id import FileId

SETTLE_SECONDS = 1.0  # after the last close: programs still rename, chmod, set times
RETRY = Backoff(1.0, 600.0)
HURRIED_RETRY_SECONDS = 0.3  # the first, where somebody waits for the queue to empty
ENOUGH_FAILURES = 3  # after which nobody waits for a file any more


@dataclass(eq=False)
class Entry:
    key: FileId
    path: str
    due: float  # monotonic
    generation: int = 0
    failures: int = 0
    error: Exception | None = None


@dataclass(frozen=True)
class Taken:
    """An entry as it was when the worker took it."""

    key: FileId
    path: str
    generation: int


@dataclass
class Pending:
    """`hurry` counts those who wait for the queue to empty: meanwhile nothing settles, and failures are retried at once, twice."""

    done: int = 0  # entries that left the queue
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _entries: dict[FileId, Entry] = field(default_factory=dict)
    _by_due: list[tuple[float, int, Entry]] = field(default_factory=list)  # a heap; has what left the queue, and former times, too
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _sought: set[FileId] = field(default_factory=set)
    _hurry: int = 0
    _closed: bool = False
    _poked: bool = False

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: FileId) -> bool:
        return key in self._entries

    def offer(self, key: FileId, path: str) -> None:
        """A file that begins like a picture was closed, or found."""
        with self._changed:
            old = self._entries.get(key)
            self._entries[key] = Entry(key, path, 0.0, old.generation + 1 if old else 0)
            self._schedule(self._entries[key], SETTLE_SECONDS)

    def nudge(self, key: FileId) -> None:
        """A file is not open any more."""
        with self._changed:
            if (entry := self._entries.get(key)) is not None:
                entry.failures = 0
                self._schedule(entry, SETTLE_SECONDS)

    def touch(self, key: FileId) -> None:
        """A file is opened for writing."""
        with self._changed:
            if (entry := self._entries.get(key)) is not None:
                entry.generation += 1

    def rename(self, key: FileId, new: str) -> None:
        """A file is now `new`."""
        with self._changed:
            if (entry := self._entries.get(key)) is not None:
                entry.path = new

    def rename_folder(self, old: str, new: str) -> None:
        """The folder `old`, with all below it, is now `new`."""
        with self._changed:
            for entry in self._entries.values():
                if entry.path.startswith(old + "/"):
                    entry.path = new + entry.path[len(old) :]

    def is_current(self, taken: Taken) -> bool:
        entry = self._entries.get(taken.key)
        return entry is not None and entry.generation == taken.generation

    def path_of(self, key: FileId) -> str | None:
        entry = self._entries.get(key)
        return entry.path if entry else None

    def reason(self, key: FileId) -> str | None:
        """Why a file stays pending that was tried again and again; None: it has not been."""
        entry = self._entries.get(key)
        if entry is None or entry.failures < ENOUGH_FAILURES:
            return None
        return str(entry.error) if entry.error is not None else "it is kept open"

    # the worker's side

    def take(self, seconds: float) -> Taken | None:
        """Wait for the next entry that is due; it stays in the queue until `finish` or `retry`.

        None: there is none after so many seconds, or it was poked, or the queue was closed.
        """
        end = time.monotonic() + seconds
        with self._changed:
            while not self._closed and (now := time.monotonic()) < end:
                self._drop_outdated()
                if self._by_due and self._by_due[0][0] <= now:
                    entry = self._by_due[0][2]
                    return Taken(entry.key, entry.path, entry.generation)
                if self._poked:
                    break
                self._changed.wait(min(end, self._by_due[0][0] if self._by_due else end) - now)
            self._poked = False
            return None

    def finish(self, taken: Taken) -> None:
        """The file is a blob now, or never will be; unless it was written to meanwhile."""
        with self._changed:
            if self.is_current(taken):
                del self._entries[taken.key]
                self.done += 1
            self._changed.notify_all()

    def retry(self, taken: Taken, error: Exception | None = None) -> None:
        """Not now: the file is open, or `error` is in the way."""
        with self._changed:
            if (entry := self._entries.get(taken.key)) is not None:
                entry.failures += 1
                entry.error = error
                self._schedule(entry, RETRY.seconds(entry.failures))
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until something changes, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def hurry(self, by: int) -> None:
        """`by` 1: somebody waits for the queue to empty; -1: no longer."""
        with self._changed:
            self._hurry += by
            self._by_due = [(self._due(entry), next(self._numbers), entry) for entry in self._entries.values()]
            heapq.heapify(self._by_due)
            self._changed.notify_all()

    def retry_all(self) -> None:
        """What failed before is as good as new."""
        with self._changed:
            for entry in self._entries.values():
                entry.failures = 0

    def stuck(self) -> list[Entry] | None:
        """None while an entry is worth waiting for; else those that failed again and again, or are kept open."""
        with self._changed:
            if self._sought or any(entry.failures < ENOUGH_FAILURES for entry in self._entries.values()):
                return None
            return list(self._entries.values())

    def poke(self) -> None:
        """Wake who waits, with nothing."""
        with self._changed:
            self._poked = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # files that lost a name

    def search_for(self, key: FileId) -> None:
        """A file has one name left, which is not known."""
        with self._changed:
            self._sought.add(key)
            self._changed.notify_all()

    def sought(self) -> set[FileId]:
        """Wait until there are such; nothing once the queue is closed. They stay until `searched`."""
        with self._changed:
            self._changed.wait_for(lambda: self._sought or self._closed)
            return set() if self._closed else set(self._sought)

    def searched(self, keys: set[FileId]) -> None:
        """Those that were found are offered."""
        with self._changed:
            self._sought -= keys
            self._changed.notify_all()

    # when: under the lock

    def _schedule(self, entry: Entry, seconds: float) -> None:
        entry.due = time.monotonic() + seconds
        heapq.heappush(self._by_due, (self._due(entry), next(self._numbers), entry))
        self._changed.notify_all()

    def _drop_outdated(self) -> None:
        while self._by_due:
            due, _, entry = self._by_due[0]
            if self._entries.get(entry.key) is entry and self._due(entry) == due:
                return
            heapq.heappop(self._by_due)

    def _due(self, entry: Entry) -> float:
        if not self._hurry:
            return entry.due
        if entry.failures == 0:
            return 0.0
        return entry.due - (RETRY.first_seconds - HURRIED_RETRY_SECONDS) if entry.failures < ENOUGH_FAILURES else entry.due
