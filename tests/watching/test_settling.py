"""daemon.settling: no file before it has stayed the same for long enough, and every file then."""

from __future__ import annotations

import itertools
import os.path
import time
import tracemalloc
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon.settling import LONGEST_WAIT_SECONDS, Settling
from sdfs.system.file_id import FileId, FileState

QUIET, CLOSED = 10.0, 2.0


@dataclass
class File:
    inode: tuple[int, int]
    size: int = 0
    ctime_ns: int = 0
    changed_at: float = 0.0

    def sample(self) -> FileState:
        return FileState(FileId(*self.inode), self.size, self.ctime_ns, self.ctime_ns)


class World:
    """Files, a clock, and the Settling under test, which is told what happens. Paths are relative, which it does not mind."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.files: dict[str, File] = {}
        self.closes: dict[str, float] = {}  # the last one told, by the name that the file has now
        self.settling = Settling(lambda: self.now, quiet_seconds=QUIET, closed_seconds=CLOSED)
        self.looks: list[tuple[float, str]] = []
        self.inodes = itertools.count()

    def look(self, path: str) -> FileState | None:
        self.looks.append((self.now, path))
        return self.files[path].sample() if path in self.files else None

    def create(self, path: str) -> None:
        self.files[path] = File((1, next(self.inodes)))
        self.write(path)
        self.settling.touched(path)

    def write(self, path: str) -> None:
        """No event tells of it."""
        file = self.files[path]
        file.size += 1
        file.ctime_ns += 1
        file.changed_at = self.now

    def close(self, path: str) -> None:
        self.closes[path] = self.now
        self.settling.closed(path)

    def move(self, old: str, new: str) -> None:
        for those in (self.files, self.closes):
            moved = {path: new + path[len(old) :] for path in those if path == old or path.startswith(old + "/")}
            those |= {after: those.pop(before) for before, after in moved.items()}
        self.settling.moved(old, new)

    def run(self, seconds: float) -> list[tuple[float, str]]:
        """Lets time pass; returns when which files were settled."""
        end = self.now + seconds
        found = []
        while (due := self.settling.next_due()) is not None and due <= end:
            self.now = max(self.now, due)
            found += [(self.now, path) for path in self.settling.settled(self.look)]
        self.now = end
        return found

    def settled_after(self, seconds: float = 1000.0) -> dict[str, float]:
        """How long from now each file takes."""
        start = self.now
        return {path: when - start for when, path in self.run(seconds)}


def test_a_closed_file_is_settled_when_it_stays_the_same_for_the_shorter_time() -> None:
    world = World()
    world.create("a")
    world.close("a")
    assert CLOSED <= world.settled_after()["a"] < CLOSED + 1


def test_a_file_that_nobody_was_seen_to_close_takes_the_longer_time() -> None:
    world = World()
    world.create("a")
    assert QUIET <= world.settled_after()["a"] < QUIET + 1


def test_it_is_given_once() -> None:
    world = World()
    world.create("a")
    assert len(world.run(1000)) == 1
    assert len(world.settling) == 0
    assert world.settling.next_due() is None


def test_nothing_is_given_before_time_has_passed() -> None:
    world = World()
    world.create("a")
    world.close("a")
    assert list(world.settling.settled(world.look)) == []
    assert len(world.settling) == 1


def test_a_second_close_starts_the_time_anew() -> None:
    world = World()
    world.create("a")
    world.close("a")
    assert world.run(CLOSED) == []
    world.close("a")
    assert CLOSED <= world.settled_after()["a"] < CLOSED + 1


def test_a_file_that_is_written_to_after_a_close_takes_the_longer_time() -> None:
    world = World()
    world.create("a")
    world.close("a")
    world.run(CLOSED / 2)
    world.write("a")
    assert world.settled_after()["a"] >= QUIET


def test_it_is_settled_soon_after_the_close_of_one_who_reopened_it() -> None:
    world = World()
    world.create("a")
    world.close("a")
    for _ in range(100):
        world.run(CLOSED / 2)
        world.write("a")
    world.close("a")
    assert CLOSED <= world.settled_after()["a"] < CLOSED + 1


def test_a_writer_that_never_stops_is_never_settled_and_seldom_looked_at() -> None:
    world = World()
    world.create("a")
    day = 86_400
    for _ in range(day):
        assert world.run(1) == []
        world.write("a")
    assert len(world.looks) < 1.1 * day / LONGEST_WAIT_SECONDS


def test_the_close_of_a_long_write_brings_the_next_look_forward() -> None:
    world = World()
    world.create("a")
    for _ in range(1000):
        world.run(1)
        world.write("a")
    world.close("a")
    assert world.settled_after()["a"] < CLOSED + 1


def test_a_long_write_without_a_close_is_found_to_have_ended() -> None:
    world = World()
    world.create("a")
    for _ in range(1000):
        world.run(1)
        world.write("a")
    assert QUIET <= world.settled_after()["a"] <= 2 * LONGEST_WAIT_SECONDS


def test_a_writer_that_closes_a_thousand_times_a_second_costs_few_looks() -> None:
    world = World()
    world.create("a")
    for _ in range(60_000):
        world.close("a")
        world.run(0.001)
    assert len(world.looks) <= 60 / (CLOSED / 4) + 1


def test_a_scan_that_finds_a_waiting_file_again_does_not_make_it_wait_longer() -> None:
    world = World()
    world.create("a")
    taken = []
    while not taken:
        world.settling.touched("a")
        taken = world.run(0.3)
    assert taken[0][0] - 1000 < QUIET + 1


def test_a_busy_file_is_asked_about_later() -> None:
    world = World()
    world.create("a")
    world.run(100)
    world.settling.busy("a")
    assert world.settled_after()["a"] >= LONGEST_WAIT_SECONDS


def test_the_close_of_a_busy_file_brings_it_forward() -> None:
    world = World()
    world.create("a")
    world.run(100)
    world.settling.busy("a")
    world.close("a")
    assert world.settled_after()["a"] < CLOSED + 1


def test_a_close_that_came_before_busy_counts() -> None:
    world = World()
    world.create("a")
    world.run(100)
    world.close("a")
    world.settling.busy("a")
    assert world.settled_after()["a"] < CLOSED + 1


def test_a_file_that_is_gone_when_looked_at_is_forgotten() -> None:
    world = World()
    world.create("a")
    del world.files["a"]
    assert world.run(1000) == []
    assert len(world.settling) == 0


def test_a_folder_that_is_gone_takes_what_is_below_along_and_nothing_else() -> None:
    world = World()
    for path in ("a/1", "a/b/2", "ab", "c"):
        world.create(path)
    world.settling.gone("a")
    assert world.settled_after().keys() == {"ab", "c"}


def test_files_in_a_moved_folder_do_not_wait_longer() -> None:
    world = World()
    world.create("a/b/1")
    world.close("a/b/1")
    world.run(CLOSED / 2)
    world.move("a", "c")
    assert world.settled_after() == {"c/b/1": CLOSED / 2 + CLOSED / 4}


def test_a_file_that_is_moved_over_a_waiting_one_takes_its_place() -> None:
    world = World()
    world.create("a")
    world.create("b")
    world.move("a", "b")
    assert len(world.settling) == 1
    assert world.settled_after().keys() == {"b"}


def test_a_move_of_what_did_not_wait_is_like_a_find() -> None:
    world = World()
    world.files["b"] = File((1, 1))
    world.settling.moved("a.part", "b")
    assert world.settled_after()["b"] >= QUIET


def test_an_event_between_two_settled_files_is_heeded() -> None:
    world = World()
    world.create("a")
    world.create("b")
    world.run(QUIET)
    world.now += 1
    steps = world.settling.settled(world.look)
    assert next(steps) == "a"
    world.settling.gone("b")
    assert list(steps) == []


def test_20_000_files_at_once_are_cheap() -> None:
    world = World()
    start = time.process_time()
    for number in range(20_000):
        world.create(f"{number % 100}/{number}")
        world.close(f"{number % 100}/{number}")
    assert len(world.run(100)) == 20_000
    assert len(world.looks) == 40_000
    assert time.process_time() - start < 4  # 0.4 on a core of 2023; one that walks through all for each event takes minutes


def test_nothing_is_kept_of_files_that_no_longer_wait() -> None:
    world = World()

    def an_hour() -> None:
        for number in range(100):
            world.create(f"{number}/a/b")
            world.close(f"{number}/a/b")
            world.run(0.01)
            world.move(f"{number}/a", f"{number}/c")
        world.run(1000)
        for those in (world.files, world.closes, world.looks):
            those.clear()

    an_hour()
    tracemalloc.start()
    for _ in range(20):
        an_hour()
    assert tracemalloc.get_traced_memory()[0] < 50_000
    tracemalloc.stop()


class AnyEvents(RuleBasedStateMachine):
    """Whatever happens: never early, and in the end everything, by the name that it then has."""

    paths = st.builds(os.path.join, st.sampled_from(["a", "b", "a/c"]), st.sampled_from("xyz"))

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.expected: set[str] = set()

    def pick(self, number: int) -> str:
        return sorted(self.world.files)[number % len(self.world.files)]

    @rule(path=paths)
    def create(self, path: str) -> None:
        self.world.create(path)
        self.expected.add(path)

    @precondition(lambda self: self.world.files)
    @rule(number=st.integers(0, 20))
    def write(self, number: int) -> None:
        self.world.write(self.pick(number))

    @precondition(lambda self: self.world.files)
    @rule(number=st.integers(0, 20))
    def close(self, number: int) -> None:
        path = self.pick(number)
        self.world.close(path)
        self.expected.add(path)

    @precondition(lambda self: self.world.files)
    @rule(number=st.integers(0, 20), again=st.sampled_from(["touched", "busy"]))
    def find(self, number: int, again: str) -> None:
        path = self.pick(number)
        getattr(self.world.settling, again)(path)
        self.expected.add(path)

    @precondition(lambda self: self.world.files)
    @rule(number=st.integers(0, 20), new=paths)
    def move_file(self, number: int, new: str) -> None:
        old = self.pick(number)
        if old != new:
            self.world.files.pop(new, None)
            self.world.move(old, new)
            self.world.files[new].ctime_ns += 1
            self.expected = self.expected - {old} | {new}

    @rule(new=st.sampled_from(["d", "b/d", "e/f"]))
    def move_folder(self, new: str) -> None:
        """There and, replacing nothing, back."""
        before = set(self.world.files)
        self.world.move("a", new)
        assert not any(path.startswith("a/") for path in self.world.files)
        self.world.move(new, "a")
        assert set(self.world.files) == before

    @precondition(lambda self: self.world.files)
    @rule(number=st.integers(0, 20), told=st.booleans())
    def delete(self, number: int, told: bool) -> None:
        path = self.pick(number)
        del self.world.files[path]
        if told:
            self.world.settling.gone(path)
        self.expected.discard(path)

    @rule(folder=st.sampled_from(["a", "a/c", "b"]))
    def delete_folder(self, folder: str) -> None:
        for path in [path for path in self.world.files if path.startswith(folder + "/")]:
            del self.world.files[path]
            self.expected.discard(path)
        self.world.settling.gone(folder)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        for when, path in self.world.run(seconds):
            file = self.world.files[path]
            closed_at = self.world.closes.get(path, -QUIET)
            was_closed = closed_at + CLOSED / 4 >= file.changed_at  # a write right after the close is taken for one before it
            assert when - max(file.changed_at, closed_at) >= CLOSED
            assert was_closed or when - file.changed_at >= QUIET
            assert path in self.expected
            self.expected.remove(path)

    @invariant()
    def what_is_to_be_settled_waits(self) -> None:
        assert len(self.world.settling) >= len(self.expected)

    def teardown(self) -> None:
        self.time_passes(5 * LONGEST_WAIT_SECONDS)
        assert self.expected == set()
        assert len(self.world.settling) == 0
        assert self.world.settling.next_due() is None


AnyEvents.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestAnyEvents = AnyEvents.TestCase
