"""How commands and the watching daemon use a store: through its owner if it has one, else as its owner.

with open_access(Path("pictures.sdfs")) as store:
    store.add(Path("photo.jpg"), "2026/photo.jpg")
    store.sync(lambda done, total: print(done, total))
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sdfs.control import ControlClient, serving
from sdfs.errors import StoreBusy
from sdfs.store import read_owner
from sdfs.tree.owner import Owner
from sdfs.tree.status import Access, FileStatus, Listed, StoreStatus, Trashed, Usage

__all__ = ["Access", "FileStatus", "Listed", "StoreStatus", "Trashed", "Usage", "open_access"]
_HANDOVER_SECONDS = 5.0  # an owner that ends still has the store for a moment; one that starts does not listen yet


@contextlib.contextmanager
def open_access(store: Path, *, become_owner: Callable[[Path], Owner] = Owner) -> Iterator[Access]:
    """Raises NotAStore, StoreTooNew, and StoreBusy where the owner does not answer."""
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
