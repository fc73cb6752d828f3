"""Mount tests: the sockets of their owners in a folder of their own; one mount for all tests of a module that need no other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounting import Mounted, mountpoints_below

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(autouse=True)
def _no_mount_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In place of the fixture for all tests: here a module may have a mount."""
    before = mountpoints_below(tmp_path_factory.getbasetemp())
    yield
    assert mountpoints_below(tmp_path_factory.getbasetemp()) <= before, "a mount is left"


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with Mounted(tmp_path_factory.mktemp("mounted")) as mounted:
        yield mounted


@pytest.fixture
def folder(mounted: Mounted) -> Path:
    """A new folder in the mount."""
    folder = mounted.path / f"folder{next(_numbers)}"
    folder.mkdir()
    return folder


@pytest.fixture
def backing(mounted: Mounted, folder: Path) -> Path:
    """The same folder in the store."""
    return mounted.store / folder.name
