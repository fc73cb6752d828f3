"""daemon.taking: an original is given up only once the bytes in the store were looked at."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import daemon.session
from daemon.config import make
from daemon.ledger import Ledger
from daemon.taking import Taker
from sdfs.blob.container import MAGIC
from sdfs.control.answers import FileStatus
from sdfs.owner.access import holds, open_access
from sdfs.owner.owner import Owner
from sdfs.owner.store.store import Store, init
from sdfs.owner.store.wrapping import wrap
from tests.support.lossless_engine import LosslessEngine

PICTURE = b"\xff\xd8\xff" + b"picture" * 100
SHA256 = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    init(tmp_path / "store")
    return tmp_path / "store"


class SaysYes:
    """An owner that says it has everything."""

    status = FileStatus("/a.jpg", "exact", len(PICTURE), 10, len(PICTURE), SHA256)

    def __getattr__(self, request: str) -> Any:
        return {"check": lambda *_: None, "add": lambda *_: "/a.jpg", "settle": lambda *_: self.status, "find": lambda *_: self.status}[
            request
        ]


class Session:
    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def access(self) -> Iterator[SaysYes]:
        yield SaysYes()


@pytest.fixture
def taker(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Taker]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "a.jpg").write_bytes(PICTURE)
    watch = make(folder=str(tmp_path / "incoming"), store=str(root), originals="delete")
    ledger = Ledger(watch.folder)
    yield Taker(watch, ledger, Session(root), lambda seconds: True)  # type: ignore[arg-type]
    ledger.close()


def test_an_owners_word_alone_gives_up_no_original(taker: Taker, tmp_path: Path) -> None:
    result = taker.take("a.jpg")
    assert (result.kind, "does not hold it" in result.reason) == ("failed", True)
    assert (tmp_path / "incoming" / "a.jpg").read_bytes() == PICTURE


def test_one_whose_bytes_are_in_the_store_is_given_up(taker: Taker, tmp_path: Path, root: Path) -> None:
    (root / "a.jpg").write_bytes(PICTURE)
    assert taker.take("a.jpg").kind == "taken"
    assert not (tmp_path / "incoming" / "a.jpg").exists()


def test_a_picture_that_is_not_whole_stays_and_is_tried_again(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "a.jpg").write_bytes(PICTURE)
    watch = make(folder=str(tmp_path / "incoming"), store=str(root), originals="delete")
    ledger = Ledger(watch.folder)
    session = daemon.session.Session(str(root), open_store=partial(open_access, become_owner=partial(Owner, engine=LosslessEngine)))
    taker = Taker(watch, ledger, session, lambda seconds: True)
    result = taker.take("a.jpg")
    entry = ledger.get("a.jpg")
    assert (result.kind, "it has no end" in result.reason) == ("failed", True)
    assert entry is not None
    assert entry.due is not None
    assert not (root / "a.jpg").exists()
    (tmp_path / "incoming" / "a.jpg").write_bytes(PICTURE + b"END")
    assert taker.take("a.jpg").kind == "taken"
    session.close()
    ledger.close()


class TestHolds:
    def test_a_plain_file(self, root: Path) -> None:
        (root / "folder").mkdir()
        (root / "folder" / "a.jpg").write_bytes(PICTURE)
        assert holds(root, "/folder/a.jpg", SHA256)
        assert not holds(root, "/folder/a.jpg", "0" * 64)

    def test_a_blob_that_is_whole(self, root: Path) -> None:
        (root / "user").write_bytes(content := MAGIC + b"user bytes")
        store = Store(root)
        with (root / "user").open("rb") as file:
            wrapped = wrap(store, file.fileno(), "tests wrap it", 0)
        store.add(wrapped.path, f"{store.root}/a", room_from_trash=False)
        assert holds(root, "/a", hashlib.sha256(content).hexdigest())
        damaged = bytearray((root / "a").read_bytes())
        damaged[-1] ^= 1
        (root / "a").write_bytes(damaged)
        assert not holds(root, "/a", hashlib.sha256(content).hexdigest())
        wrapped.discard()
        store.close()

    @pytest.mark.parametrize("path", ["/link", "/folder-link/a.jpg", "/../a.jpg", "/.sdfs/trash/1-1.a", "/missing", "/folder", "/", ""])
    def test_nothing_that_is_no_file_of_the_tree(self, root: Path, path: str) -> None:
        (root / "folder").mkdir()
        for place in (root.parent / "a.jpg", root / "folder" / "a.jpg", root / ".sdfs" / "trash" / "1-1.a"):
            place.write_bytes(PICTURE)
        (root / "link").symlink_to("folder/a.jpg")
        (root / "folder-link").symlink_to("folder")
        assert not holds(root, path, SHA256)
