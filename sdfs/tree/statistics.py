"""What an owner does, in figures, in constant memory: how long readers wait, how much is decoded, how many files there are of each kind.

A reader pays for two additions per picture that it opens. Locks here are leaves, and held for a few additions. Files are counted by walking
through the store, in a thread of its own, and only when somebody asks: see `Census`.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from sdfs.engine.client import EngineStats
from sdfs.errors import StoreBusy
from sdfs.tree.status import Counts, FileStatus

PER_DECADE = 10
BOUNDS = tuple(10 ** (step / PER_DECADE) for step in range(-6 * PER_DECADE, 3 * PER_DECADE + 1))  # seconds: 1 µs to 1,000 s
REST = 20  # a store is not walked through again before so many times as long as that took last
ENGINE_STATES = ("unloaded", "starting", "running", "idle", "backing off")
PATIENCE_SECONDS = 0.2  # what who asks waits for a newer count


class Histogram:
    """Durations in seconds, in buckets that end at `BOUNDS`, each 26 % above the one before. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        bucket = min(max(0, math.ceil(PER_DECADE * (math.log10(max(seconds, BOUNDS[0])) + 6))), len(BOUNDS))
        with self._lock:
            self._counts[bucket] += 1
            self._sum += seconds

    def cumulative(self) -> tuple[list[int], float]:
        """How many took at most each of `BOUNDS`, and how many there are; and the sum of all, in seconds."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        return list(accumulate(counts)), total

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of all did not exceed, up to a bucket too many; None where there is none."""
        counts, _ = self.cumulative()
        if not counts[-1]:
            return None
        wanted = share * counts[-1]
        return next((bound for bound, count in zip(BOUNDS, counts, strict=False) if count >= wanted), BOUNDS[-1])


class Decodes:
    """What the engine decoded for readers, and the seconds in which it had something to decode, its start included. Thread-safe."""

    def __init__(self) -> None:
        self.count = 0
        self.ahead = 0  # of these, begun before a reader asked for them
        self.pixels = 0
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._running = 0
        self._since = 0.0

    @contextlib.contextmanager
    def timing(self, pixels: int, *, ahead: bool = False) -> Iterator[None]:
        """One that fails takes time, but is not counted."""
        self._change(1)
        done = False
        try:
            yield
            done = True
        finally:
            self._change(-1)
            if done:
                with self._lock:
                    self.count += 1
                    self.ahead += ahead
                    self.pixels += pixels

    def _change(self, running: int) -> None:
        now = time.perf_counter()
        with self._lock:
            if self._running:
                self.seconds += now - self._since
            self._since = now
            self._running += running


class Meters:
    """What `Renders` measures. A read counts once per opener of a shrunk picture: the first, which may have to wait for the picture."""

    def __init__(self) -> None:
        self.decoded_reads = Histogram()  # waited for the engine
        self.cached_reads = Histogram()
        self.decodes = Decodes()

    def figures(self) -> dict[str, Any]:
        """Fields of `Statistics`."""
        seconds, pixels = self.decodes.seconds, self.decodes.pixels
        return {
            "decoded": self.decodes.count,
            "decoded_ahead": self.decodes.ahead,
            "decoded_megapixels": pixels / 1e6,
            "decode_seconds": seconds,
            "decode_megapixels_per_second": pixels / seconds / 1e6 if pixels else None,
            "decoded_reads": self.decoded_reads.cumulative()[0][-1],
            "decoded_p50_seconds": self.decoded_reads.quantile(0.5),
            "decoded_p99_seconds": self.decoded_reads.quantile(0.99),
            "cached_reads": self.cached_reads.cumulative()[0][-1],
            "cached_p50_seconds": self.cached_reads.quantile(0.5),
            "cached_p99_seconds": self.cached_reads.quantile(0.99),
        }


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
