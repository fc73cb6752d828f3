"""Access to a store that comes and goes: opened when there is work, through whoever owns the store then, closed when there is none.

An owner that is there, a mount for one, does the work in its engine. Without one this process is the owner, until there is nothing to
do or somebody mounts the store; then the work goes on through that mount. What was under way is in the store, pending, and is
taken up again by its next owner.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from sdfs.control.requests import Access
from sdfs.errors import NotAStore, StoreBusy
from sdfs.owner.access import open_access, store_at

IDLE_SECONDS = 30.0
_MAKING_WAY_SECONDS = 2.0  # for who asked for the store, before it is opened again


class Session:
    """Used by one thread."""

    def __init__(self, store: str, *, open_store: Callable[..., AbstractContextManager[Access]] = open_access) -> None:
        """`store`: a store, or a mount of one, which need not be there yet."""
        self.root: Path | None = None  # of the store, once it was seen
        self.wanted = threading.Event()  # by somebody else: leave soon
        self._named = store
        self._open_store = open_store
        self._open = contextlib.ExitStack()
        self._access: Access | None = None
        self._used_at = 0.0
        self._open_again_at = 0.0  # monotonic

    @contextlib.contextmanager
    def access(self) -> Iterator[Access]:
        """Raises NotAStore, StoreTooNew; and StoreBusy where it is not to be had now, also while it is used: then try again later."""
        try:
            yield self._opened()
        except (ConnectionError, FileNotFoundError) as error:
            self.close()
            raise StoreBusy(f"the process that owns {self._named} has ended") from error
        except StoreBusy:
            self.close()
            raise
        finally:
            self._used_at = time.monotonic()
            self.give_way()

    def give_way(self) -> None:
        """Close it if it is wanted by somebody else, or was not used for a while."""
        if self._access is None:
            return
        if self.wanted.is_set():
            self.close()
            self._open_again_at = time.monotonic() + _MAKING_WAY_SECONDS
        elif time.monotonic() - self._used_at > IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        self._access = None
        self._open.close()

    def _opened(self) -> Access:
        if self._access is None:
            time.sleep(max(0.0, self._open_again_at - time.monotonic()))
            self.wanted.clear()
            self._access = self._open.enter_context(self._open_store(self._find(), on_hand_over=self.wanted.set))
        return self._access

    def _find(self) -> Path:
        """The store, also where it was named by a mount that is gone."""
        self.root = store_at(Path(self._named)) or self.root
        if self.root is None:
            raise NotAStore(f"{self._named} is no SDFS store, nor a mount of one: is it mounted? `sdfs init FOLDER` makes a store")
        return self.root
