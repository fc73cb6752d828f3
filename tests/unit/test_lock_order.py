"""Locks are taken in one order. Under load, every lock that is taken while another is held adds an edge between the places where the two
were made; a cycle among these places could become a deadlock, whether or not this run met it.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sdfs
from sdfs.blob import container
from sdfs.control.answers import Wish
from sdfs.errors import UserError
from sdfs.owner.owner import Owner
from sdfs.owner.store import store
from tests.support.lossless_engine import LosslessEngine

PICTURE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8 + b"END"
SECONDS = 3.0
PACKAGE = Path(sdfs.__file__).parent
USUAL = (errno.ENOENT, errno.EEXIST, errno.ENOTSUP)  # there is no such file; there is one; and what `Tree.link` refuses


class Recorder:
    """Makes locks that remember where they were made, and which were held when another was taken."""

    def __init__(self) -> None:
        self.edges: dict[str, set[str]] = defaultdict(set)
        self.examples: dict[tuple[str, str], str] = {}
        self._held = threading.local()

    def taken(self, lock: Watched) -> None:
        held: list[Watched] = self._held.__dict__.setdefault("locks", [])
        if lock not in held:
            for other in held:
                if lock.place not in self.edges[other.place]:
                    self.edges[other.place].add(lock.place)
                    self.examples[other.place, lock.place] = "".join(traceback.format_stack(limit=8)[:-2])
        held.append(lock)

    def given_back(self, lock: Watched) -> None:
        self._held.locks.reverse()
        self._held.locks.remove(lock)
        self._held.locks.reverse()

    def cycle(self) -> list[str] | None:
        """Places that are taken in a circle, the first again as the last."""

        def search(path: list[str]) -> list[str] | None:
            for following in self.edges[path[-1]]:
                if following in path:
                    return [*path[path.index(following) :], following]
                if found := search([*path, following]):
                    return found
            return None

        return next((found for place in list(self.edges) if (found := search([place]))), None)


class Watched:
    """A lock of the kind that `make` makes; good for a Condition, too."""

    def __init__(self, recorder: Recorder, make: Callable[[], Any]) -> None:
        frame = sys._getframe(1)
        while not Path(frame.f_code.co_filename).is_relative_to(PACKAGE) and frame.f_back is not None:
            frame = frame.f_back
        self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        self._recorder = recorder
        self._lock = make()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken: bool = self._lock.acquire(blocking, timeout)
        if taken:
            self._recorder.taken(self)
        return taken

    def release(self) -> None:
        self._recorder.given_back(self)
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        """A Condition asks a reentrant lock whether it is its thread's."""
        if name != "_is_owned":
            raise AttributeError(name)
        return self._lock._is_owned

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_a_circle_is_found() -> None:
    recorder = Recorder()
    first, second = Watched(recorder, threading.Lock), Watched(recorder, threading.Lock)
    first.place, second.place = "first", "second"
    with first, second:
        pass
    assert recorder.cycle() is None
    with second, first:
        pass
    assert recorder.cycle() is not None


def test_the_owner_takes_its_locks_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    plain, reentrant = threading.Lock, threading.RLock
    store.init(tmp_path / "store")
    (tmp_path / "source").write_bytes(PICTURE)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Lock", lambda: Watched(recorder, plain))
        patch.setattr(threading, "RLock", lambda: Watched(recorder, reentrant))
        owner = Owner(tmp_path / "store", engine=LosslessEngine)
        owner.compressor.start()
        stop = threading.Event.__new__(threading.Event)
        stop.__init__()  # type: ignore[misc]
        unexpected: list[str] = []
        workers = [threading.Thread(target=load, args=(owner, tmp_path / "source", number, stop, unexpected)) for number in range(6)]
        for worker in workers:
            worker.start()
        for _ in range(5):
            owner.services.sync(lambda done, total: None)
        stop.wait(SECONDS)
        stop.set()
        for worker in workers:
            worker.join()
        owner.close()
    assert unexpected == []
    assert caplog.messages == [], "a blob was taken for a plain file, or the other way round"
    for path in (tmp_path / "store").glob("*.jpg"):
        if container.is_blob(content := path.read_bytes()):
            container.parse(content)
    assert recorder.edges, "nothing was held while anything was taken: this test watches the wrong locks"
    found = recorder.cycle()
    assert found is None, "\n".join([" → ".join(found), *(recorder.examples[edge] for edge in itertools.pairwise(found))])


def load(owner: Owner, source: Path, seed: int, stop: threading.Event, unexpected: list[str]) -> None:
    """Random operations, until one of them ends as none should."""
    chance, tree = random.Random(seed), owner.tree
    while not stop.is_set():
        path, other = (f"/{chance.choice('abcdef')}.jpg" for _ in range(2))
        operations: list[Callable[[], object]] = [
            lambda path=path: write(tree, path, chance.choice([PICTURE, b"text", b"\x89SDFS\r\n\x1a more"])),
            lambda path=path: read(tree, path),
            lambda path=path, other=other: tree.rename(path, other),
            lambda path=path: tree.unlink(path),
            lambda path=path: tree.chmod(path, chance.choice([0o600, 0o444])),
            lambda path=path: tree.truncate(path, chance.choice([0, 10, 3000])),
            lambda path=path, other=other: tree.link(path, other),
            lambda path=path: tree.utimens(path, 5, 5),
            lambda path=path: owner.services.stat(path),
            lambda path=path: owner.services.recompress(path, Wish({"quality": 30}, accept_loss=True)),
            lambda path=path: owner.services.add(source, path),
            lambda path=path: owner.services.restore(path, chance.choice([None, "back"])),
        ]
        try:
            chance.choice(operations)()
        except OSError as error:
            if error.errno not in USUAL:
                unexpected.append(traceback.format_exc())
                return
        except UserError:  # a sentence, of one of the last four
            continue
        except Exception:
            unexpected.append(traceback.format_exc())
            return


def write(tree: Any, path: str, content: bytes) -> None:
    handle = tree.create(path, 0o644, os.O_RDWR)
    try:
        handle.write(content, 0)
        handle.flush()
        handle.fsync()
    finally:
        tree.release(handle)


def read(tree: Any, path: str) -> None:
    handle = tree.open(path, os.O_RDONLY)
    try:
        handle.read(100, 0)
    finally:
        tree.release(handle)
