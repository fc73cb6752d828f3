"""Work that is cut into pieces, by all processors.

One thread a piece keeps a processor busier than threads that share each step of one piece and wait for each other after it: a step takes
some 50 microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

_MOST_THREADS = 8  # a piece takes up to 60 MB
_starting = threading.Lock()
Result = TypeVar("Result")


def side_by_side(work: Callable[..., Result], *arguments: Sequence[Any]) -> list[Result]:
    """What `map` gives, with as many threads as torch would use in this one."""
    usual, count = torch.get_num_threads(), len(arguments[0])
    threads = min(usual, count, _MOST_THREADS)
    if threads == 1:
        return list(map(work, *arguments))
    ready = threading.Barrier(threads)

    def begin(_: int) -> None:
        ready.wait()
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread that never asked takes what any other thread set last, when it begins to work

    with ThreadPoolExecutor(threads) as pool:
        with _starting:
            list(pool.map(begin, range(threads)))
            torch.set_num_threads(usual)  # for threads to come: what the last call said is what they begin with
        return list(pool.map(work, *arguments))
