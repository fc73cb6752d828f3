"""A picture that has several names is not shrunk; when it has one left, it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.blob.container import MAGIC
from sdfs.owner.owner import Owner
from sdfs.owner.store.store import init
from tests.support.lossless_engine import PICTURE, LosslessEngine


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    init(tmp_path / "store")
    owner = Owner(tmp_path / "store", engine=LosslessEngine)
    (tmp_path / "picture").write_bytes(PICTURE)
    owner.services.add(tmp_path / "picture", "/a.jpg")
    owner.tree.link("/a.jpg", "/b.jpg")
    sync(owner)
    yield owner
    owner.close()


def sync(owner: Owner) -> None:
    owner.services.sync(lambda done, total: None)


def is_blob(owner: Owner, name: str) -> bool:
    return Path(owner.store.root, name).read_bytes().startswith(MAGIC)


def test_with_two_names_it_stays_as_it_is(owner: Owner) -> None:
    assert not is_blob(owner, "a.jpg")


@pytest.mark.parametrize(("removed", "left"), [("a.jpg", "b.jpg"), ("b.jpg", "a.jpg")])
def test_when_one_is_removed_the_other_becomes_a_blob(owner: Owner, removed: str, left: str) -> None:
    owner.tree.unlink(f"/{removed}")
    sync(owner)
    assert is_blob(owner, left)


def test_when_one_is_replaced_the_other_becomes_a_blob(owner: Owner) -> None:
    owner.tree.mkdir("/new", 0o755)
    owner.tree.release(owner.tree.create("/new/a.jpg", 0o644, 1))
    owner.tree.rename("/new/a.jpg", "/a.jpg")
    sync(owner)
    assert is_blob(owner, "b.jpg")
