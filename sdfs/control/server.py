"""The owner's side of the control socket."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from sdfs.control.protocol import MAX_DATA_BYTES, PART_ENTRIES, pack_error
from sdfs.errors import SdfsError
from sdfs.files import make_private
from sdfs.tree.owner import Owner
from sdfs.tree.status import Access, Wish

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MAX_REQUEST_BYTES = 1 << 16
_STALLED_SECONDS = 5.0  # what clients get to take their answers when the owner ends
_log = logging.getLogger("sdfs.control")


def socket_path(root: str) -> str:
    """Where the owner of the store at `root` listens; makes the folder."""
    status = os.stat(root)
    return f"{_runtime_folder()}/{status.st_dev:x}-{status.st_ino:x}.sock"


def _runtime_folder() -> str:
    bases = (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.geteuid()}")
    usable = (f"{base}/sdfs" for base in bases if base and os.access(base, os.W_OK | os.X_OK))
    folder = next(usable, f"{tempfile.gettempdir()}/sdfs-{os.geteuid()}")
    make_private(folder, "holds SDFS's sockets")
    return folder


class ControlServer:
    """Serves `owner` at `path` from its construction to `close`, each connection in a thread of its own."""

    def __init__(self, owner: Owner, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # left by an owner that was killed: there is only one
        self._path = path
        self._server = _Server(path, owner)
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


@contextlib.contextmanager
def serving(owner: Owner) -> Iterator[None]:
    """Let others use the store through `owner`, and close it at the end."""
    try:
        path = socket_path(owner.store.root)
        server = ControlServer(owner, path)
        try:
            owner.store.announce(path)
            yield
        finally:
            server.close()
    finally:
        owner.close()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    def __init__(self, path: str, owner: Owner) -> None:
        self.owner = owner
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
        owner = cast(_Server, self.server).owner
        try:
            request = json.loads(line)
            if request["request"] == "identify":
                self.send({"ok": asdict(owner.store.identity)})
                return True
            answer = _ANSWERS[request["request"]]
            self.send({"ok": answer(owner, self, **request["arguments"])})
        except SdfsError as error:
            self.send({"error": pack_error(error)})
        except ConnectionError:
            raise
        except Exception as error:  # a bug, or a request of another version: the client is told, the owner lives on
            _log.exception("a request of the control socket failed")
            self.send({"error": ["UserError", f"the owner of the store failed: {type(error).__name__}: {error}"]})
        return False

    def send(self, message: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(message).encode() + b"\n")

    def send_parts(self, entries: Sequence[DataclassInstance]) -> None:
        """A list, in lines of bounded length."""
        for begin in range(0, len(entries), PART_ENTRIES):
            self.send({"part": [asdict(entry) for entry in entries[begin : begin + PART_ENTRIES]]})


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


def _sync(access: Access, connection: _Connection) -> None:
    access.sync(lambda done, total: connection.send({"progress": [done, total]}))


def _read_to(access: Access, connection: _Connection, path: str, model: str | None) -> None:
    access.read_to(path, cast(BinaryIO, _Sender(connection)), model)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "add": lambda access, _, source, destination, sha256: access.add(Path(source), destination, sha256),
    "sync": _sync,
    "settle": lambda access, _, path, seconds: asdict(access.settle(path, seconds)),
    "find": lambda access, _, sha256, size: (found := access.find(sha256, size)) and asdict(found),
    "hand_over": lambda access, _: access.hand_over(),
    "status": lambda access, _: asdict(access.status()),
    "statistics": lambda access, _: asdict(access.statistics()),
    "stat": lambda access, _, path: asdict(access.stat(path)),
    "list": lambda access, connection, path: connection.send_parts(access.list(path)),
    "read_to": _read_to,
    "recompress": lambda access, _, path, wish: asdict(access.recompress(path, Wish(**wish))),
    "usage": lambda access, _, path: asdict(access.usage(path)),
    "trashed": lambda access, connection: connection.send_parts(access.trashed()),
    "restore": lambda access, _, name, folder: access.restore(name, folder),
    "empty_trash": lambda access, _: access.empty_trash(),
    "shutdown": lambda access, _: access.shutdown(),
}
