"""The trash of a mounted store."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdfs.errors import StoreBusy
from sdfs.owner.access import open_access
from sdfs.owner.store.fsck import check
from tests.support.mounting import Mounted, needs_fuse

pytestmark = needs_fuse

PICTURE = b"\xff\xd8\xff" + b"picture " * 5000 + b"END"


def test_an_original_comes_back_where_readers_had_found_nothing(mounted: Mounted, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(PICTURE)
    mounted.sync()
    (folder / "a.jpg").unlink()
    assert not (folder / "a.jpg").exists()
    with open_access(mounted.store) as access:
        access.restore(f"{folder.name}/a.jpg", None)
    assert (folder / "a.jpg").read_bytes() == PICTURE


def test_it_stays_plain_while_the_worker_runs(mounted: Mounted, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(PICTURE)
    mounted.sync()
    with open_access(mounted.store) as access:
        path = access.restore(f"{folder.name}/a.jpg", f"{folder.name}/back")
    mounted.sync()
    assert mounted.state(path) == "plain"


def test_it_replaces_the_blob_when_it_is_renamed_over_it(mounted: Mounted, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(PICTURE)
    mounted.sync()
    assert (folder / "a.jpg").read_bytes() == PICTURE
    with open_access(mounted.store) as access:
        path = access.restore(f"{folder.name}/a.jpg", f"{folder.name}/back")
    (mounted.path / path.lstrip("/")).rename(folder / "a.jpg")
    mounted.sync()
    assert (folder / "a.jpg").read_bytes() == PICTURE
    assert mounted.state(f"{folder.name}/a.jpg") == "plain"


def test_a_mounted_store_is_not_checked(mounted: Mounted) -> None:
    with pytest.raises(StoreBusy, match=f"process {mounted.process.pid}"):
        check(mounted.store)
