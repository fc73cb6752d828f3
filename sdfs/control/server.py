"""The owner's side of the control socket."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, BinaryIO, cast

from sdfs import errors
from sdfs.control.requests import MAX_DATA_BYTES, REQUESTS, VERSION, Access, Request
from sdfs.control.values import OtherVersionError, WrongValueError, pack, pack_line, parse_arguments, parse_line
from sdfs.errors import SdfsError, StoreBusy, UserError
from sdfs.system.file_id import Identity
from sdfs.system.places import socket_folder

PART_ENTRIES = 100  # of a list in one line

_MAX_REQUEST_BYTES = 1 << 16
_STALLED_SECONDS = 5.0  # what clients get to take their answers when the owner ends
_log = logging.getLogger(__name__)


def socket_path(root: str) -> str:
    """Where the owner of the store at `root` listens; makes the folder."""
    status = os.stat(root)
    return f"{socket_folder()}/{status.st_dev:x}-{status.st_ino:x}.sock"


class ControlServer:
    """Serves `access` at `path` from its construction to `close`, each connection in a thread of its own."""

    def __init__(self, access: Access, identity: Callable[[], Identity], path: str) -> None:
        """`identity`: what the owner of the store shows now."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # left by an owner that was killed: there is only one
        self._path = path
        self._server = _Server(path, access, identity)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="sdfs-control")
        self._thread.start()

    def close(self) -> None:
        """Takes no more requests, and waits for the answers to those it has, but not long for clients that do not take them."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up(time.monotonic() + _STALLED_SECONDS)
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    def __init__(self, path: str, access: Access, identity: Callable[[], Identity]) -> None:
        self.access = access
        self.identity = identity
        self._connections: set[socket.socket] = set()
        super().__init__(path, _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self, end: float) -> None:
        """Wait until all connections are done, at most until `end` (monotonic), and cut the others."""
        while self._connections and time.monotonic() < end:
            time.sleep(0.02)
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("a client of the control socket went away", exc_info=True)


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while (line := self.rfile.readline(_MAX_REQUEST_BYTES)) and self._answer(line):
            pass

    def _answer(self, line: bytes) -> bool:
        """Whether another request may follow: after the one that asks who we are."""
        server = cast(_Server, self.server)
        try:
            message = parse_line(line)
            if (name := message.get("request")) == "identify":
                self.send({"ok": asdict(server.identity())})
                return True
            if not isinstance(name, str) or name not in REQUESTS:
                raise UserError(f"the owner of the store knows no request {name!r}")
            self.send({"ok": self._call(server.access, REQUESTS[name], message.get("arguments"))})
        except OtherVersionError as error:
            self._refuse(StoreBusy(f"the owner of the store speaks version {VERSION} of SDFS's control protocol, and the client {error}"))
        except WrongValueError as error:
            self._refuse(UserError(f"the owner of the store got {error} instead of a request"))
        except SdfsError as error:
            self._refuse(error)
        except ConnectionError:
            raise
        except Exception as error:  # a bug: the client is told, the owner lives on
            _log.exception("a request of the control socket failed")
            self._refuse(UserError(f"the owner of the store failed: {type(error).__name__}: {error}"))
        return False

    def _call(self, access: Access, request: Request, arguments: object) -> Any:
        given = parse_arguments(request, arguments)
        if request.progress is not None:
            given[request.progress] = lambda done, total: self.send({"progress": [done, total]})
        if request.data is not None:
            given[request.data] = cast(BinaryIO, _Sender(self))
        result = getattr(access, request.name)(**given)
        if not request.in_parts:
            return pack(result)
        for begin in range(0, len(result), PART_ENTRIES):
            self.send({"part": [pack(entry) for entry in result[begin : begin + PART_ENTRIES]]})
        return None

    def _refuse(self, error: SdfsError) -> None:
        self.send({"error": errors.pack(error)})

    def send(self, message: dict[str, Any]) -> None:
        self.wfile.write(pack_line(message))


class _Sender(io.RawIOBase):
    """A file whose content goes to the client."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = memoryview(data)
        for begin in range(0, len(content), MAX_DATA_BYTES):
            part = content[begin : begin + MAX_DATA_BYTES]
            self._connection.send({"data": len(part)})
            self._connection.wfile.write(part)
        return len(content)
