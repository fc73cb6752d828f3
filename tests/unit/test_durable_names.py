"""sdfs.owner.store.durable_names: which folders are fsynced with a file, and when."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sdfs.owner.store import durable_names as room
from sdfs.owner.store.durable_names import DurableNames


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def folders(root: Path) -> DurableNames:
    return DurableNames(str(root))


@pytest.fixture
def synced(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were fsynced, as seen from the root."""
    names: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: names.append(os.path.relpath(Path(f"/proc/self/fd/{fd}").readlink(), root)))
    return names


def test_nothing_new_is_nothing_to_sync(folders: DurableNames, root: Path, synced: list[str]) -> None:
    folders.sync(f"{root}/a/b/c")
    assert synced == []


def test_a_new_name_is_synced_once(folders: DurableNames, root: Path, synced: list[str]) -> None:
    folders.changed(f"{root}/a/b/c")
    folders.sync(f"{root}/a/b/c")
    folders.sync(f"{root}/a/b/c")
    assert synced == ["a/b"]


def test_new_folders_are_synced_from_the_root_down(folders: DurableNames, root: Path, synced: list[str]) -> None:
    for path in ("a", "a/b", "a/b/c"):
        folders.changed(f"{root}/{path}")
    folders.sync(f"{root}/a/b/c")
    assert synced == [".", "a", "a/b"]


def test_a_folder_that_was_renamed_is_the_same(folders: DurableNames, root: Path, synced: list[str]) -> None:
    folders.changed(f"{root}/a/b/c")
    (root / "a" / "b").rename(root / "moved")
    folders.sync(f"{root}/moved/c")
    assert synced == ["moved"]


def test_what_changes_during_an_fsync_is_synced_again(folders: DurableNames, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsyncs: list[int] = []

    def fsync(fd: int) -> None:
        fsyncs.append(fd)
        if len(fsyncs) == 1:
            folders.changed(f"{root}/a/late")

    monkeypatch.setattr(os, "fsync", fsync)
    folders.changed(f"{root}/a/early")
    folders.sync(f"{root}/a/early")
    folders.sync(f"{root}/a/late")
    assert len(fsyncs) == 2


def test_a_failed_fsync_is_tried_again(folders: DurableNames, root: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folders.changed(f"{root}/a/c")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fail)
        with pytest.raises(OSError, match="full"):
            folders.sync(f"{root}/a/c")
    folders.sync(f"{root}/a/c")
    assert synced == ["a"]


def _fail(fd: int) -> None:
    raise OSError(28, "full")


def test_too_many_folders_are_synced_all_at_once(
    folders: DurableNames, root: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch, counted: Callable[[], int]
) -> None:
    monkeypatch.setattr(room, "REMEMBERED", 1)
    folders.changed(f"{root}/a")
    folders.changed(f"{root}/a/b")
    folders.sync(f"{root}/a/b")
    assert (counted(), synced) == (1, [])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    calls: list[None] = []
    monkeypatch.setattr(os, "sync", lambda: calls.append(None))
    return lambda: len(calls)
