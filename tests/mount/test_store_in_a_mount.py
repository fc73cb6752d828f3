"""A store within a mount of SDFS is refused: its blobs would be user bytes that look like blobs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdfs.errors import UserError
from sdfs.owner.store.store import Store, init
from tests.support.mounting import Mounted, needs_fuse

pytestmark = needs_fuse


def test_it_is_not_made(folder: Path) -> None:
    with pytest.raises(UserError, match=r"fuse\.sdfs.*local"):
        init(folder / "store")
    assert not (folder / "store").exists()


def test_one_that_was_copied_there_is_not_owned(mounted: Mounted, folder: Path, tmp_path: Path) -> None:
    init(tmp_path / "store")
    shutil.copytree(tmp_path / "store", folder / "store")
    with pytest.raises(UserError, match=r"fuse\.sdfs.*local"):
        Store(folder / "store")
