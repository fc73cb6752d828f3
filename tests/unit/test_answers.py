"""sdfs.control: who answers at a socket is believed only if it is the owner of the store, and only what an owner can say."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sdfs.control import client as client_module
from sdfs.control.answers import Wish
from sdfs.control.client import ControlClient
from sdfs.control.requests import REQUESTS, VERSION, Access
from sdfs.control.server import ControlServer
from sdfs.errors import StoreBusy, UserError
from sdfs.owner.owner import Owner
from sdfs.owner.services import Services
from sdfs.owner.store.store import Store, init, read_identity
from sdfs.system.file_id import Identity
from tests.support.lossless_engine import LosslessEngine

IDENTITY = Identity(1, 2, "a" * 64)
LISTED = {"path": "/a/b", "state": "plain", "logical_bytes": 1, "stored_bytes": 1, "mtime_ns": 1}
STATUS = {"path": "/x", "state": "latent", "logical_bytes": 1, "stored_bytes": 1}


@contextlib.contextmanager
def answering(path: Path, shown: object, answer: bytes, version: int = VERSION) -> Iterator[ControlClient]:
    """A process that shows an identity, and then says `answer` to any request."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, connection.makefile("rb") as asked, contextlib.suppress(OSError):
                        asked.readline()
                        connection.sendall(line(sdfs=version, ok=shown))
                        if asked.readline():
                            connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ControlClient(str(path), IDENTITY)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def line(**answer: object) -> bytes:
    return json.dumps({"sdfs": VERSION, **answer}).encode() + b"\n"


def test_the_owner_is_known_by_what_it_shows(tmp_path: Path) -> None:
    with answering(tmp_path / "socket", asdict(IDENTITY), line(ok=STATUS)) as client:
        client.probe()
        assert client.stat("x").path == "/x"


@pytest.mark.parametrize(
    "shown",
    [
        None,
        [],
        {},
        "yes",
        *(asdict(replace(IDENTITY, **change)) for change in ({"device": 3}, {"inode": 3}, {"secret": ""}, {"secret": "b" * 64})),
        {**asdict(IDENTITY), "secret": None},
        {**asdict(IDENTITY), "inode": True},
    ],
)
def test_who_shows_something_else_is_not_believed(tmp_path: Path, shown: object) -> None:
    with answering(tmp_path / "socket", shown, line(ok=None)) as client:
        for ask in (client.probe, client.empty_trash):
            with pytest.raises(StoreBusy, match="not the owner of this store"):
                ask()


def test_a_store_without_a_secret_has_no_owner_that_is_believed(tmp_path: Path) -> None:
    with answering(tmp_path / "socket", asdict(replace(IDENTITY, secret="")), line(ok=None)), pytest.raises(StoreBusy):
        ControlClient(str(tmp_path / "socket"), replace(IDENTITY, secret="")).probe()


def test_who_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PROBE_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        with pytest.raises(TimeoutError):
            ControlClient(str(tmp_path / "socket"), IDENTITY).probe()


def test_who_stops_within_an_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_LINE_SECONDS", 0.2)
    with answering(tmp_path / "socket", asdict(IDENTITY), line(data=100) + b"abc") as client, pytest.raises(StoreBusy):
        client.read_to("x", io.BytesIO())


