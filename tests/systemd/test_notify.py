"""sd_notify(3), against a socket as a service manager has one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.system.service_manager import notify, pinging_watchdog, watchdog_seconds
from tests.support.waiting import eventually


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        yield listening


def test_a_state_arrives_at_a_path(manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    assert notify("READY=1\nSTATUS=here")
    assert manager.recv(1000) == b"READY=1\nSTATUS=here"


def test_a_state_arrives_at_an_abstract_address(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.bind(f"\0sdfs@test-{os.getpid()}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@sdfs@test-{os.getpid()}")
    assert notify("STOPPING=1")
    assert manager.recv(1000) == b"STOPPING=1"


def test_a_state_may_have_a_name_that_cannot_be_decoded(manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    assert notify("STATUS=" + os.fsdecode(b"/caf\xe9"))
    assert manager.recv(1000) == b"STATUS=/caf\xe9"


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/no/such/socket", "/" + "long" * 100, "@nobody-listens-here"])
def test_where_nobody_listens_nothing_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


def test_outside_a_service_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


def test_the_watchdog_wants_a_ping_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2500000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_seconds() == 2.5


@pytest.mark.parametrize(
    ("microseconds", "pid"), [("2500000", "1"), ("0", ""), ("many", ""), ("2500000", "many")], ids=["another's", "off", "garbage", "pid"]
)
def test_a_watchdog_that_is_not_ours_wants_none(microseconds: str, pid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_seconds() is None


def test_a_watchdog_is_pinged_while_all_is_well(manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    asked: list[bool] = []

    def is_well() -> bool:
        asked.append(len(asked) < 3)
        return asked[-1]

    with pinging_watchdog(is_well):
        eventually(lambda: len(asked) >= 6)
    assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
