"""Memory for what is done side by side."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from sdfs.codec.memory_budget import MemoryBudget


def most_at_once(room: MemoryBudget, sizes: list[int]) -> int:
    """How many of those who take these sizes, and stay for a moment, were together at most."""
    lock, inside, most = threading.Lock(), 0, 0

    def take(size: int) -> None:
        nonlocal inside, most
        with room.taking(size):
            with lock:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.02)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(take, sizes))
    return most


def test_what_fits_is_together() -> None:
    budget, together = MemoryBudget(100), threading.Barrier(2, timeout=60)

    def take() -> None:
        with budget.taking(50):
            together.wait()

    with ThreadPoolExecutor(2) as pool:
        for taken in [pool.submit(take), pool.submit(take)]:
            taken.result()


def test_what_does_not_fit_is_done_one_after_the_other() -> None:
    assert most_at_once(MemoryBudget(100), [51, 50, 60]) == 1


def test_whoever_is_alone_gets_more_than_there_is() -> None:
    assert most_at_once(MemoryBudget(0), [50, 50]) == 1


def test_an_error_gives_the_room_back() -> None:
    room = MemoryBudget(10)
    for _ in range(2):
        try:
            with room.taking(10):
                raise ValueError
        except ValueError:
            pass
    assert most_at_once(room, [10]) == 1
