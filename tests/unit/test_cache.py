"""sdfs.owner.renders.cache: bounded in bytes, one load per key, pinned keys stay."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdfs.owner.renders.cache import RenderCache


def never() -> bytes:
    raise AssertionError("it should have been there")


def test_a_second_get_does_not_load_again() -> None:
    cache = RenderCache(100)
    assert cache.get("a", lambda: b"render") == b"render"
    assert cache.get("a", never) == b"render"


def test_the_least_recently_used_goes_first() -> None:
    cache = RenderCache(20)
    for key in "ab":
        cache.get(key, lambda: bytes(10))
    cache.get("a", never)
    cache.get("c", lambda: bytes(10))
    cache.get("a", never)
    with pytest.raises(AssertionError, match="should have been there"):
        cache.get("b", never)


def test_it_holds_no_more_than_its_bound() -> None:
    cache = RenderCache(25)
    for key in "abcdef":
        cache.get(key, lambda: bytes(10))
    assert cache.size_bytes == 20


def test_pinned_keys_stay_though_they_exceed_the_bound() -> None:
    cache = RenderCache(10)
    cache.pin("a")
    cache.get("a", lambda: bytes(30))
    cache.get("b", lambda: bytes(30))
    assert cache.get("a", never) == bytes(30)


def test_what_is_unpinned_goes_when_it_exceeds_the_bound() -> None:
    cache = RenderCache(10)
    cache.pin("a")
    cache.get("a", lambda: bytes(30))
    cache.unpin("a")
    assert cache.size_bytes == 0


def test_a_key_that_is_pinned_twice_stays_until_it_is_unpinned_twice() -> None:
    cache = RenderCache(10)
    cache.pin("a")
    cache.pin("a")
    cache.get("a", lambda: bytes(30))
    cache.unpin("a")
    assert cache.get("a", never) == bytes(30)
    cache.unpin("a")


def test_all_who_ask_at_once_share_one_load() -> None:
    cache = RenderCache(100)
    started, go = threading.Event(), threading.Event()
    loads = []

    def load() -> bytes:
        loads.append(1)
        started.set()
        go.wait(5)
        return b"render"

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.get, "a", load)
        started.wait(5)
        others = [pool.submit(cache.get, "a", load) for _ in range(7)]
        go.set()
        assert [future.result() for future in [first, *others]] == [b"render"] * 8
    assert len(loads) == 1


def test_who_waits_for_anothers_load_is_known() -> None:
    cache, may_load, waits = RenderCache(), threading.Event(), threading.Event()

    def load() -> bytes:
        assert not cache.is_awaited("key")
        assert may_load.wait(10)
        assert cache.is_awaited("key")
        return b"render"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "key", load)
        while "key" not in cache._loads:
            pass
        second = pool.submit(cache.get, "key", never, on_wait=waits.set)
        assert waits.wait(10)
        may_load.set()
        assert first.result(10) == second.result(10) == b"render"
    assert not cache.is_awaited("key")


def test_an_error_is_raised_and_not_remembered() -> None:
    cache = RenderCache(100)

    def fail() -> bytes:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        cache.get("a", fail)
    assert cache.get("a", lambda: b"render") == b"render"