ASKED: dict[str, Callable[[ControlClient], Any]] = {
    "list": lambda client: client.list("/a"),
    "stat": lambda client: client.stat("x"),
    "find": lambda client: client.find("0" * 64, 1),
    "usage": lambda client: client.usage("/"),
    "trashed": lambda client: client.trashed(),
    "add": lambda client: client.add(Path("x"), "x"),
    "restore": lambda client: client.restore("x", None),
    "status": lambda client: client.status(),
    "statistics": lambda client: client.statistics(),
    "read": lambda client: client.read_to("x", io.BytesIO()),
    "sync": lambda client: client.sync(lambda done, total: None),
    "recompress": lambda client: client.recompress("x", Wish({}, accept_loss=False)),
}
WRONG_PATHS = ("/a/..", "/a/", "/a/.", "", "/", "/b/c", "/a/b/c", "a/b", "/a/b\0", "//b")
WRONG = [
    *(
        ("list", line(part=[{**LISTED, "path": path}]))
        for path in ("/a/..", "/a/", "/a/.", "", "/", "/b/c", "/a/b/c", "a/b", "/a/b\0", "//b")
    ),
    *(("list", line(part=[{**LISTED, "mtime_ns": value}])) for value in (1e300, 10**30, "1", None, True)),
    ("list", line(part=[{**LISTED, "mtime_ns": math.nan}])),
    *(("list", line(part=part)) for part in (None, 5, {}, [None], [5], [{"path": "/a/b"}], [{**LISTED, "state": "evil"}])),
    *(("stat", line(ok=status)) for status in (None, 5, [], {}, {**STATUS, "path": 1}, {**STATUS, "scores": {"psnr": "96"}})),
    *(("stat", line(ok={**STATUS, "path": path})) for path in ("/..", "x", "/a/../x")),
    ("find", line(ok=[])),
    ("usage", line(ok=[])),
    *(
        ("trashed", line(part=part))
        for part in ({"a": 1}, [{"name": "../x", "path": None, "logical_bytes": 1, "stored_bytes": 1, "trashed_ns": 1}])
    ),
    *(("add", line(ok=path)) for path in (None, {"a": 1}, "x", "/../x", "/\0")),
    ("restore", line(ok=[])),
    ("status", line(ok=7)),
    ("statistics", line(ok=None)),
    ("recompress", line(ok=None)),
    *(("read", line(data=size) + b"abc") for size in (-1, 0, 1 << 40, 1.5, "3", None)),
    *(("sync", line(progress=value)) for value in (None, [1], ["a", "b"], 5)),
    *(("sync", line(error=value)) for value in (None, [], "x", [1, 2], ["UserError"])),
    *(("sync", answer) for answer in (b"no JSON\n", b"5\n", b'{"ok": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", b"\xff\xfe\n")),
]


@pytest.mark.parametrize(("asked", "answer"), WRONG, ids=range(len(WRONG)))
def test_what_no_owner_says_is_refused_in_a_sentence(tmp_path: Path, asked: str, answer: bytes) -> None:
    with answering(tmp_path / "socket", asdict(IDENTITY), answer) as client, pytest.raises(UserError, match="as no owner of a store does"):
        ASKED[asked](client)


def test_a_line_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_LINE_BYTES", 1 << 16)
    with answering(tmp_path / "socket", asdict(IDENTITY), b"a" * (1 << 20)) as client, pytest.raises(UserError, match="without an end"):
        client.status()


def test_an_error_is_of_a_class_that_is_known(tmp_path: Path) -> None:
    answer = line(error=["SystemExit", "gone"])
    with answering(tmp_path / "socket", asdict(IDENTITY), answer) as client, pytest.raises(UserError, match="gone"):
        client.status()


def test_a_field_of_another_version_is_passed_over(tmp_path: Path) -> None:
    with answering(tmp_path / "socket", asdict(IDENTITY), line(ok={**STATUS, "later": 1})) as client:
        assert client.stat("x").state == "latent"


class TestTheSecret:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        init(tmp_path / "store")
        return tmp_path / "store"

    def test_is_readable_by_its_user_alone(self, root: Path) -> None:
        assert (root / ".sdfs" / "secret").stat().st_mode & 0o777 == 0o600

    def test_is_another_for_each_owner(self, root: Path) -> None:
        shown = set()
        for _ in range(2):
            store = Store(root)
            store.announce("/run/socket")
            assert store.identity == read_identity(root)
            shown.add(store.identity.secret)
            store.close()
        assert {len(secret) for secret in shown} == {64}
        assert len(shown) == 2

    def test_is_none_where_others_may_read_it(self, root: Path) -> None:
        store = Store(root)
        store.announce("/run/socket")
        (root / ".sdfs" / "secret").chmod(0o644)
        assert read_identity(root).secret == ""
        store.close()


class TestAnotherVersion:
    """Neither side ends in anything but a sentence that names both versions."""

    def test_of_the_owner_is_told_to_the_client(self, tmp_path: Path) -> None:
        with answering(tmp_path / "socket", asdict(IDENTITY), line(ok=None), version=VERSION + 1) as client:
            for ask in (client.probe, client.empty_trash):
                with pytest.raises(StoreBusy, match=f"speaks version {VERSION + 1} .* this program version {VERSION}"):
                    ask()

    def test_of_the_client_is_told_to_it(self, asking: Callable[[bytes], dict[str, Any]]) -> None:
        name, message = asking(json.dumps({"sdfs": VERSION + 1, "request": "status", "arguments": {}}).encode())["error"]
        assert name == "StoreBusy"
        assert f"version {VERSION} " in message
        assert f"version {VERSION + 1} " in message


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Callable[[bytes], dict[str, Any]]]:
    """Send a line to the owner of a store, and return its last answer."""
    init(tmp_path / "store")
    owner = Owner(tmp_path / "store", engine=LosslessEngine)
    server = ControlServer(owner.services, lambda: owner.store.identity, str(tmp_path / "owner"))

    def ask(line: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "owner"))
            connection.sendall(line + b"\n")
            *_, last = connection.makefile()
        answer: dict[str, Any] = json.loads(last)
        return answer

    yield ask
    server.close()
    owner.close()


def request_line(request: str, **arguments: object) -> bytes:
    return json.dumps({"sdfs": VERSION, "request": request, "arguments": arguments}).encode()


def test_an_argument_of_another_version_is_passed_over(asking: Callable[[bytes], dict[str, Any]]) -> None:
    assert "ok" in asking(request_line("list", path="/", later=1))


def test_an_argument_that_is_missing_takes_its_default(asking: Callable[[bytes], dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text")
    assert asking(request_line("add", source=str(tmp_path / "text"), destination="a"))["ok"] == "/a"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (request_line("thumbnail"), "knows no request 'thumbnail'"),
        (request_line("stat"), "no path"),
        (request_line("stat", path=5), "no str"),
        (request_line("settle", path="x", seconds="long"), "no float"),
        (request_line("recompress", path="x", wish={"changes": 5, "accept_loss": False}), "a wrong changes of Wish"),
        (json.dumps({"sdfs": VERSION, "request": "stat"}).encode(), "arguments that are no object"),
    ],
)
def test_a_wrong_request_is_refused_in_a_sentence(asking: Callable[[bytes], dict[str, Any]], line: bytes, why: str) -> None:
    name, message = asking(line)["error"]
    assert name == "UserError"
    assert why in message


def test_client_and_owner_have_the_methods_of_the_table() -> None:
    assert len(REQUESTS) == 18
    for name, request in REQUESTS.items():
        assert request.signature == inspect.signature(getattr(Access, name))
        names = list(request.signature.parameters)
        assert names == list(inspect.signature(getattr(Services, name)).parameters)
        assert request.result is not inspect.Parameter.empty
