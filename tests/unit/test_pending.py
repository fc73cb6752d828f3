"""sdfs.owner.index.pending: which file is next, and when."""

from __future__ import annotations

import time

import pytest

from sdfs.owner.index import pending as module
from sdfs.owner.index.pending import Pending
from sdfs.system.backoff import Backoff

A, B = (1, 1), (1, 2)


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(module, "RETRY", Backoff(0.35, 600.0))


@pytest.fixture
def pending() -> Pending:
    return Pending()


def paths(pending: Pending, count: int) -> list[str]:
    found = []
    for _ in range(count):
        taken = pending.take(1.0)
        assert taken is not None
        found.append(taken.path)
        pending.finish(taken)
    return found


def test_files_come_in_the_order_in_which_they_settle(pending: Pending) -> None:
    pending.offer(A, "/a")
    pending.offer(B, "/b")
    assert paths(pending, 2) == ["/a", "/b"]


def test_a_file_that_is_written_again_comes_after_the_others(pending: Pending) -> None:
    pending.offer(A, "/a")
    pending.offer(B, "/b")
    pending.offer(A, "/a")
    assert paths(pending, 2) == ["/b", "/a"]
    assert len(pending) == 0


def test_nothing_comes_before_it_settled(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.2)
    pending.offer(A, "/a")
    assert pending.take(0.05) is None
    assert pending.take(1.0) is not None


def test_who_waits_for_the_queue_has_nothing_settle(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 60.0)
    pending.offer(A, "/a")
    pending.hurry(1)
    pending.offer(B, "/b")
    assert paths(pending, 2) == ["/a", "/b"]


def test_a_file_that_failed_lets_others_pass(pending: Pending) -> None:
    pending.offer(A, "/a")
    pending.offer(B, "/b")
    taken = pending.take(1.0)
    assert taken is not None
    assert taken.path == "/a"
    pending.retry(taken)
    assert paths(pending, 2) == ["/b", "/a"]


def test_a_file_taken_stays_until_it_is_finished(pending: Pending) -> None:
    pending.offer(A, "/a")
    assert pending.take(1.0) == pending.take(1.0)
    assert A in pending


def test_paths_follow_renames_of_files_and_folders(pending: Pending) -> None:
    pending.offer(A, "/old/a")
    pending.offer(B, "/older/b")
    pending.rename_folder("/old", "/new")
    pending.rename(B, "/c")
    assert paths(pending, 2) == ["/new/a", "/c"]


def test_a_hundred_thousand_files_are_worked_in_seconds(pending: Pending) -> None:
    """Processor time, not time: the machine may be busy."""
    pending.hurry(1)
    began = time.process_time()
    for number in range(100_000):
        pending.offer((1, number), f"/{number}")
    assert paths(pending, 100_000)[-1] == "/99999"
    assert time.process_time() - began < 10


class TestFilesThatLostAName:
    def test_are_waited_for_until_they_were_searched(self, pending: Pending) -> None:
        pending.search_for(A)
        assert pending.stuck() is None
        pending.searched(pending.sought())
        assert pending.stuck() == []

    def test_are_not_sought_once_the_queue_is_closed(self, pending: Pending) -> None:
        pending.search_for(A)
        pending.close()
        assert pending.sought() == set()
