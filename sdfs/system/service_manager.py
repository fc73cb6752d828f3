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
def telling_of_mount(store: str, mountpoint: str) -> Iterator[Callable[[], None]]:
    """Around the life of a mount. Gives what is to be called once it is there: from then on the watchdog is pinged while it answers."""
    ended = threading.Event()

    def mounted() -> None:
        notify(f"READY=1\nSTATUS={store} is mounted at {mountpoint}")
        if (seconds := watchdog_seconds()) is not None:
            arguments = (mountpoint, seconds / 2, ended)
            threading.Thread(target=_ping_while_it_answers, args=arguments, name="sdfs-watchdog", daemon=True).start()

    try:
        yield mounted
    finally:
        ended.set()
        notify("STOPPING=1")


def _ping_while_it_answers(mountpoint: str, interval_seconds: float, ended: threading.Event) -> None:
    """The thread may hang in the mount's own handlers, that is its purpose: it holds no lock, and nobody waits for it.

    The kernel answers statvfs from no cache. An error is an answer, too. Nothing of the mount is kept open, so that it can be unmounted;
    once it is, the folder beneath answers.
    """
    while not ended.wait(interval_seconds):
        with contextlib.suppress(OSError):
            os.statvfs(mountpoint)
        notify("WATCHDOG=1")
