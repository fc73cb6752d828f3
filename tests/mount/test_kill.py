"""The owner is killed, again and again, while programs write: what they were told of is there, and the rest is old or new.

A kill, unlike a power loss (`tests/crash`), leaves what the kernel has: so what a system call returned from counts as acknowledged.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sdfs.blob.container import MAGIC
from sdfs.control.answers import Wish
from sdfs.control.client import ControlClient
from sdfs.errors import DamagedError, SdfsError, UserError
from sdfs.owner.store.fsck import check
from sdfs.owner.store.store import read_identity, read_owner
from tests.support.mounting import Mounted, needs_fuse

pytestmark = needs_fuse

WRITERS = 3
NAMES = 4  # of each writer

Content = bytes | None  # None: there is no such file


@dataclass
class Journal:
    """What one writer knows of its files. It is kept outside the mount, and used by one thread at a time."""

    folder: str
    contents: dict[str, Content] = field(default_factory=dict)
    doing: list[dict[str, Content]] = field(default_factory=list)  # how the names of the call under way may be instead
    torn: set[str] = field(default_factory=set)  # being written in place: may be anything
    acknowledged: int = 0
    patched_blobs: int = 0

    def begin(self, *outcomes: dict[str, Content]) -> None:
        self.doing = list(outcomes)

    def acknowledge(self, outcome: dict[str, Content]) -> None:
        self.contents |= outcome
        self.doing, self.torn = [], set()
        self.acknowledged += 1

    def verify(self, root: Path) -> None:
        """Every file is as it was acknowledged, or as the one call that the kill cut short may have left it."""
        found = {name: _read(root / self.folder / name) for name in self.contents}
        for name in self.torn:
            self.contents[name] = found[name]
        possible = [self.contents, *(self.contents | outcome for outcome in self.doing)]
        assert found in possible, f"{self.folder}: {_differences(found, possible)}"
        self.contents, self.doing, self.torn = found, [], set()


@dataclass
class Attempt:
    """One of several writers renames a content over a name."""

    content: Content
    began_at: float = field(default_factory=time.monotonic)
    ended_at: float = math.inf  # not before it is acknowledged

    def may_be_last(self, others: list[Attempt]) -> bool:
        return not any(self.ended_at < other.began_at and other.ended_at < math.inf for other in others)


@dataclass
class Rivalry:
    """What several writers at once know of names that they all write to."""

    folder: str = "rivals"
    attempts: dict[str, list[Attempt]] = field(default_factory=lambda: {f"{number}.jpg": [Attempt(None, 0, 0)] for number in range(2)})
    acknowledged: int = 0

    def verify(self, root: Path) -> None:
        """Every name has a content after which no other was begun and acknowledged."""
        for name, attempts in self.attempts.items():
            found = _read(root / self.folder / name)
            assert found in [attempt.content for attempt in attempts if attempt.may_be_last(attempts)], f"{self.folder}/{name}"
            self.acknowledged += sum(attempt.ended_at < math.inf for attempt in attempts) - 1
            self.attempts[name] = [Attempt(found, 0, 0)]


def _read(path: Path) -> Content:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _differences(found: dict[str, Content], possible: list[dict[str, Content]]) -> str:
    return "; ".join(f"{name}: {(found[name] or b'')[:30]!r} …" for name in found if all(found[name] != each[name] for each in possible))


class Writer(threading.Thread):
    """Works on the files of a journal until the mount dies."""

    def __init__(self, root: Path, journal: Journal, seed: str) -> None:
        super().__init__(name=f"writer {journal.folder}")
        self._folder = root / journal.folder
        self._journal = journal
        self._random = random.Random(seed)
        self.stopping = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the mount is dead
            for name in self._folder.glob("*.new"):
                name.unlink()
            for name in self._folder.iterdir():
                name.chmod(0o644)  # the kill may have cut `_chmod` short
            changes = (self._replace, self._overwrite, self._patch, self._rename, self._unlink, self._chmod)
            while not self.stopping.is_set():
                self._random.choice(changes)(self._any())
                time.sleep(self._random.uniform(0, 0.02))  # lets the worker swap

    def _any(self) -> str:
        return self._random.choice(sorted(self._journal.contents))

    def _replace(self, name: str) -> None:
        """As editors do."""
        content = _picture(self._random)
        _write(self._folder / f"{name}.new", os.O_CREAT | os.O_TRUNC, content)
        self._journal.begin({name: content})
        (self._folder / f"{name}.new").rename(self._folder / name)
        self._journal.acknowledge({name: content})

    def _overwrite(self, name: str) -> None:
        content = _picture(self._random)
        self._journal.torn = {name}
        _write(self._folder / name, os.O_CREAT | os.O_TRUNC, content)
        self._journal.acknowledge({name: content})

    def _patch(self, name: str) -> None:
        """What is a blob already has the old content until the fsync, and then the new one."""
        old = self._journal.contents[name]
        if old is None or b'"exact"' not in os.getxattr(self._folder / name, "user.sdfs.status"):
            return
        content = old[:5] + self._random.randbytes(3) + old[8:]
        self._journal.begin({name: content})
        _write(self._folder / name, 0, content[:8])
        self._journal.acknowledge({name: content})
        self._journal.patched_blobs += 1

    def _rename(self, name: str) -> None:
        other = self._any()
        if self._journal.contents[name] is None or other == name:
            return
        outcome = {name: None, other: self._journal.contents[name]}
        self._journal.begin(outcome)
        (self._folder / name).rename(self._folder / other)
        self._journal.acknowledge(outcome)

    def _chmod(self, name: str) -> None:
        """There and back, with a mode that a blob has to record: the content stays."""
        if self._journal.contents[name] is not None:
            for mode in (0o444, 0o644):
                (self._folder / name).chmod(mode)
            self._journal.acknowledge({})

    def _unlink(self, name: str) -> None:
        if self._journal.contents[name] is None or self._random.random() < 0.5:
            return
        self._journal.begin({name: None})
        (self._folder / name).unlink()
        self._journal.acknowledge({name: None})


class Rival(threading.Thread):
    """One of the writers of a `Rivalry`, until the mount dies."""

    def __init__(self, root: Path, rivalry: Rivalry, seed: str) -> None:
        super().__init__(name=f"rival {seed}")
        self._folder = root / rivalry.folder
        self._rivalry = rivalry
        self._random = random.Random(seed)
        self._own = f"{seed}.new"
        self.stopping = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the mount is dead
            while not self.stopping.is_set():
                name, attempts = self._random.choice(sorted(self._rivalry.attempts.items()))
                content = _picture(self._random)
                _write(self._folder / self._own, os.O_CREAT | os.O_TRUNC, content)
                attempts.append(attempt := Attempt(content))
                (self._folder / self._own).rename(self._folder / name)
                attempt.ended_at = time.monotonic()
                with contextlib.suppress(FileNotFoundError):  # of another name, which the other may be renaming to
                    (self._folder / self._random.choice(sorted(self._rivalry.attempts))).chmod(self._random.choice((0o444, 0o644)))
                time.sleep(self._random.uniform(0, 0.02))


def _picture(chance: random.Random) -> bytes:
    return b"\xff\xd8\xff" + chance.randbytes(8) * chance.randint(1, 20_000) + b"END"


def _write(path: Path, flags: int, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def _hurry(store: Path, stopping: threading.Event) -> None:
    """Keep the worker swapping without a pause, until the owner dies."""
    owner = read_owner(store)
    assert owner is not None
    assert owner.socket is not None
    with contextlib.suppress(OSError, SdfsError):
        while not stopping.is_set():
            ControlClient(owner.socket, read_identity(store)).sync(lambda done, total: None)
            stopping.wait(0.01)


def _recompress(store: Path, names: list[str], seed: int, stopping: threading.Event, done: list[str]) -> None:
    """Whatever is a blob, without a pause, until the owner dies."""
    owner, chance = read_owner(store), random.Random(seed)
    assert owner is not None
    assert owner.socket is not None
    while not stopping.is_set():
        name = chance.choice(names)
        try:
            ControlClient(owner.socket, read_identity(store)).recompress(name, Wish({"quality": 30}, accept_loss=True))
            done.append(name)
        except (UserError, DamagedError):  # there is none, it is no blob, somebody has it open, or it was changed
            stopping.wait(0.005)
        except (OSError, SdfsError):
            return


def _work_and_kill(mounted: Mounted, journals: list[Journal], rivalry: Rivalry, cycle: int, recompressed: list[str]) -> None:
    rivals = [Rival(mounted.path, rivalry, f"{cycle} {number}") for number in range(2)]
    writers = [*rivals, *(Writer(mounted.path, journal, f"{cycle} {journal.folder}") for journal in journals)]
    names = [f"{each.folder}/{name}" for each in journals for name in each.contents]
    names += [f"{rivalry.folder}/{name}" for name in rivalry.attempts]
    stopping = threading.Event()
    hurrying = threading.Thread(target=_hurry, args=(mounted.store, stopping), name="hurry")
    recompressing = threading.Thread(target=_recompress, args=(mounted.store, names, cycle, stopping, recompressed), name="recompress")
    threads = [*writers, hurrying, recompressing]
    for thread in threads:
        thread.start()
    try:
        time.sleep(random.Random(cycle).uniform(0.05, 0.6))
        mounted.kill()
    finally:
        stopping.set()
        for writer in writers:
            writer.stopping.set()
        for thread in threads:
            thread.join(30)


def _kill_again_and_again(folder: Path, cycles: int) -> None:
    journals = [Journal(f"writer{number}") for number in range(WRITERS)]
    rivalry, recompressed = Rivalry(), list[str]()
    with Mounted(folder) as mounted:
        for journal in journals:
            (mounted.path / journal.folder).mkdir()
            journal.contents = dict.fromkeys((f"{number}.jpg" for number in range(NAMES)), None)
    (folder / "store" / rivalry.folder).mkdir()
    blobs = 0
    for cycle in range(cycles):
        with Mounted(folder) as mounted:
            for journal in journals:
                journal.verify(mounted.path)
            rivalry.verify(mounted.path)
            _work_and_kill(mounted, journals, rivalry, cycle, recompressed)
            blobs += sum(path.read_bytes().startswith(MAGIC) for path in mounted.store.glob("writer*/*"))
    with Mounted(folder) as mounted:
        for journal in journals:
            journal.verify(mounted.path)
        rivalry.verify(mounted.path)
        mounted.sync()
        for journal in journals:
            journal.verify(mounted.path)
    assert check(mounted.store) == []
    acknowledged = sum(journal.acknowledged for journal in journals)
    patched = sum(journal.patched_blobs for journal in journals)
    print(
        f"{cycles} kills: {acknowledged} changes acknowledged, {patched} of them of blobs, "
        f"{rivalry.acknowledged} of names that two write to; {len(recompressed)} recompressions; {blobs} blobs at the kills"
    )
    assert acknowledged > 10 * cycles
    assert rivalry.acknowledged > cycles
    assert len(recompressed) > 0
    assert patched > 0
    assert blobs > 0


def test_twenty_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    _kill_again_and_again(tmp_path, 20)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    _kill_again_and_again(tmp_path, 1000)
