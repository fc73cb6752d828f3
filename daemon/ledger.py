"""What has to outlast the process: which files of a watched folder were dealt with, and how. SQLite, one file for each folder.

It may be lost: the store knows what it has, so nothing is taken twice. Then files that are no pictures are looked at again, and what
is kept in the folder and was removed from the store comes back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from sdfs.errors import UserError
from sdfs.system.backoff import Backoff
from sdfs.system.files import is_locked
from sdfs.system.places import state_folder

State = Literal["taken", "left", "waiting", "failed"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, inode INTEGER, size INTEGER, mtime_ns INTEGER,
    state TEXT, destination TEXT, reason TEXT, tries INTEGER, due REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS due ON files (due) WHERE due IS NOT NULL;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
RETRY = Backoff(60.0, 6 * 3600.0)  # of a file that could not be taken


@dataclass(frozen=True)
class Identity:
    """Which file of a folder, in which state. Without the device's number: a disk may get another one."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Entry:
    """A file that was dealt with. `taken`: the store has it, and it is kept here; `left`: it is no picture; `waiting`: the store has
    a copy, but not for good yet; `failed`: it could not be taken. The last two are tried again when they are `due`.
    """

    path: str  # within the watched folder
    identity: Identity
    state: State
    destination: str | None = None  # within the store
    reason: str | None = None
    tries: int = 0
    due: float | None = None  # seconds since the epoch


def path_for(folder: str) -> Path:
    """Where the ledger of a watched folder, an absolute path, is."""
    return state_folder() / f"watch-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sqlite"


class Ledger:
    """Open for writing: by one process, and one thread in it."""

    def __init__(self, folder: str) -> None:
        """Raises UserError where another process watches the folder."""
        self.path = path_for(folder)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"{folder} is watched by another process already: end that first") from None
        try:
            self._database = self._open()
            self.note("folder", folder)
            self.note("trouble", "")
        except sqlite3.Error as error:
            os.close(self._lock)
            raise UserError(f"{self.path} cannot be written: {error}") from error

    def _open(self) -> sqlite3.Connection:
        for attempt in range(2):
            database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = NORMAL")
                database.executescript(_SCHEMA)
                return database
            except sqlite3.DatabaseError:
                database.close()
                if attempt:
                    raise
                self.path.replace(f"{self.path}.damaged")
        raise AssertionError

    def close(self) -> None:
        self._database.close()
        os.close(self._lock)

    def get(self, path: str) -> Entry | None:
        row = self._database.execute("SELECT * FROM files WHERE path = ?", (os.fsencode(path),)).fetchone()
        return None if row is None else _entry(row)

    def put(self, entry: Entry) -> None:
        row = (os.fsencode(entry.path), *astuple(entry.identity), *astuple(entry)[2:])
        self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _storable(row))

    def forget(self, path: str) -> None:
        self._database.execute("DELETE FROM files WHERE path = ?", (os.fsencode(path),))

    def entries(self) -> Iterator[Entry]:
        """In the order of their paths; the ledger may be changed meanwhile."""
        last = b""
        while rows := self._database.execute("SELECT * FROM files WHERE path > ? ORDER BY path LIMIT 1000", (last,)).fetchall():
            yield from map(_entry, rows)
            last = rows[-1][0]

    def due(self) -> list[str]:
        """Paths of files that are to be tried again now."""
        now = time.time()  # what is due later than ever is of a time when the clock was wrong
        rows = self._database.execute("SELECT path FROM files WHERE due <= ? OR due > ?", (now, now + RETRY.last_seconds))
        return [os.fsdecode(row[0]) for row in rows]

    def note(self, name: str, value: object) -> None:
        """A fact about the watch, for `status`; JSON-able."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def facts(self) -> dict[str, object]:
        return _facts(self._database)


@dataclass(frozen=True)
class Report:
    """What a ledger tells without being opened for writing."""

    facts: dict[str, object]
    watched: bool  # by a process, now
    counts: dict[str, int]  # of entries in each state
    problems: list[Entry]  # what is waiting or failed


def reports() -> list[Report]:
    """Of all folders that were ever watched with this state folder."""
    return [report for path in sorted(state_folder().glob("watch-*.sqlite")) if (report := _report(path)) is not None]


def _report(path: Path) -> Report | None:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            counts = dict(database.execute("SELECT state, count(*) FROM files GROUP BY state").fetchall())
            rows = database.execute("SELECT * FROM files WHERE state IN ('waiting', 'failed') ORDER BY path").fetchall()
            return Report(_facts(database), _is_locked(Path(f"{path}.lock")), counts, list(map(_entry, rows)))
    except sqlite3.DatabaseError:
        return None


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def _facts(database: sqlite3.Connection) -> dict[str, object]:
    return {name: json.loads(value) for name, value in database.execute("SELECT name, value FROM facts")}


def _storable(row: tuple[object, ...]) -> tuple[object, ...]:
    """SQLite's text is UTF-8: names that cannot be decoded have lone surrogates."""
    return tuple(value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value for value in row)


def _entry(row: tuple[object, ...]) -> Entry:
    path, inode, size, mtime_ns, *rest = row
    return Entry(os.fsdecode(path), Identity(inode, size, mtime_ns), *rest)  # type: ignore[arg-type]  # as the schema says
