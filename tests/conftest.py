"""For all tests: nothing may be left behind; long tests only on request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long: runs with --long"))


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), f"a thread is left: {thread.name}"


def _mounts() -> set[str]:
    """Mountpoints of SDFS. A dead mount is listed as well."""
    fields = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return {mountpoint for _, mountpoint, type_, *_ in fields if type_ == "fuse.sdfs"}


@pytest.fixture(autouse=True)
def _no_mount_is_left() -> Iterator[None]:
    before = _mounts()
    yield
    assert _mounts() <= before, "a mount is left"
