"""How commands and the watching daemon use a store: through its owner if it has one, else as its owner.

with open_access(Path("pictures.sdfs")) as store:
    store.add(Path("photo.jpg"), "2026/photo.jpg")
    store.sync(lambda done, total: print(done, total))
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sdfs.control import ControlClient, serving
from sdfs.errors import StoreBusy
from sdfs.store import is_store, read_owner
from sdfs.tree.owner import Owner
from sdfs.tree.status import Access, FileStatus, Listed, Statistics, StoreStatus, Trashed, Usage, Wish

__all__ = [
    "Access",
    "FileStatus",
    "Listed",
    "Owner",
    "Statistics",
    "StoreStatus",
    "Trashed",
    "Usage",
    "Wish",
    "open_access",
    "store_at",
    "take_over",
]
STATUS_XATTR = "user.sdfs.status"  # answered by every regular file of a mount
STORE_XATTR = "user.sdfs.store"  # answered by the root of a mount: the path of its store
_STARTING_SECONDS = 1.0  # until an owner listens
_LETTING_GO_SECONDS = 10.0
_HANDOVER_SECONDS = 5.0  # an owner that ends still has the store for a moment; one that starts does not listen yet


def store_at(folder: Path | str) -> Path | None:
    """The store whose folder, or the root of whose mount, this is; None: it is neither, or not there."""
    if is_store(Path(folder)):
        return Path(folder)
    try:
        return Path(os.fsdecode(os.getxattr(folder, STORE_XATTR)))
    except OSError:
        return None


def take_over(store: Path, *, become_owner: Callable[[Path], Owner] = Owner) -> Owner:
    """Own a store for long, as a mount does: an owner that can do its work through another is asked to let go of it.

    Raises NotAStore, StoreTooNew, and StoreBusy where there is an owner that needs the store for itself.
    """
    end, asked = time.monotonic() + _STARTING_SECONDS, False
    while True:
        try:
            return become_owner(store)
        except StoreBusy:
            if time.monotonic() > end:
                raise
            if not asked and (client := _client(store)) is not None:
                with contextlib.suppress(OSError):  # it has just let go
                    client.hand_over()
                end, asked = time.monotonic() + _LETTING_GO_SECONDS, True
            time.sleep(0.05)


@contextlib.contextmanager
def open_access(
    store: Path, *, become_owner: Callable[[Path], Owner] = Owner, on_hand_over: Callable[[], None] | None = None
) -> Iterator[Access]:
    """Raises NotAStore, StoreTooNew, and StoreBusy where the owner does not answer.

    `on_hand_over`: called, from another thread, if this process owns the store now and somebody wants to mount it: leave the context
    soon. Its work goes on through the new owner once the context is entered again.
    """
    end = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            owner = become_owner(store)
        except StoreBusy:
            if (client := _client(store)) is not None:
                yield client
                return
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            break
    owner.on_hand_over = on_hand_over
    with serving(owner):
        yield owner


def _client(store: Path) -> ControlClient | None:
    owner = read_owner(store)
    if owner is None or owner.socket is None:
        return None
    client = ControlClient(owner.socket)
    try:
        client.probe()
    except OSError:
        return None
    return client
