"""sdfs.owner.census, and what an owner tells of itself."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdfs.control.answers import FileStatus
from sdfs.engine.interface import EngineStats
from sdfs.errors import StoreBusy
from sdfs.owner.census import Census, engine_figures, resident_bytes
from sdfs.owner.owner import Owner
from sdfs.owner.renders.meters import BOUNDS, Decodes, Histogram
from sdfs.owner.store.store import init
from tests.support.lossless_engine import PICTURE, LosslessEngine

# durations


@pytest.mark.parametrize("seconds", [0.0000011, 0.00042, 0.01, 0.1, 1.7, 999.0])
def test_a_quantile_is_at_most_a_bucket_too_large(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    found = histogram.quantile(0.5)
    assert found is not None
    assert seconds <= found * (1 + 1e-9) <= seconds * 1.26


def test_quantiles_of_many() -> None:
    histogram = Histogram()
    for _ in range(98):
        histogram.add(0.001)
    for _ in range(2):
        histogram.add(10)
    assert histogram.quantile(0.5) == pytest.approx(0.001)
    assert histogram.quantile(0.99) == pytest.approx(10)


def test_of_nothing_there_is_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e6])
def test_what_is_beyond_all_bounds_is_counted(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    assert histogram.cumulative() == ([0 if seconds > 1 else 1] * len(BOUNDS) + [1], seconds)


def test_no_duration_is_lost_between_threads() -> None:
    histogram = Histogram()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(histogram.add, [0.001] * 2000))
    assert histogram.cumulative()[0][-1] == 2000


def test_decodes_at_the_same_time_take_their_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 11.0, 13.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    decodes = Decodes()
    with decodes.timing(1000), decodes.timing(500):
        pass
    assert (decodes.count, decodes.pixels, decodes.seconds) == (2, 1500, 4.0)


def test_a_decode_that_fails_is_not_counted() -> None:
    decodes = Decodes()
    with pytest.raises(ValueError, match="damaged"), decodes.timing(1000):
        raise ValueError("damaged")
    assert (decodes.count, decodes.pixels) == (0, 0)


# files


def files(number: int) -> Iterator[FileStatus]:
    return (FileStatus(str(n), "latent", 100, 5) for n in range(number))


def test_a_small_store_is_counted_for_every_answer() -> None:
    numbers = iter([1, 2])
    census = Census(lambda: files(next(numbers)))
    first = census.counts()[0]
    while (second := census.counts()[0]) == first:
        pass
    assert (first.latent, second.latent, second.logical_bytes, second.stored_bytes) == (1, 2, 200, 10)
    census.close()


def test_while_a_long_count_runs_the_last_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdfs.owner.census.PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("sdfs.owner.census.REST", 0)
    go = threading.Event()

    def walk() -> Iterable[FileStatus]:
        yield from files(walks := len(begun))
        begun.append(walks)
        if walks:
            go.wait(10)

    begun: list[int] = []
    census = Census(walk)
    assert census.counts()[0].latent == 0
    assert [census.counts()[0].latent for _ in range(3)] == [0, 0, 0]
    assert begun == [0, 1], "only one walk at a time"
    go.set()
    census.close()


def test_a_count_that_fails_is_told_and_tried_again() -> None:
    def walk() -> Iterable[FileStatus]:
        if not failed:
            failed.append(True)
            raise OSError("the disk is gone")
        return files(3)

    failed: list[bool] = []
    census = Census(walk)
    with pytest.raises(OSError, match="the disk is gone"):
        census.counts()
    assert census.counts()[0].latent == 3
    census.close()


def test_the_end_of_the_owner_ends_a_count() -> None:
    began, go = threading.Event(), threading.Event()

    def walk() -> Iterable[FileStatus]:
        began.set()
        go.wait(10)
        yield from files(10)

    census = Census(walk)
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(census.counts)
        began.wait(10)
        closing = pool.submit(census.close)
        while not census._stopping.is_set():
            pass
        go.set()
        with pytest.raises(StoreBusy, match="being closed"):
            asking.result(10)
        closing.result(10)
    with pytest.raises(StoreBusy, match="being closed"):
        census.counts()


# processes


@pytest.mark.parametrize(
    ("stats", "state"),
    [
        (EngineStats("unloaded", None, 0, 0, 0), "unloaded"),
        (EngineStats("unloaded", None, 2, 2, 0), "backing off"),
        (EngineStats("loading", os.getpid(), 1, 0, 0), "starting"),
        (EngineStats("ready", os.getpid(), 1, 0, 1), "running"),
        (EngineStats("ready", os.getpid(), 1, 0, 0), "idle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_state_of_the_engine(stats: EngineStats, state: str) -> None:
    assert engine_figures(stats)["engine_state"] == state


def test_memory_of_a_process() -> None:
    own = resident_bytes(os.getpid())
    assert own is not None
    assert 5e6 < own < 5e9


def test_a_process_that_has_ended_has_no_memory() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert resident_bytes(process.pid) is None


# an owner


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    init(tmp_path / "store")
    (tmp_path / "picture").write_bytes(PICTURE)
    owner = Owner(tmp_path / "store", engine=LosslessEngine)
    owner.services.add(tmp_path / "picture", "a.jpg")
    yield owner
    owner.close()


def read(owner: Owner) -> None:
    with open(os.devnull, "wb") as nothing:
        owner.services.read_to("a.jpg", nothing)


def test_the_first_read_decodes_and_the_next_does_not(owner: Owner) -> None:
    owner.services.sync(lambda done, total: None)
    for _ in range(3):
        read(owner)
    it = owner.services.statistics()
    assert (it.decoded, it.decoded_reads, it.cached_reads) == (1, 1, 2)
    assert (it.memory_hits, it.memory_misses, it.memory_bytes) == (2, 1, len(PICTURE))
    assert it.decoded_p50_seconds is not None
    assert it.cached_p99_seconds is not None


def test_decoded_pixels_are_those_of_the_picture(owner: Owner) -> None:
    owner.services.sync(lambda done, total: None)
    read(owner)
    it = owner.services.statistics()
    assert it.decoded_megapixels == pytest.approx(4 * 3 / 1e6)
    assert it.decode_megapixels_per_second == pytest.approx(it.decoded_megapixels / it.decode_seconds)


def test_a_plain_file_is_no_read_of_a_picture(owner: Owner) -> None:
    read(owner)
    it = owner.services.statistics()
    assert (it.decoded_reads, it.cached_reads, it.decoded_p50_seconds) == (0, 0, None)


def test_what_is_queued_is_told_beside_the_files(owner: Owner) -> None:
    it = owner.services.statistics()
    assert (it.queued, it.pending, it.logical_bytes) == (1, 1, len(PICTURE))
    owner.services.sync(lambda done, total: None)
    assert owner.services.statistics().queued == 0
