"""Renders in memory. Least recently used first out, bounded in bytes, thread-safe.

- One load per key however many ask: the first loads, the others wait for it and share its result or its error.
- Pinned keys, those of open files, are not evicted, so that no reader makes a second decode necessary. They may exceed the bound.
- The lock is held for bookkeeping only, never while something loads.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

DEFAULT_BYTES = 256 << 20


class RenderCache:
    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._renders: OrderedDict[str, bytes] = OrderedDict()  # oldest use first
        self._loads: dict[str, Future[bytes]] = {}
        self._awaited: set[str] = set()  # of these, those that others wait for
        self._pins: Counter[str] = Counter()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def __contains__(self, key: str) -> bool:
        return key in self._renders

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def is_awaited(self, key: str) -> bool:
        """Whether somebody waits for what somebody else loads."""
        return key in self._awaited

    def get(self, key: str, load: Callable[[], bytes], on_wait: Callable[[], None] = lambda: None) -> bytes:
        """The render of `key`, made by `load` where it is not there. Raises what `load` raises; errors are not remembered.

        `on_wait`: called before it waits for what another caller loads.
        """
        with self._lock:
            if (render := self._renders.get(key)) is not None:
                self._renders.move_to_end(key)
                self.hits += 1
                return render
            self.misses += 1
            flight = self._loads.get(key)
            if flight is None:
                mine = self._loads[key] = Future()
            else:
                self._awaited.add(key)
        if flight is None:
            return self._load(key, load, mine)
        on_wait()
        return flight.result()

    def _load(self, key: str, load: Callable[[], bytes], flight: Future[bytes]) -> bytes:
        try:
            render = load()
        except BaseException as error:
            with self._lock:
                self._end_load(key)
            flight.set_exception(error)
            raise
        with self._lock:
            self._end_load(key)
            self._renders[key] = render
            self._bytes += len(render)
            self._evict()
        flight.set_result(render)
        return render

    def _end_load(self, key: str) -> None:
        del self._loads[key]
        self._awaited.discard(key)

    def pin(self, key: str) -> None:
        """Keep `key`, whether it is there already or not, until it is unpinned as often."""
        with self._lock:
            self._pins[key] += 1

    def unpin(self, key: str) -> None:
        with self._lock:
            self._pins[key] -= 1
            if not self._pins[key]:
                del self._pins[key]
                self._evict()

    def _evict(self) -> None:
        if self._bytes <= self.max_bytes:
            return
        for key in [key for key in self._renders if key not in self._pins]:
            self._bytes -= len(self._renders.pop(key))
            if self._bytes <= self.max_bytes:
                return
