"""How long to wait before what failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass

_MOST_DOUBLINGS = 32  # more would be no number in the end


@dataclass(frozen=True)
class Backoff:
    """Waits twice as long after each failure in a row."""

    first_seconds: float
    last_seconds: float

    def seconds(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row, at least one."""
        return min(self.first_seconds * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.last_seconds)
