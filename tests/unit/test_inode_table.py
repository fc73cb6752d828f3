"""sdfs.owner.tree.inode.InodeTable: numbers that the filesystem gives to another file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.owner.owner import Owner
from sdfs.owner.store.store import init
from sdfs.owner.tree.inode import Inode, InodeTable
from tests.support.lossless_engine import LosslessEngine

OLD, NEW = (1, 10), (1, 11)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[InodeTable]:
    init(tmp_path / "store")
    owner = Owner(tmp_path / "store", engine=LosslessEngine)
    yield owner.tree.inodes
    owner.close()


@pytest.fixture
def opened(table: InodeTable) -> Iterator[Inode]:
    """An inode that is in use."""
    with table.holding(OLD) as inode:
        yield inode


def test_an_outdated_holder_of_a_number_takes_nothing_with_it(table: InodeTable, opened: Inode) -> None:
    """Who looked a name up holds NEW; that file is removed, and its number given to the one that `opened` commits."""
    with table.holding(NEW) as outdated:
        with table.moving(opened, NEW):
            pass
        assert not table.is_known_by(NEW, outdated)
    assert table.find(NEW) is opened
    assert table.is_known_by(NEW, opened)


def test_an_inode_that_nobody_uses_is_forgotten(table: InodeTable) -> None:
    with table.holding(NEW):
        pass
    assert table.find(NEW) is None
