"""Memory for what is done side by side."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class MemoryBudget:
    """Whoever is alone gets what he wants; others wait until theirs fits beside what is taken. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._taken: list[int] = []

    @contextlib.contextmanager
    def taking(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or sum(self._taken) + size <= self._max_bytes)
            self._taken.append(size)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(size)
                self._changed.notify_all()
