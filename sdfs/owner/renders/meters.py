"""Measure how long readers wait and how much is decoded, in constant memory.

A reader pays for two additions per picture that it opens. Locks here are leaves, and held for a few additions.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

PER_DECADE = 10
BOUNDS = tuple(10 ** (step / PER_DECADE) for step in range(-6 * PER_DECADE, 3 * PER_DECADE + 1))  # seconds: 1 µs to 1,000 s


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
