"""One file's way from the watched folder into the store.

    is it one we take? → nobody writes to it? → its SHA-256 → the store adds it, unless it has that content → wait until it is no longer
    pending → ask the store once more: it has that content, whole → the original is trashed, deleted or kept

Nothing is taken twice, wherever it is cut: the store is asked by content first, so what it got before a crash is found again. And nothing
is given up before the store says that it has, durably, a file with this content, or a blob whose checksums hold and that stands for it;
and before that file was read here, on the disk: whoever answers may be wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from daemon import layout, originals
from daemon.config import WatchConfig
from daemon.ledger import RETRY, Entry, Identity, Ledger
from daemon.scanning import is_watched
from daemon.session import Session
from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.control.answers import FileStatus
from sdfs.errors import NameTaken, NotAStore, SdfsError, SourceChanged, StoreBusy, StoreFull, StoreTooNew, UserError
from sdfs.owner.access import STATUS_XATTR, holds

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
PATIENCE_SECONDS = 120.0  # for one picture to be shrunk, before the next is taken
_CHUNK_BYTES = 1 << 22
_WAIT_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What came of a file.

    `taken`: the store has it · `left`: it is no picture · `gone` · `busy`: somebody writes to it · `failed`, `waiting`: the ledger says
    when to try again · `full`: the store has no room · `away`: the store is not to be had now, for `reason`.
    """

    kind: Literal["taken", "left", "gone", "busy", "failed", "waiting", "full", "away"]
    reason: str = ""
    logical_bytes: int = 0
    stored_bytes: int = 0


class _StillPendingError(Exception):
    """The store has the file, but not for good."""


