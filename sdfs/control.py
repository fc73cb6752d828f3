"""The owner's Unix socket: others use a store through the process that owns it.

One request a connection. The client sends one line of JSON, {"request": name, "arguments": {…}}; the owner answers with lines of JSON:

    {"progress": [done, total]}         any number of them, for `sync`
    {"data": length}                    any number of them, for `read_to`; so many bytes of the file follow the line
    {"ok": result}                      the end
    {"error": [class name, message]}    the end; a class of `sdfs.errors`

The socket is in a folder that only its user may enter; the store's lock file says where. Paths that cannot be decoded travel as lone
surrogates.
"""

# System calls on `str` paths, which need not be decodable, and on descriptors.
# ruff: noqa: PTH100, PTH108, PTH116
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
from typing import Any, BinaryIO, cast

from sdfs.errors import (
    DamagedError,
    EngineError,
    ModelError,
    ModelMissing,
    NameTaken,
    SdfsError,
    SourceChanged,
    StoreBusy,
    StoreFull,
    StoreTooNew,
    UserError,
)
from sdfs.files import make_private
from sdfs.tree.owner import Owner
from sdfs.tree.status import Access, FileStatus, Listed, Statistics, StoreStatus, Trashed, Usage, Wish

_MAX_REQUEST_BYTES = 1 << 16
_STALLED_SECONDS = 5.0  # what clients get to take their answers when the owner ends
_KINDS = (DamagedError, EngineError, ModelMissing, ModelError, NameTaken, SourceChanged, StoreBusy, StoreFull, StoreTooNew, UserError)
_ERRORS: dict[str, type[SdfsError]] = {kind.__name__: kind for kind in _KINDS}
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


# the owner's side


class ControlServer:
    """Serves `access` at `path` from its construction to `close`, each connection in a thread of its own."""

    def __init__(self, access: Access, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # left by an owner that was killed: there is only one
        self._path = path
        self._server = _Server(path, access)
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
    def __init__(self, path: str, access: Access) -> None:
        self.access = access
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
        line = self.rfile.readline(_MAX_REQUEST_BYTES)
        if not line:
            return
        try:
            request = json.loads(line)
            answer = _ANSWERS[request["request"]]
            self.send({"ok": answer(cast(_Server, self.server).access, self, **request["arguments"])})
        except SdfsError as error:
            name = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "UserError")
            self.send({"error": [name, str(error)]})
        except ConnectionError:
            raise
        except Exception as error:  # a bug, or a request of another version: the client is told, the owner lives on
            _log.exception("a request of the control socket failed")
            self.send({"error": ["UserError", f"the owner of the store failed: {type(error).__name__}: {error}"]})

    def send(self, message: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(message).encode() + b"\n")


class _Sender(io.RawIOBase):
    """A file whose content goes to the client."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._connection.send({"data": len(data)})
        self._connection.wfile.write(data)
        return len(data)


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
    "list": lambda access, _, path: [asdict(listed) for listed in access.list(path)],
    "read_to": _read_to,
    "recompress": lambda access, _, path, wish: asdict(access.recompress(path, Wish(**wish))),
    "usage": lambda access, _, path: asdict(access.usage(path)),
    "trashed": lambda access, _: [asdict(trashed) for trashed in access.trashed()],
    "restore": lambda access, _, name, folder: access.restore(name, folder),
    "empty_trash": lambda access, _: access.empty_trash(),
    "shutdown": lambda access, _: access.shutdown(),
}


# the others' side


class ControlClient:
    """`Access` through a socket. Raises ConnectionError or FileNotFoundError where nobody listens."""

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, source: Path, destination: str, sha256: str | None = None) -> str:
        return str(self._ask("add", source=os.path.abspath(source), destination=destination, sha256=sha256))

    def sync(self, progress: Callable[[int, int], None]) -> None:
        self._ask("sync", on_progress=progress)

    def settle(self, path: str, seconds: float) -> FileStatus:
        return FileStatus(**self._ask("settle", path=path, seconds=seconds))

    def find(self, sha256: str, size: int) -> FileStatus | None:
        found = self._ask("find", sha256=sha256, size=size)
        return None if found is None else FileStatus(**found)

    def hand_over(self) -> None:
        self._ask("hand_over")

    def status(self) -> StoreStatus:
        return StoreStatus(**self._ask("status"))

    def statistics(self) -> Statistics:
        return Statistics(**self._ask("statistics"))

    def stat(self, path: str) -> FileStatus:
        return FileStatus(**self._ask("stat", path=path))

    def list(self, path: str) -> list[Listed]:
        return [Listed(**listed) for listed in self._ask("list", path=path)]

    def read_to(self, path: str, file: BinaryIO, model: str | None = None) -> None:
        self._ask("read_to", on_data=file, path=path, model=model)

    def recompress(self, path: str, wish: Wish) -> FileStatus:
        return FileStatus(**self._ask("recompress", path=path, wish=asdict(wish)))

    def usage(self, path: str) -> Usage:
        return Usage(**self._ask("usage", path=path))

    def trashed(self) -> Sequence[Trashed]:
        return [Trashed(**trashed) for trashed in self._ask("trashed")]

    def restore(self, name: str, folder: str | None) -> str:
        return str(self._ask("restore", name=name, folder=folder))

    def empty_trash(self) -> None:
        self._ask("empty_trash")

    def shutdown(self) -> None:
        self._ask("shutdown")

    def probe(self) -> None:
        """Raises as all do where nobody listens."""
        self._connect().close()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(
        self,
        request: str,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        on_data: BinaryIO | None = None,
        **arguments: object,
    ) -> Any:
        with self._connect() as connection, connection.makefile("rb") as answers:
            connection.sendall(json.dumps({"request": request, "arguments": arguments}).encode() + b"\n")
            for line in answers:
                answer = json.loads(line)
                if "ok" in answer:
                    return answer["ok"]
                if "error" in answer:
                    name, message = answer["error"]
                    raise _ERRORS.get(name, UserError)(message)
                if on_progress is not None and "progress" in answer:
                    on_progress(*answer["progress"])
                if on_data is not None and "data" in answer:
                    on_data.write(answers.read(answer["data"]))
        raise StoreBusy("the process that owns the store ended before it answered: try again")
