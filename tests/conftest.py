"""For all tests: nothing may be left behind; long tests only on request."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("sdfs", deadline=None)  # tests run side by side with others
hypothesis.settings.load_profile("sdfs")
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:  # as nohup and a shell's background jobs hand it down, to what tests start, too
        signal.signal(_number, _handler)


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


@pytest.fixture(autouse=True)
def _no_mount_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A dead mount is one, too. Only those of this run: others may test at the same time."""
    yield
    ours = str(tmp_path_factory.getbasetemp())
    mountpoints = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    assert [mountpoint for mountpoint in mountpoints if mountpoint.startswith(ours)] == []
