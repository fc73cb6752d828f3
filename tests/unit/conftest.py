"""A store, and its owner, with an engine that loses nothing and that a test may hold up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.owner.owner import Owner
from sdfs.owner.store.store import init
from sdfs.owner.tree.tree import Tree
from tests.support.gated_engine import GatedEngine
from tests.support.lossless_engine import PICTURE
from tests.support.trees import shrink, write


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    init(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def owner(root: Path, engine: GatedEngine) -> Iterator[Owner]:
    owner = Owner(root, engine=lambda: engine)
    yield owner
    engine.may_encode.set()
    owner.close()


@pytest.fixture
def tree(owner: Owner) -> Tree:
    return owner.tree


@pytest.fixture
def blob(owner: Owner, tree: Tree, root: Path) -> Path:
    """A picture, /a.jpg, that is a blob; its backing file."""
    write(tree, "/a.jpg", PICTURE)
    shrink(owner)
    return root / "a.jpg"