class Taker:
    """Takes the files of one watched folder. Used by one thread."""

    def __init__(self, watch: WatchConfig, ledger: Ledger, session: Session, go_on: Callable[[float], bool]) -> None:
        """`go_on` is asked every second or so while something takes long that is worth so many seconds: False gives it up."""
        self._watch = watch
        self._ledger = ledger
        self._session = session
        self._go_on = go_on

    def take(self, path: str) -> Result:
        """`path` is within the watched folder."""
        full = f"{self._watch.folder}/{path}"
        try:
            fd = os.open(full, _FLAGS)
        except FileNotFoundError:
            return self._gone(path)
        except OSError as error:
            return self._unreadable(path, error)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return self._gone(path)
            if _is_of_store(fd) or not is_watched(self._watch.folder, full):
                return Result("left")
            return self._take(path, fd, status)
        except (NotAStore, StoreBusy, StoreTooNew) as error:
            return Result("away", str(error))
        except StoreFull as error:
            return Result("full", str(error))
        except (originals.ChangedError, SourceChanged):
            return Result("busy")
        except (SdfsError, OSError) as error:
            return self._problem("failed", path, Identity.of(os.fstat(fd)), str(error))
        finally:
            os.close(fd)

    def is_dealt_with(self, path: str, identity: Identity) -> bool:
        """Whether there is nothing to do for a file in this state, or nothing before it is due."""
        entry = self._ledger.get(path)
        return entry is not None and entry.identity == identity and (entry.due is None or entry.due > time.time())

    def give_up(self, path: str) -> None:
        """A file that was to be tried again is not there. One that was taken and kept may be on a filesystem that comes back."""
        entry = self._ledger.get(path)
        if entry is not None and entry.due is not None:
            self._ledger.forget(path)

    def _take(self, path: str, fd: int, status: os.stat_result) -> Result:
        identity = Identity.of(status)
        entry = self._ledger.get(path)
        if entry is not None and entry.identity == identity and entry.state in ("taken", "left"):
            return Result("left")
        with originals.without_writers(fd) as quiet:
            if not quiet:
                return Result("busy")
        if not self._watch.all_files and picture_format(os.pread(fd, HEAD_BYTES, 0)) is None:
            self._ledger.put(Entry(path, identity, "left"))
            return Result("left")
        sha256 = self._sha256(fd)
        if not self._watch.all_files and (reason := self._broken(path)) is not None:
            return self._problem("failed", path, identity, f"it is no whole picture: {reason}")
        destination = self._store(path, sha256)
        try:
            stored = self._wait(destination, sha256, identity.size)
        except _StillPendingError as error:
            return self._problem("waiting", path, identity, str(error), destination)
        if self._session.root is None or not holds(self._session.root, stored.path, sha256):
            raise UserError(f"{self._watch.store} claims to hold this as {stored.path}, which does not hold it: the original stays")
        self._finish(path, status, stored)
        _log.info("%s → %s: %s, %d → %d bytes", path, stored.path, stored.state, identity.size, stored.stored_bytes)
        return Result("taken", "", identity.size, stored.stored_bytes)

    def _broken(self, path: str) -> str | None:
        """Why a picture is not to be taken: whoever makes it may not be done, or it is broken, and nothing of it can be shrunk."""
        with self._session.access() as access:
            return access.check(Path(f"{self._watch.folder}/{path}"))

    def _sha256(self, fd: int) -> str:
        """In hexadecimal. Raises StoreBusy where the watch is to stop before the end of a large file."""
        digest, offset = hashlib.sha256(), 0
        while chunk := os.pread(fd, _CHUNK_BYTES, offset):
            digest.update(chunk)
            offset += len(chunk)
            if not self._go_on(math.inf):
                raise StoreBusy("stopped while reading a file")
        return digest.hexdigest()

    def _store(self, path: str, sha256: str) -> str:
        """Have the content in the store; returns where. Raises SourceChanged if the file changes meanwhile."""
        source = Path(f"{self._watch.folder}/{path}")
        for destination in layout.destinations(self._watch, path):
            with self._session.access() as access, contextlib.suppress(NameTaken):
                return access.add(source, destination, sha256, self._watch.heic)
        raise UserError(f"there are {layout.MOST_SUFFIXES} other files of that name in the store")

    def _wait(self, destination: str, sha256: str, size: int) -> FileStatus:
        """Wait until the store has the content for good. Raises _StillPendingError; ChangedError where it has it no more."""
        while True:
            with self._session.access() as access:
                status = access.settle(destination, _WAIT_SECONDS)
                if status.state != "pending":
                    found = access.find(sha256, size)
                    if found is None:
                        raise originals.ChangedError(destination)
                    return found
            if status.reason is not None:
                raise _StillPendingError(f"the store has it, but cannot shrink it yet: {status.reason}")
            if not self._go_on(PATIENCE_SECONDS):
                raise _StillPendingError("the store has it, but has not shrunk it yet")

    def _finish(self, path: str, status: os.stat_result, stored: FileStatus) -> None:
        originals.dispose(f"{self._watch.folder}/{path}", status, self._watch.originals)
        if self._watch.originals == "keep":
            self._ledger.put(Entry(path, Identity.of(status), "taken", stored.path))
        else:
            self._ledger.forget(path)

    def _gone(self, path: str) -> Result:
        self._ledger.forget(path)
        return Result("gone")

    def _unreadable(self, path: str, error: OSError) -> Result:
        try:
            identity = Identity.of(os.lstat(f"{self._watch.folder}/{path}"))
        except OSError:
            return self._gone(path)
        return self._problem("failed", path, identity, f"it cannot be read: {error.strerror}")

    def _problem(
        self, state: Literal["failed", "waiting"], path: str, identity: Identity, reason: str, destination: str | None = None
    ) -> Result:
        """Note that a file has to be tried again, and when."""
        before = self._ledger.get(path)
        tries = 1 + (before.tries if before is not None and before.identity == identity else 0)
        due = time.time() + RETRY.seconds(tries)
        self._ledger.put(Entry(path, identity, state, destination, reason, tries, due))
        _log.warning("%s stays where it is for now: %s", path, reason)
        return Result(state, reason)


def _is_of_store(fd: int) -> bool:
    """Whether a file is one of a mount: then it is its own copy, and to give it up would be to lose it."""
    try:
        return bool(os.getxattr(fd, STATUS_XATTR))
    except OSError:
        return False
