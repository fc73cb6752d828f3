"""Waiting for what is to come true."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(
    condition: Callable[[], object], what: str = "it holds", *, seconds: float = 60.0, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Wait until `condition` holds, and call `meanwhile` between two looks. The seconds are those of a loaded machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        meanwhile()
        time.sleep(0.005)
