"""Several change the same files at once, each at random; whatever was acknowledged is in the tree or in the trash afterwards.

editors     write a new file, fsync it, and rename it over one that is a blob: so what it replaces is kept, too
chmod       modes that a blob's preamble has to record, and modes that the backing file has
recompress  other latents, of the same picture
the worker  shrinks what editors bring
readers     get one whole content that was brought there
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.control.answers import Wish
from sdfs.errors import UserError
from sdfs.owner.owner import Owner
from sdfs.owner.store.fsck import check
from sdfs.owner.store.store import init
from tests.support.lossless_engine import LosslessEngine
from tests.support.waiting import eventually

NAMES = ("a.jpg", "b.jpg", "c.jpg")
MODES = (0o444, 0o644, 0o400, 0o600)
SLOWLY_SECONDS = 0.002  # that a copy or a sync of the trash takes at least: where others may come between
PAUSE_SECONDS = 0.02  # of an editor, at most, after it found its file shrunk
SHRUNK_SECONDS = 60.0
TURNS = 2  # of each of the others for every edit: a file that is never left alone is not shrunk
WISHES = tuple(Wish({"quality": quality}, accept_loss=True) for quality in (30, 60))


class Actors:
    """All that are at work on one store, until so many steps were done. A step is one call that was acknowledged."""

    def __init__(self, owner: Owner, seed: int, steps: int) -> None:
        self.owner = owner
        self.tree = owner.tree
        self.steps: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.brought: dict[str, list[bytes]] = {name: [] for name in NAMES}  # begun to be renamed, in this order
        self._seed = seed
        self._wanted = steps
        self._gates: list[threading.Semaphore] = []
        self._errors: list[BaseException] = []

    @property
    def acknowledged(self) -> list[bytes]:
        return [content for contents in self.brought.values() for content in contents]

    def work(self) -> None:
        for name in NAMES:
            self._edit(random.Random(name), name)
        editors = [lambda chance, name=name: self._edit(chance, name) for name in NAMES]  # one a name: its order is known
        others = [self._in_turn(turn) for turn in (self._chmod, self._chmod, self._recompress, self._read)]
        threads = [threading.Thread(target=self._act, args=(number, turn)) for number, turn in enumerate([*editors, *others])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _act(self, number: int, turn: Callable[[random.Random], None]) -> None:
        chance = random.Random(f"{self._seed} {number}")
        try:
            while self.steps.total() < self._wanted and not self._errors:
                turn(chance)
        except BaseException as error:
            self._errors.append(error)

    def _in_turn(self, turn: Callable[[random.Random], None]) -> Callable[[random.Random], None]:
        """The same, as often as editors let it: just before they bring something else."""
        may = threading.Semaphore(0)
        self._gates.append(may)

        def wait(chance: random.Random) -> None:
            if may.acquire(timeout=0.1):
                turn(chance)

        return wait

    def _edit(self, chance: random.Random, name: str) -> None:
        content = b"\xff\xd8\xff" + chance.randbytes(8) * chance.randint(1, 2000) + b"END"
        if self.brought[name]:
            self._until_shrunk(name)
            for may in self._gates:
                may.release(TURNS)
            time.sleep(chance.uniform(0, PAUSE_SECONDS))
        handle = self.tree.create(f"/{name}.new", 0o644, os.O_WRONLY)
        handle.write(content, 0)
        handle.fsync()
        self.tree.release(handle)
        self.brought[name].append(content)
        self.tree.rename(f"/{name}.new", f"/{name}")
        folder = self.tree.open_folder("/")
        folder.fsync()
        folder.release()
        self.steps["edits"] += 1

    def _until_shrunk(self, name: str) -> None:
        """The worker, who met an opener or a chmod, would wait longer each time: it is told that somebody waits, as `sync` does."""
        eventually(
            lambda: self._errors or self.owner.services.stat(name).state == "exact",
            f"{name} is shrunk",
            seconds=SHRUNK_SECONDS,
            meanwhile=self._hurry,
        )

    def _hurry(self) -> None:
        self.tree.pending.retry_all()
        self.tree.pending.hurry(1)
        self.tree.pending.hurry(-1)

    def _chmod(self, chance: random.Random) -> None:
        self.tree.chmod(f"/{chance.choice(NAMES)}", chance.choice(MODES))
        self.steps["chmods"] += 1

    def _recompress(self, chance: random.Random) -> None:
        blobs = [name for name in NAMES if self.owner.services.stat(name).state == "exact"]
        try:
            self.owner.services.recompress(chance.choice(blobs or NAMES), chance.choice(WISHES))
            self.steps["recompressions"] += 1
        except UserError as error:
            if not any(reason in str(error) for reason in ("changed meanwhile", "is open", "no shrunk picture")):
                raise
            self.refused[str(error).partition(" ")[2]] += 1

    def _read(self, chance: random.Random) -> None:
        name = chance.choice(NAMES)
        handle = self.tree.open(f"/{name}", os.O_RDONLY)
        try:
            assert handle.read(1 << 20, 0) in self.brought[name]
        finally:
            self.tree.release(handle)
        self.steps["reads"] += 1


def contents_below(folder: Path) -> set[str]:
    """The hashes of what files hold or, as blobs, stand for."""
    found = set()
    for path in folder.iterdir():
        if path.is_file():
            content = path.read_bytes()
            if container.is_blob(content):
                content = LosslessEngine().decode("", content).result()
            found.add(hashlib.sha256(content).hexdigest())
    return found


@pytest.mark.timeout(7200)
def test_what_was_acknowledged_is_in_the_tree_or_the_trash(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 10_000 if pytestconfig.getoption("--long") else 300
    init(tmp_path / "store")
    owner = Owner(tmp_path / "store", engine=LosslessEngine)
    copy, sync = owner.store.copy, owner.store.trash.sync
    monkeypatch.setattr(owner.store, "copy", lambda *arguments, **options: (copy(*arguments, **options), time.sleep(SLOWLY_SECONDS)))
    monkeypatch.setattr(owner.store.trash, "sync", lambda: (sync(), time.sleep(SLOWLY_SECONDS)))
    actors = Actors(owner, seed=1, steps=steps)
    owner.compressor.start()
    owner.tree.pending.hurry(1)
    try:
        actors.work()
        owner.services.sync(lambda done, total: None)
        for name in NAMES:
            handle = owner.tree.open(f"/{name}", os.O_RDONLY)
            assert handle.read(1 << 20, 0) == actors.brought[name][-1]
            owner.tree.release(handle)
            assert stat.S_IMODE(owner.tree.getattr(f"/{name}").mode) in MODES
    finally:
        owner.close()
    found = contents_below(tmp_path / "store") | contents_below(tmp_path / "store" / ".sdfs" / "trash")
    lost = [content for content in actors.acknowledged if hashlib.sha256(content).hexdigest() not in found]
    print(f"{dict(actors.steps)}, refused {dict(actors.refused)}: {len(actors.acknowledged)} contents acknowledged, {len(lost)} lost")
    assert lost == []
    assert min(actors.steps[kind] for kind in ("edits", "chmods", "recompressions", "reads")) > 0
    assert list((tmp_path / "store" / ".sdfs" / "staging").iterdir()) == []
    assert check(tmp_path / "store") == []
