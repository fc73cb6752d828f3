"""When is a file finished? When it has stayed the same for long enough.

Events say when to look, looks decide. A file is finished when its FileState was the same over `closed_seconds` after the last close by a
writer, or over `quiet_seconds` where nobody was seen to close it since it last changed: it was found by a scan, moved in, is on a network
folder, or is written to through a mapping. No event is needed for a write: the FileState shows it.

- A file that keeps changing is looked at less and less often, down to once in LONGEST_WAIT_SECONDS; an event brings the next look forward.
- Events that follow each other closely share one look, so that a writer that closes a file a thousand times a second costs little.
- An event, and a step of `settled`, take O(log n) for n waiting files; a moved or removed folder, what waits in it.
- Nothing is kept of files that do not wait.
"""

from __future__ import annotations

import heapq
import itertools
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sdfs.system.file_id import FileState

LONGEST_WAIT_SECONDS = 60.0
_SHARED = 0.25  # events within this part of `closed_seconds` share one look


@dataclass(eq=False, slots=True)
class _Waiting:
    path: str
    wait: float  # until the next look, after one that found it changed
    due: float = float("inf")  # when it is looked at
    sample: FileState | None = None  # what it was at `since`, and at every look from then on
    since: float = 0.0
    closed: bool = False  # by a writer, and not known to have changed since


class Settling:
    """The files that may still be written to. Not thread-safe.

    `clock` must not go back; its unit is seconds."""

    def __init__(self, clock: Callable[[], float], *, quiet_seconds: float = 10.0, closed_seconds: float = 2.0) -> None:
        self._clock = clock
        self._quiet_seconds = quiet_seconds
        self._closed_seconds = closed_seconds
        self._files = _Files()
        self._looks: list[tuple[float, int, _Waiting]] = []  # a heap; those that are not `due` of a waiting file are void
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._files)

    def touched(self, path: str) -> None:
        """Created, written to, moved in, or found by a scan: somebody may be writing. A file that waits already goes on doing so."""
        waiting = self._files.get(path) or self._add(path)
        self._look_soon(waiting)

    def closed(self, path: str) -> None:
        """Somebody who had it open for writing closed it."""
        waiting = self._files.get(path) or self._add(path)
        waiting.closed = True
        waiting.sample = None
        waiting.wait = self._quiet_seconds
        self._look_soon(waiting)

    def moved(self, old: str, new: str) -> None:
        """A file, or a folder with all below it; what was at `new` is no more. What waits below a folder notices nothing."""
        movers = self._files.take(old)
        self._files.take(new)
        for waiting in movers:
            waiting.path = new + waiting.path[len(old) :]
            self._files.put(waiting)
        if not movers or self._files.get(new) is not None:
            self.touched(new)

    def gone(self, path: str) -> None:
        """Deleted or moved away: a file, or a folder with all below it."""
        self._files.take(path)

    def busy(self, path: str) -> None:
        """It was settled, but somebody still has it open for writing: it is not looked at for a while, unless an event comes."""
        if self._files.get(path) is None:
            self._look_at(self._add(path), self._clock() + LONGEST_WAIT_SECONDS)

    def next_due(self) -> float | None:
        """The clock's time at which `settled` may have something; None: nothing waits."""
        while self._looks and self._is_void(self._looks[0]):
            heapq.heappop(self._looks)
        return self._looks[0][0] if self._looks else None

    def settled(self, look: Callable[[str], FileState | None]) -> Iterator[str]:
        """The files that are found to be finished now; each is forgotten before it is given.

        `look` is called for files that are due, and returns None where there is none, or nothing to wait for. Events may come in between
        two files, but not while `look` runs.
        """
        now = self._clock()
        while (due := self.next_due()) is not None and due <= now:
            waiting = heapq.heappop(self._looks)[2]
            waiting.due = float("inf")
            try:
                is_settled = self._is_settled(waiting, look)
            except BaseException:
                self._look_at(waiting, now + self._quiet_seconds)
                raise
            if is_settled:
                self._files.take_file(waiting.path)
                yield waiting.path

    def _is_settled(self, waiting: _Waiting, look: Callable[[str], FileState | None]) -> bool:
        """Looks at it, and unless it is finished says when to look again."""
        before = self._clock()
        sample = look(waiting.path)
        if sample is None:
            self._files.take_file(waiting.path)
            return False
        if sample == waiting.sample:
            again = waiting.since + self._needed(waiting)
            if before >= again:
                return True
        else:
            changed = waiting.sample is not None
            waiting.sample, waiting.since = sample, self._clock()
            if changed:
                waiting.closed = False
                again = waiting.since + waiting.wait
                waiting.wait = max(min(2 * waiting.wait, LONGEST_WAIT_SECONDS), self._quiet_seconds)
            else:
                again = waiting.since + self._needed(waiting)
        self._look_at(waiting, again)
        return False

    def _needed(self, waiting: _Waiting) -> float:
        return self._closed_seconds if waiting.closed else self._quiet_seconds

    def _add(self, path: str) -> _Waiting:
        waiting = _Waiting(path, self._quiet_seconds)
        self._files.put(waiting)
        return waiting

    def _look_soon(self, waiting: _Waiting) -> None:
        self._look_at(waiting, self._clock() + _SHARED * self._closed_seconds)

    def _look_at(self, waiting: _Waiting, due: float) -> None:
        """Then, or at an earlier time that is set already."""
        if due >= waiting.due:
            return
        waiting.due = due
        heapq.heappush(self._looks, (due, next(self._count), waiting))
        if len(self._looks) > 2 * len(self._files) + 64:
            self._looks = [look for look in self._looks if not self._is_void(look)]
            heapq.heapify(self._looks)

    def _is_void(self, look: tuple[float, int, _Waiting]) -> bool:
        due, _, waiting = look
        return waiting.due != due or self._files.get(waiting.path) is not waiting


class _Files:
    """Waiting files by path, and what of them is below a folder, without a look at the others.

    A path is in `_inside` of its folder if it is in `_files`, or a key of `_inside`, and only then.
    """

    def __init__(self) -> None:
        self._files: dict[str, _Waiting] = {}
        self._inside: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def get(self, path: str) -> _Waiting | None:
        return self._files.get(path)

    def put(self, waiting: _Waiting) -> None:
        path = waiting.path
        self._files[path] = waiting
        while (folder := posixpath.dirname(path)) != path:
            inside = self._inside.setdefault(folder, set())
            was_empty = not inside
            inside.add(path)
            if not was_empty:
                return
            path = folder

    def take_file(self, path: str) -> _Waiting | None:
        """Removes and returns it."""
        waiting = self._files.pop(path, None)
        while path not in self._files and path not in self._inside:
            folder = posixpath.dirname(path)
            if (inside := self._inside.get(folder)) is None:
                break
            inside.discard(path)
            if inside:
                break
            del self._inside[folder]
            path = folder
        return waiting

    def take(self, path: str) -> list[_Waiting]:
        """Removes and returns those at and below `path`."""
        paths = [path]
        for folder in paths:  # grows meanwhile
            paths.extend(self._inside.get(folder, ()))
        taken = (self.take_file(found) for found in paths)
        return [waiting for waiting in taken if waiting is not None]
