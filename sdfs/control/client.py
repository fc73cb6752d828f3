"""The others' side of the control socket."""

# Paths need not be decodable.
# ruff: noqa: PTH100
from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from sdfs.control.protocol import parse_error
from sdfs.errors import StoreBusy
from sdfs.tree.status import FileStatus, Listed, Statistics, StoreStatus, Trashed, Usage, Wish

_PROBE_SECONDS = 5.0


class ControlClient:
    """`Access` through a socket. Raises ConnectionError or FileNotFoundError where nobody listens.

    An answer may take as long as the work for it, which may be hours: only `probe` tells an owner that is at work from one that is stuck.
    """

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
        """Raises as all do where nobody listens, and TimeoutError or BlockingIOError where nobody answers, as of a stopped process."""
        self._ask("ping", timeout_seconds=_PROBE_SECONDS)

    def _connect(self, timeout_seconds: float | None) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_seconds)
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
        timeout_seconds: float | None = None,
        **arguments: object,
    ) -> Any:
        with self._connect(timeout_seconds) as connection, connection.makefile("rb") as answers:
            connection.sendall(json.dumps({"request": request, "arguments": arguments}).encode() + b"\n")
            for line in answers:
                answer = json.loads(line)
                if "ok" in answer:
                    return answer["ok"]
                if "error" in answer:
                    raise parse_error(*answer["error"])
                if on_progress is not None and "progress" in answer:
                    on_progress(*answer["progress"])
                if on_data is not None and "data" in answer:
                    on_data.write(answers.read(answer["data"]))
        raise StoreBusy("the process that owns the store ended before it answered: try again")
