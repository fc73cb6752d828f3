"""Many readers at once, and readers that go away, with an engine that takes its time (see slow_engine)."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from sdfs.control.answers import Statistics
from sdfs.mount.mounting import unmount
from sdfs.owner.access import open_access
from tests.support import ROOT
from tests.support.mounting import REAL, Mounted, needs_fuse
from tests.support.photos import photo
from tests.support.waiting import eventually

pytestmark = needs_fuse

READERS = 8
FILES = 200
BYTES = 200_000


def slow(seconds: float) -> tuple[str, ...]:
    return (sys.executable, str(ROOT / "tests/support/slow_engine.py"), str(seconds))


@cache
def picture(number: int) -> bytes:
    return b"\xff\xd8\xff" + random.Random(number).randbytes(BYTES) + b"END"


def written(mounted: Mounted, count: int) -> list[Path]:
    """Pictures by the names of their numbers."""
    paths = [mounted.path / f"{number:03}" for number in range(count)]
    for path in paths:
        path.write_bytes(picture(int(path.name)))
    return paths


def shrunk(mounted: Mounted, count: int) -> list[Path]:
    paths = written(mounted, count)
    mounted.sync()
    return paths


def decodes(mounted: Mounted) -> list[int]:
    """How often each picture was decoded that was."""
    return list(Counter((mounted.store.parent / "decodes").read_text().split()).values())


@contextmanager
def reader(mounted: Mounted, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Of the first picture. At the end no decode is held any more, so that it can end."""
    with subprocess.Popen(["dd", f"if={mounted.path}/000", "bs=1M", *flags, "status=none"], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            held(mounted).unlink(missing_ok=True)


def in_the_kernel(process: subprocess.Popen[bytes]) -> bool:
    """Whether it waits for a page: such a wait is not interrupted; see proc_pid_stat(5)."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "D"


def held(mounted: Mounted) -> Path:
    return mounted.store.parent / "held"


def told(mounted: Mounted) -> Statistics:
    with open_access(mounted.store) as access:
        return access.statistics()


def in_parallel(read: Callable[[random.Random], None]) -> None:
    """Eight readers."""
    with ThreadPoolExecutor(READERS) as threads:
        list(threads.map(read, map(random.Random, range(READERS))))


def check(path: Path, fd: int, randomly: random.Random) -> None:
    want, offset, size = picture(int(path.name)), randomly.randrange(BYTES), randomly.randrange(1, 50_000)
    assert os.pread(fd, size, offset) == want[offset : offset + size], f"{path} at {offset}"


def test_stat_does_not_wait_for_24_cold_readers(tmp_path: Path) -> None:
    with Mounted(tmp_path, "read_ahead=0", command=slow(0.5)) as mounted, ThreadPoolExecutor(24) as threads:
        pictures, took = shrunk(mounted, 24), []
        reads = [threads.submit(path.read_bytes) for path in pictures]
        eventually(lambda: told(mounted).memory_misses == 24, "all wait")
        while not all(read.done() for read in reads):
            name = f"{len(took)}"  # another one each time, of which the kernel knows nothing
            began_at = time.perf_counter()
            assert not (mounted.path / f"nothing-{name}").exists()
            took.append(time.perf_counter() - began_at)
            time.sleep(0.001)
        assert [read.result() for read in reads] == [picture(number) for number in range(24)]
    print(f"{len(took)} times: median {1e3 * statistics.median(took):.2f} ms, worst {1e3 * max(took):.1f} ms")
    assert len(took) > 100
    assert statistics.median(took) < 0.05
    assert max(took) < 0.25


def test_open_pictures_are_decoded_once_however_small_the_cache_is(tmp_path: Path) -> None:
    def read(randomly: random.Random) -> None:
        fds = {path: os.open(path, os.O_RDONLY | os.O_DIRECT) for path in randomly.sample(paths, len(paths))}
        for path in [*randomly.sample(paths, len(paths)), *randomly.choices(paths, k=2 * len(paths))]:
            check(path, fds[path], randomly)
        all_have_read.wait(60)
        for fd in fds.values():
            os.close(fd)

    all_have_read = threading.Barrier(READERS)
    with Mounted(tmp_path, f"read_ahead=0,cache_size={5 * BYTES}", command=slow(0.01)) as mounted:
        paths = shrunk(mounted, FILES)
        in_parallel(read)
        assert decodes(mounted) == [1] * FILES
        eventually(lambda: told(mounted).memory_bytes <= 5 * BYTES, "what is closed is dropped")


def test_pictures_that_are_closed_and_opened_again_are_decoded_once_while_the_cache_holds_them(tmp_path: Path) -> None:
    """With read-ahead, which decodes some of them before they are asked for."""

    def read(randomly: random.Random) -> None:
        for path in [*sorted(paths), *randomly.choices(paths, k=2 * len(paths))]:
            with path.open("rb", buffering=0) as file:
                check(path, file.fileno(), randomly)

    with Mounted(tmp_path, command=slow(0.01)) as mounted:
        paths = shrunk(mounted, FILES)
        in_parallel(read)
        assert decodes(mounted) == [1] * FILES


def test_pictures_are_swapped_between_their_readers(tmp_path: Path) -> None:
    def read(randomly: random.Random) -> None:
        while not swapped.is_set():
            path = randomly.choice(paths)
            with path.open("rb", buffering=0) as file:
                for _ in range(randomly.randrange(1, 4)):
                    check(path, file.fileno(), randomly)

    swapped = threading.Event()
    with Mounted(tmp_path, command=slow(0.01)) as mounted, ThreadPoolExecutor(1) as syncing:
        paths = written(mounted, 50)
        done = syncing.submit(mounted.sync)
        done.add_done_callback(lambda _: swapped.set())
        in_parallel(read)
        done.result()
        assert told(mounted).exact == 50
        assert set(decodes(mounted)) <= {1}


@pytest.mark.parametrize(("command", "content"), [(slow(0), picture(0)), (REAL, photo(0))], ids=["exact", "latent"])
def test_what_was_read_is_served_by_the_kernel(tmp_path: Path, command: tuple[str, ...], content: bytes) -> None:
    with Mounted(tmp_path, command=command) as mounted:
        path = mounted.path / "photo.jpg"
        path.write_bytes(content)
        mounted.sync()
        path.read_bytes()
        render = path.read_bytes()  # who opened it first had the kernel forget the pages of before the swap
        before = told(mounted)
        assert all(path.read_bytes() == render for _ in range(100))
        after = told(mounted)
    assert (after.decoded_reads, after.cached_reads) == (before.decoded_reads, before.cached_reads)


class TestAReaderThatGoesAway:
    @pytest.fixture
    def mounted(self, tmp_path: Path) -> Iterator[Mounted]:
        """A picture, whose decode is held."""
        with Mounted(tmp_path, "read_ahead=0", command=slow(0)) as mounted:
            shrunk(mounted, 1)
            held(mounted).touch()
            yield mounted
            held(mounted).unlink(missing_ok=True)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
    @pytest.mark.parametrize("flags", [(), ("iflag=direct",)], ids=["through the page cache", "direct"])
    def test_cancels_nothing_that_others_wait_for(self, mounted: Mounted, number: signal.Signals, flags: tuple[str, ...]) -> None:
        with reader(mounted, "iflag=direct") as stays:
            eventually(lambda: told(mounted).memory_misses == 1, "one waits")
            with reader(mounted, *flags) as goes:
                eventually(lambda: told(mounted).memory_misses > 1, "the other waits, too")
                goes.send_signal(number)
            assert stays.communicate(timeout=10)[0] == picture(0)
        assert decodes(mounted) == [1]
        assert (mounted.path / "000").read_bytes() == picture(0)

    def test_ends_while_the_decode_hangs(self, mounted: Mounted) -> None:
        with reader(mounted) as goes:
            eventually(lambda: told(mounted).memory_misses == 1, "it waits")
            goes.kill()
            goes.wait(5)

    def test_ends_beside_another_that_waits_for_the_same_pages(self, mounted: Mounted) -> None:
        with reader(mounted) as stays:
            eventually(lambda: told(mounted).memory_misses == 1, "it waits")
            with reader(mounted) as goes:
                eventually(lambda: in_the_kernel(goes), "it waits for the pages of the other, and the owner is not told")
                goes.kill()
                goes.wait(5)
            held(mounted).unlink(missing_ok=True)
            assert stays.communicate(timeout=10)[0] == picture(0)

    def test_does_not_keep_a_mount_that_is_told_to_end(self, mounted: Mounted) -> None:
        with reader(mounted) as goes:
            eventually(lambda: told(mounted).memory_misses == 1, "it waits")
            mounted.process.send_signal(signal.SIGTERM)
            assert mounted.process.wait(10) == 0
            goes.communicate(timeout=5)  # it got an error, or what it wanted

    def test_leaves_a_mount_that_can_be_unmounted_while_the_decode_hangs(self, mounted: Mounted) -> None:
        with reader(mounted) as goes:
            eventually(lambda: told(mounted).memory_misses == 1, "it waits")
            goes.kill()
            goes.wait(5)
            unmount(mounted.path)
            assert mounted.process.wait(5) == 0
