"""What a process tells the service manager that started it: sd_notify(3), without its library."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

_SEND_SECONDS = 5.0  # a service manager that is busy for longer is not worth waiting for


def notify(state: str) -> bool:
    """Send `state`: `READY=1`, `STATUS=…` and the like, a line each. False where nobody listens; never raises OSError."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_SECONDS)
            sender.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            sender.send(state.encode(errors="surrogateescape"))
    except OSError:
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often, at least, this process has to send `WATCHDOG=1`. None: it need not."""
    try:
        seconds = int(os.environ["WATCHDOG_USEC"]) / 1e6
        ours = int(os.environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except (KeyError, ValueError):
        return None
    return seconds if ours and seconds > 0 else None


@contextlib.contextmanager
def pinging_watchdog(is_well: Callable[[], bool]) -> Iterator[None]:
    """Ping the watchdog, if there is one, twice as often as it wants, as long as `is_well` says so.

    It is asked in a thread that holds no lock, and that nobody waits for: it may hang, which is an answer, too.
    """
    ended = threading.Event()
    if (seconds := watchdog_seconds()) is not None:
        threading.Thread(target=_ping, args=(is_well, seconds / 2, ended), name="sdfs-watchdog", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _ping(is_well: Callable[[], bool], interval_seconds: float, ended: threading.Event) -> None:
    while not ended.wait(interval_seconds):
        if is_well():
            notify("WATCHDOG=1")
