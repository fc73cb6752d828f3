"""Count the files of a store, and report what the engine does.

Files are counted by walking through the store, in a thread of its own, and only when somebody asks: see `Census`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdfs.control.answers import Counts, FileStatus
from sdfs.engine.interface import EngineStats
from sdfs.errors import StoreBusy

REST = 20  # a store is not walked through again before so many times as long as that took last
ENGINE_STATES = ("unloaded", "starting", "running", "idle", "backing off")
PATIENCE_SECONDS = 0.2  # what who asks waits for a newer count


def count(files: Iterable[FileStatus]) -> Counts:
    states: Counter[str] = Counter()
    logical = stored = 0
    for file in files:
        states[file.state] += 1
        logical += file.logical_bytes
        stored += file.stored_bytes
    return Counts(states["latent"], states["exact"], states["pending"], states["plain"], states["damaged"], logical, stored)


@dataclass(frozen=True)
class _Walk:
    counts: Counts
    ended_at: float  # monotonic
    seconds: float


class Census:
    """The number of files of each kind, as the last walk through the store found it. Thread-safe.

    A walk begins when somebody asks and the last one is not of just now; it takes no more than a twentieth of the time of who asks on
    and on. In a small store it ends before the answer, in a large one the next answer has it.
    """

    def __init__(self, files: Callable[[], Iterable[FileStatus]]) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._last: _Walk | None = None
        self._walking: Future[_Walk] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def counts(self) -> tuple[Counts, float]:
        """With the age of the count, in seconds. Waits for a first one. Raises StoreBusy where the owner ends meanwhile."""
        with self._lock:
            last = self._last
            if self._walking is None and (last is None or time.monotonic() - last.ended_at > REST * last.seconds):
                self._start()
            walking = self._walking
        if walking is not None:
            with contextlib.suppress(TimeoutError):
                last = walking.result(PATIENCE_SECONDS if last is not None else None)
        assert last is not None
        return last.counts, time.monotonic() - last.ended_at

    def close(self) -> None:
        with self._lock:
            self._stopping.set()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        if self._stopping.is_set():
            raise StoreBusy("the store is being closed")
        self._walking = Future()
        self._thread = threading.Thread(target=self._walk, args=(self._walking,), name="sdfs-census")
        self._thread.start()

    def _walk(self, walking: Future[_Walk]) -> None:
        began_at = time.monotonic()
        try:
            counts = count(self._until_stopped())
        except BaseException as error:
            with self._lock:
                self._walking = None
            walking.set_exception(error)
            return
        ended_at = time.monotonic()
        with self._lock:
            self._last, self._walking = _Walk(counts, ended_at, ended_at - began_at), None
            walk = self._last
        walking.set_result(walk)

    def _until_stopped(self) -> Iterator[FileStatus]:
        for file in self._files():
            if self._stopping.is_set():
                raise StoreBusy("the store is being closed")
            yield file


def engine_figures(stats: EngineStats) -> dict[str, Any]:
    """Fields of `Statistics`."""
    return {
        "engine_state": _engine_state(stats),
        "engine_starts": stats.starts,
        "engine_device": stats.device,
        "engine_dtype": stats.dtype,
        "engine_device_bytes": stats.device_bytes,
        "engine_resident_bytes": None if stats.pid is None else resident_bytes(stats.pid),
    }


def _engine_state(stats: EngineStats) -> str:
    if stats.pid is None:
        return "backing off" if stats.failures else "unloaded"
    if stats.state == "loading":
        return "starting"
    return "running" if stats.in_flight else "idle"


def resident_bytes(pid: int) -> int | None:
    """Memory of a process; None: it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None
