"""sdfs.control and sdfs.owner.access: a store used by several processes at once, through the one that owns it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sdfs.control import server
from sdfs.control.client import ControlClient
from sdfs.control.requests import Access
from sdfs.control.server import socket_path
from sdfs.errors import DamagedError, NameTaken, NotAStore, StoreBusy, UserError
from sdfs.owner.access import open_access, take_over
from sdfs.owner.owner import Owner
from sdfs.owner.services import Services
from sdfs.owner.store.store import Store
from tests.support.lossless_engine import PICTURE, LosslessEngine

open_store = partial(open_access, become_owner=partial(Owner, engine=LosslessEngine))


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "picture").write_bytes(PICTURE)
    return tmp_path / "picture"


@pytest.fixture
def owner(root: Path) -> Iterator[Access]:
    with open_store(root) as owner:
        yield owner


@pytest.fixture
def client(owner: Access, root: Path) -> Iterator[Access]:
    with open_store(root) as client:
        assert isinstance(client, ControlClient)
        yield client


def content(access: Access, path: str) -> bytes:
    file = io.BytesIO()
    access.read_to(path, file)
    return file.getvalue()


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAStore), open_store(tmp_path):
        pass


def test_without_an_owner_one_becomes_it(root: Path, picture: Path) -> None:
    with open_store(root) as access:
        access.add(picture, "a.jpg")
        access.sync(lambda done, total: None)
        assert access.stat("a.jpg").state == "exact"


def test_an_owner_that_does_not_listen_is_busy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdfs.owner.access._HANDOVER_SECONDS", 0.1)
    store = Store(root)
    with pytest.raises(StoreBusy), open_store(root):
        pass
    store.close()


OWN = """
import sys
from pathlib import Path
from sdfs.owner.access import open_access
with open_access(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_an_owner_that_is_stopped_is_busy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdfs.owner.access._HANDOVER_SECONDS", 0.1)
    monkeypatch.setattr("sdfs.control.client._PROBE_SECONDS", 0.1)
    with subprocess.Popen([sys.executable, "-c", OWN, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreBusy, match=f"process {process.pid}"), open_store(root):
            pass
        process.send_signal(signal.SIGCONT)


@pytest.mark.usefixtures("owner")
def test_the_socket_is_where_the_design_says(root: Path, runtime_folder: Path) -> None:
    status = root.stat()
    assert Path(socket_path(str(root))) == runtime_folder / "sdfs" / f"{status.st_dev:x}-{status.st_ino:x}.sock"
    assert (runtime_folder / "sdfs").stat().st_mode & 0o777 == 0o700


def test_the_socket_goes_with_its_owner(root: Path, runtime_folder: Path) -> None:
    with open_store(root):
        assert len(list((runtime_folder / "sdfs").iterdir())) == 1
    assert list((runtime_folder / "sdfs").iterdir()) == []


def test_the_socket_of_a_killed_owner_is_replaced(root: Path) -> None:
    Path(socket_path(str(root))).touch()
    with open_store(root) as owner, open_store(root) as client:
        assert client.status() == owner.status()


def test_a_folder_for_sockets_that_others_may_enter_is_refused(root: Path, runtime_folder: Path) -> None:
    (runtime_folder / "sdfs").mkdir(mode=0o755)
    with pytest.raises(UserError, match="0700"), open_store(root):
        pass


def test_add_and_read(client: Access, picture: Path) -> None:
    client.add(picture, "d/a.jpg")
    assert content(client, "d/a.jpg") == PICTURE


def test_add_takes_paths_relative_to_the_client(client: Access, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(picture.parent)
    client.add(Path(picture.name), "a.jpg")
    assert client.stat("a.jpg").logical_bytes == len(PICTURE)


def test_an_undecodable_name(client: Access, picture: Path) -> None:
    client.add(picture, "\udcff.jpg")
    assert content(client, "\udcff.jpg") == PICTURE


def test_sync_tells_of_its_progress(client: Access, picture: Path) -> None:
    for name in "abc":
        client.add(picture, name)
    told: list[tuple[int, int]] = []
    client.sync(lambda done, total: told.append((done, total)))
    assert told[-1] == (3, 3)
    assert client.stat("a").state == "exact"


def test_both_see_the_same(owner: Access, client: Access, picture: Path) -> None:
    client.add(picture, "a")
    assert client.stat("a") == owner.stat("a")
    assert client.list("/") == owner.list("/")


def test_statistics_come_through_the_socket(owner: Access, client: Access, picture: Path) -> None:
    client.add(picture, "a")
    client.sync(lambda done, total: None)
    content(client, "a")
    told = client.statistics()
    assert (told.pid, told.decoded, told.decoded_megapixels) == (os.getpid(), 1, owner.statistics().decoded_megapixels)
    assert client.status() == owner.status()


def test_a_users_mistake_comes_back_as_such(client: Access) -> None:
    with pytest.raises(UserError, match="nowhere: No such file or directory"):
        client.stat("nowhere")


def test_damage_comes_back_as_such(client: Access, picture: Path, root: Path) -> None:
    client.add(picture, "a")
    client.sync(lambda done, total: None)
    content_ = bytearray((root / "a").read_bytes())
    content_[-1] ^= 1
    (root / "a").write_bytes(content_)
    with pytest.raises(DamagedError):
        content(client, "a")


def test_a_store_that_is_not_mounted_cannot_be_shut_down(client: Access) -> None:
    with pytest.raises(UserError, match="not mounted"):
        client.shutdown()


@pytest.mark.parametrize(
    "request_", [b"no JSON\n", b"{}\n", b'{"sdfs": 1, "request": "format", "arguments": {}}\n', b'{"sdfs": 1, "request": []}\n', b"\n"]
)
def test_nonsense_is_answered_and_harms_nobody(owner: Access, root: Path, request_: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(socket_path(str(root)))
        connection.sendall(request_)
        answer = json.loads(connection.makefile().readline())
    assert answer["error"][0] == "UserError"
    assert owner.status().pid == os.getpid()


def test_a_client_that_never_asks_does_not_keep_the_owner(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_STALLED_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        with open_store(root):
            silent.connect(socket_path(str(root)))
            with open_store(root) as client:
                client.status()
        with open_store(root) as next_owner:
            assert isinstance(next_owner, Services)


class TestContentThatIsThere:
    """Asked through the socket: what is in the store need not be brought again."""

    def test_is_found_as_a_blob(self, client: Access, picture: Path) -> None:
        client.add(picture, "a/b.jpg")
        client.sync(lambda done, total: None)
        found = client.find(hashlib.sha256(PICTURE).hexdigest(), len(PICTURE))
        assert found is not None
        assert (found.path, found.state) == ("/a/b.jpg", "exact")

    def test_is_found_as_a_plain_file(self, client: Access, tmp_path: Path) -> None:
        (tmp_path / "text").write_bytes(b"text")
        client.add(tmp_path / "text", "text")
        found = client.find(hashlib.sha256(b"text").hexdigest(), 4)
        assert found is not None
        assert (found.path, found.state) == ("/text", "plain")

    def test_is_found_by_the_next_owner(self, root: Path, picture: Path) -> None:
        with open_store(root) as owner:
            owner.add(picture, "b.jpg")
            owner.sync(lambda done, total: None)
        with open_store(root) as owner:
            owner.sync(lambda done, total: None)
            assert owner.find(hashlib.sha256(PICTURE).hexdigest(), len(PICTURE)) is not None

    def test_is_found_where_it_was_renamed_to(self, owner: Services, picture: Path) -> None:
        owner.add(picture, "a/b.jpg")
        owner.sync(lambda done, total: None)
        owner.tree.rename("/a", "/c")
        owner.tree.rename("/c/b.jpg", "/c/d.jpg")
        found = owner.find(hashlib.sha256(PICTURE).hexdigest(), len(PICTURE))
        assert found is not None
        assert found.path == "/c/d.jpg"

    def test_is_not_found_where_the_blob_is_damaged(self, client: Access, root: Path, picture: Path) -> None:
        client.add(picture, "b.jpg")
        client.sync(lambda done, total: None)
        blob = bytearray((root / "b.jpg").read_bytes())
        blob[-1] ^= 1
        (root / "b.jpg").write_bytes(blob)
        assert client.find(hashlib.sha256(PICTURE).hexdigest(), len(PICTURE)) is None

    def test_is_not_found_once_it_was_removed(self, owner: Services, picture: Path) -> None:
        owner.add(picture, "b.jpg")
        owner.sync(lambda done, total: None)
        owner.tree.unlink("/b.jpg")
        assert owner.find(hashlib.sha256(PICTURE).hexdigest(), len(PICTURE)) is None

    def test_is_not_found_in_the_trash(self, owner: Services, picture: Path) -> None:
        owner.add(picture, "b.jpg")
        owner.sync(lambda done, total: None)
        owner.tree.truncate("/b.jpg", 0)
        owner.tree.content_index.by_id("of no blob")  # looks into the trash
        assert owner.find(hashlib.sha256(PICTURE).hexdigest(), len(PICTURE)) is None


def test_settle_waits_until_a_picture_is_a_blob(client: Access, picture: Path) -> None:
    client.add(picture, "b.jpg")
    assert client.settle("b.jpg", 60).state == "exact"


def test_settle_waits_no_longer_than_it_is_told_to(owner: Services, picture: Path) -> None:
    owner.add(picture, "b.jpg")
    handle = owner.tree.open("/b.jpg", os.O_RDONLY)
    try:
        assert owner.settle("b.jpg", 0.1).state == "pending"
    finally:
        owner.tree.release(handle)


def test_a_name_that_is_taken_is_told_apart(client: Access, picture: Path) -> None:
    client.add(picture, "b.jpg")
    with pytest.raises(NameTaken):
        client.add(picture, "b.jpg")


class TestTakingOver:
    def test_an_owner_that_can_lets_go(self, root: Path) -> None:
        asked = threading.Event()

        def own() -> None:
            with open_access(root, become_owner=partial(Owner, engine=LosslessEngine), on_hand_over=asked.set):
                ready.set()
                asked.wait(30)

        ready = threading.Event()
        thread = threading.Thread(target=own)
        thread.start()
        ready.wait(30)
        take_over(root, become_owner=partial(Owner, engine=LosslessEngine)).close()
        thread.join()
        assert asked.is_set()

    def test_an_owner_that_needs_the_store_for_itself_keeps_it(self, root: Path, owner: Services) -> None:
        with pytest.raises(StoreBusy, match=f"process {os.getpid()}"):
            take_over(root, become_owner=partial(Owner, engine=LosslessEngine))
