"""A store that others may use through its owner, for as long as the owner has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sdfs.control.server import ControlServer, socket_path
from sdfs.owner.owner import Owner


@contextlib.contextmanager
def serving(owner: Owner) -> Iterator[None]:
    """Let others use the store through `owner`, and close it at the end."""
    try:
        path = socket_path(owner.store.root)
        server = ControlServer(owner.services, lambda: owner.store.identity, path)
        try:
            owner.store.announce(path)
            yield
        finally:
            server.close()
    finally:
        owner.close()
