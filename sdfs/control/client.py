"""The others' side of the control socket.

Whatever listens there is believed only if it is a process of our user that shows what only the owner of this store can (`Identity`), and
each answer is looked at before it is used. So a lock that was written by somebody else, or names another store's socket, does no harm.
"""

from __future__ import annotations

import hmac
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from sdfs import errors
from sdfs.control.requests import MAX_DATA_BYTES, REQUESTS, VERSION, Access, Request
from sdfs.control.values import (
    OtherVersionError,
    WrongValueError,
    check_inner_path,
    pack,
    pack_line,
    parse,
    parse_line,
    parse_list,
    parse_record,
)
from sdfs.errors import StoreBusy, UserError
from sdfs.system.file_id import Identity

MAX_LINE_BYTES = 1 << 23  # of an answer
_PROBE_SECONDS = 5.0
_IDENTIFY_SECONDS = 60.0  # of an owner that is known to live
_LINE_SECONDS = 60.0  # for a line that has begun, or for data that was announced
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)


class ControlClient(Access):
    """`Access` through a socket. Raises ConnectionError or FileNotFoundError where nobody listens, StoreBusy where it is not the owner
    who does, or is one of another version, and UserError where he answers nonsense.

    An answer may take as long as the work for it, which may be hours: only `probe` tells an owner that is at work from one that is stuck.
    """

    def __init__(self, path: str, identity: Identity) -> None:
        """`path` is the socket's, `identity` what the owner has to show."""
        self._path = path
        self._identity = identity

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
                raise StoreBusy(f"a process of user {user} listens at {self._path} instead of the owner of the store: end that process")
            self._identify(answers, time.monotonic() + seconds)
        except BaseException:
            connection.close()
            raise
        return answers

    def _identify(self, answers: _Answers, end: float) -> None:
        answers.send("identify", {})
        try:
            shown = parse_record(Identity, answers.next(end).get("ok"))
            known = self._identity
            if (shown.device, shown.inode) != (known.device, known.inode) or not _same_secret(shown.secret, known.secret):
                raise WrongValueError("another store")
        except WrongValueError as error:
            raise StoreBusy(f"the process that listens at {self._path} is not the owner of this store: {error}") from None
        except OtherVersionError as error:
            raise StoreBusy(
                f"the process at {self._path} speaks {error}, and this program version {VERSION}: use the SDFS of that process, or end it"
            ) from None

    def _ask(self, request: Request, arguments: Mapping[str, Any]) -> Any:
        """Send a request, and return what is answered. `arguments`: of the method."""
        try:
            answers = self._open(_IDENTIFY_SECONDS)
        except TimeoutError:
            raise StoreBusy("the process that owns the store does not answer: try again") from None
        try:
            answers.send(request.name, {name: pack(arguments[name]) for name in request.arguments})
            return self._take(request, arguments, answers)
        except (WrongValueError, OtherVersionError) as error:
            raise UserError(f"the process that answers at {self._path} sent {error}, as no owner of a store does: end it") from None
        except TimeoutError:
            raise StoreBusy("the process that owns the store stopped in the middle of an answer: try again") from None
        finally:
            answers.close()

    def _take(self, request: Request, arguments: Mapping[str, Any], answers: _Answers) -> Any:
        parts: list[Any] = []
        while True:
            answer = answers.next()
            if "error" in answer:
                raise _error(answer["error"])
            if "ok" in answer:
                return parts if request.in_parts else None if request.result is type(None) else parse(request.result, answer["ok"])
            if request.progress is not None and "progress" in answer:
                arguments[request.progress](*_progress(answer["progress"]))
            if request.in_parts and "part" in answer:
                parts += [_entry(request, arguments, entry) for entry in parse_list(answer["part"])]
            if request.data is not None and "data" in answer:
                arguments[request.data].write(answers.data(answer["data"]))


def _method(request: Request) -> Callable[..., Any]:
    def ask(self: ControlClient, *given: Any, **named: Any) -> Any:
        bound = request.signature.bind(self, *given, **named)
        bound.apply_defaults()
        return self._ask(request, bound.arguments)

    return ask


for _request in REQUESTS.values():
    setattr(ControlClient, _request.name, _method(_request))


class _Answers:
    """A connection to an owner: lines and data, of bounded length, and not slower than a living process sends them."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()

    def send(self, request: str, arguments: Mapping[str, object]) -> None:
        self._connection.sendall(pack_line({"request": request, "arguments": arguments}))

    def next(self, end: float | None = None) -> dict[str, Any]:
        """The next line, by `end` (monotonic). None: it may take as long to begin as the work for it.

        Raises WrongValueError, OtherVersionError, TimeoutError, StoreBusy.
        """
        searched = 0
        while (at := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > MAX_LINE_BYTES:
                raise WrongValueError("a line without an end")
            if end is None and searched:
                end = time.monotonic() + _LINE_SECONDS
            self._receive(end)
        line = bytes(self._received[:at])
        del self._received[: at + 1]
        return parse_line(line)

    def data(self, size: object) -> bytes:
        """So many bytes. Raises as `next` does."""
        if type(size) is not int or not 0 < size <= MAX_DATA_BYTES:
            raise WrongValueError("data of a size that cannot be")
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


def _entry(request: Request, arguments: Mapping[str, Any], entry: object) -> Any:
    parsed = parse(request.result, entry)
    if request.name == "list":
        check_inner_path(parsed.path, arguments["path"])
    return parsed


def _progress(value: object) -> tuple[int, int]:
    match value:
        case [int(done), int(total)]:
            return done, total
    raise WrongValueError("a progress that is none")


def _error(value: object) -> Exception:
    try:
        return errors.parse(value, unknown=UserError)
    except ValueError:
        raise WrongValueError("an error that is none") from None


def _same_secret(shown: str, known: str) -> bool:
    return known != "" and hmac.compare_digest(shown.encode(errors="replace"), known.encode())
