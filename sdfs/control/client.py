"""The others' side of the control socket.

Whatever listens there is believed only if it is a process of our user that shows what only the owner of this store can (`Identity`), and
each answer is looked at before it is used. So a lock that was written by somebody else, or names another store's socket, does no harm.
"""

from __future__ import annotations

import hmac
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, TypeVar

from sdfs.control.answers import WrongAnswerError, parse_inner_path, parse_line, parse_list, parse_path, parse_record
from sdfs.control.protocol import MAX_DATA_BYTES, MAX_LINE_BYTES, parse_error
from sdfs.errors import StoreBusy, UserError
from sdfs.no_follow import is_name
from sdfs.store import Identity
from sdfs.tree.status import FileStatus, Listed, Statistics, StoreStatus, Trashed, Usage, Wish

_PROBE_SECONDS = 5.0
_IDENTIFY_SECONDS = 60.0  # of an owner that is known to live
_LINE_SECONDS = 60.0  # for a line that has begun, or for data that was announced
_T = TypeVar("_T")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)


class ControlClient:
    """`Access` through a socket. Raises ConnectionError or FileNotFoundError where nobody listens, StoreBusy where it is not the owner
    who does, and UserError where he answers nonsense.

    An answer may take as long as the work for it, which may be hours: only `probe` tells an owner that is at work from one that is stuck.
    """

    def __init__(self, path: str, identity: Identity) -> None:
        """`path` is the socket's, `identity` what the owner has to show."""
        self._path = path
        self._identity = identity

    def add(self, source: Path, destination: str, sha256: str | None = None) -> str:
        return self._ask(parse_path, "add", source=os.path.abspath(source), destination=destination, sha256=sha256)

    def sync(self, progress: Callable[[int, int], None]) -> None:
        self._ask(_anything, "sync", on_progress=progress)

    def settle(self, path: str, seconds: float) -> FileStatus:
        return self._ask(_file_status, "settle", path=path, seconds=seconds)

    def find(self, sha256: str, size: int) -> FileStatus | None:
        return self._ask(lambda found: None if found is None else _file_status(found), "find", sha256=sha256, size=size)

    def hand_over(self) -> None:
        self._ask(_anything, "hand_over")

    def status(self) -> StoreStatus:
        return self._ask(lambda status: parse_record(StoreStatus, status), "status")

    def statistics(self) -> Statistics:
        return self._ask(lambda statistics: parse_record(Statistics, statistics), "statistics")

    def stat(self, path: str) -> FileStatus:
        return self._ask(_file_status, "stat", path=path)

    def list(self, path: str) -> list[Listed]:
        found: list[Listed] = []

        def note(part: object) -> None:
            for entry in parse_list(part):
                parse_inner_path((listed := parse_record(Listed, entry)).path, path)
                found.append(listed)

        self._ask(_anything, "list", on_part=note, path=path)
        return found

    def read_to(self, path: str, file: BinaryIO, model: str | None = None) -> None:
        self._ask(_anything, "read_to", on_data=file, path=path, model=model)

    def recompress(self, path: str, wish: Wish) -> FileStatus:
        return self._ask(_file_status, "recompress", path=path, wish=asdict(wish))

    def usage(self, path: str) -> Usage:
        return self._ask(lambda usage: parse_record(Usage, usage), "usage", path=path)

    def trashed(self) -> Sequence[Trashed]:
        found: list[Trashed] = []
        self._ask(_anything, "trashed", on_part=lambda part: found.extend(map(_trashed, parse_list(part))))
        return found

    def restore(self, name: str, folder: str | None) -> str:
        return self._ask(parse_path, "restore", name=name, folder=folder)

    def empty_trash(self) -> None:
        self._ask(_anything, "empty_trash")

    def shutdown(self) -> None:
        self._ask(_anything, "shutdown")

    def probe(self) -> None:
        """Raises as all do where nobody listens, and TimeoutError or BlockingIOError where nobody answers, as of a stopped process."""
        self._open(_PROBE_SECONDS).close()

    def _open(self, seconds: float) -> _Answers:
        """Connect to the owner, who has shown that he is it. Raises StoreBusy where somebody else listens."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(seconds)
        answers = _Answers(connection)
        try:
            connection.connect(self._path)
            user = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
            if user != os.geteuid():
                raise StoreBusy(f"a process of user {user} listens at {self._path}, and is not believed")
            answers.send("identify", {})
            shown = parse_record(Identity, parse_line(answers.line(time.monotonic() + seconds)).get("ok"))
            known = self._identity
            if (shown.device, shown.inode) != (known.device, known.inode) or not _same_secret(shown.secret, known.secret):
                raise WrongAnswerError("another store")
        except WrongAnswerError as error:
            connection.close()
            raise StoreBusy(f"who listens at {self._path} is not the owner of this store, and is not believed: {error}") from None
        except BaseException:
            connection.close()
            raise
        return answers

    def _ask(
        self,
        parse: Callable[[object], _T],
        request: str,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        on_part: Callable[[object], None] | None = None,
        on_data: BinaryIO | None = None,
        **arguments: object,
    ) -> _T:
        try:
            answers = self._open(_IDENTIFY_SECONDS)
        except TimeoutError:
            raise StoreBusy("the process that owns the store does not answer: try again") from None
        try:
            answers.send(request, arguments)
            while True:
                answer = parse_line(answers.line())
                if "ok" in answer:
                    return parse(answer["ok"])
                if "error" in answer:
                    raise _error(answer["error"])
                if on_progress is not None and "progress" in answer:
                    on_progress(*_progress(answer["progress"]))
                if on_part is not None and "part" in answer:
                    on_part(answer["part"])
                if on_data is not None and "data" in answer:
                    on_data.write(answers.data(answer["data"]))
        except WrongAnswerError as error:
            raise UserError(f"who answers at {self._path} gives {error}, as no owner of a store does: end that process") from None
        except TimeoutError:
            raise StoreBusy("the process that owns the store stopped in the middle of an answer: try again") from None
        finally:
            answers.close()


class _Answers:
    """A connection to an owner: lines and data, of bounded length, and not slower than a living process sends them."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()

    def send(self, request: str, arguments: dict[str, object]) -> None:
        self._connection.sendall(json.dumps({"request": request, "arguments": arguments}).encode() + b"\n")

    def line(self, end: float | None = None) -> bytes:
        """The next line, by `end` (monotonic). None: it may take as long to begin as the work for it.

        Raises WrongAnswerError, TimeoutError, StoreBusy.
        """
        searched = 0
        while (at := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > MAX_LINE_BYTES:
                raise WrongAnswerError("a line without an end")
            if end is None and searched:
                end = time.monotonic() + _LINE_SECONDS
            self._receive(end)
        line = bytes(self._received[:at])
        del self._received[: at + 1]
        return line

    def data(self, size: object) -> bytes:
        """So many bytes. Raises as `line` does."""
        if type(size) is not int or not 0 < size <= MAX_DATA_BYTES:
            raise WrongAnswerError("data of a size that cannot be")
        end = time.monotonic() + _LINE_SECONDS
        while len(self._received) < size:
            self._receive(end)
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _receive(self, end: float | None) -> None:
        seconds = None if end is None else end - time.monotonic()
        if seconds is not None and seconds <= 0:
            raise TimeoutError
        self._connection.settimeout(seconds)
        received = self._connection.recv(1 << 16)
        if not received:
            raise StoreBusy("the process that owns the store ended before it answered: try again")
        self._received += received

    def close(self) -> None:
        self._connection.close()


def _anything(answer: object) -> None:
    """Of a request whose answer says no more than that it is done."""


def _file_status(answer: object) -> FileStatus:
    parse_path((status := parse_record(FileStatus, answer)).path)
    return status


def _trashed(entry: object) -> Trashed:
    if not is_name((trashed := parse_record(Trashed, entry)).name):
        raise WrongAnswerError("a name that is none")
    return trashed


def _progress(value: object) -> tuple[int, int]:
    match value:
        case [int(done), int(total)]:
            return done, total
    raise WrongAnswerError("a progress that is none")


def _error(value: object) -> Exception:
    match value:
        case [str(name), str(message)]:
            return parse_error(name, message)
    raise WrongAnswerError("an error that is none")


def _same_secret(shown: str, known: str) -> bool:
    return known != "" and hmac.compare_digest(shown.encode(errors="replace"), known.encode())
