"""Read-ahead: which pictures are decoded before anybody asks for them."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from sdfs.errors import DamagedError
from sdfs.owner.owner import Owner
from sdfs.owner.store.store import init
from tests.support.lossless_engine import LosslessEngine
from tests.support.waiting import eventually

NAMES = [f"{n:02}.jpg" for n in range(20)]
PICTURES = 4


class Engine(LosslessEngine):
    """Notes what it decodes, a letter of each name: `r` for a reader, `a` ahead of one; decodes wait for `may_decode`."""

    def __init__(self) -> None:
        self.decodes: list[tuple[str, str]] = []
        self.hurried: list[str] = []
        self.may_decode = threading.Event()
        self.may_decode.set()
        self.broken = False
        self.seconds = 0.0  # that a decode takes

    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]:
        content = super().decode(key, blob)
        self.decodes.append(("a" if ahead else "r", content.result()[3:9].decode()))

        answer: Future[bytes] = Future()

        def work() -> None:
            assert self.may_decode.wait(10)
            time.sleep(self.seconds)
            if self.broken and ahead:
                answer.set_exception(DamagedError("as told"))
            else:
                answer.set_result(content.result())

        threading.Thread(target=work).start()
        return answer

    def hurry(self, key: str) -> None:
        self.hurried.append(key)

    def ahead(self) -> list[str]:
        return [name for who, name in self.decodes if who == "a"]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def store(tmp_path: Path, engine: Engine) -> Path:
    """One with the shrunk pictures NAMES in the folder `f`, some of them followed by a text, and none of them in memory."""
    init(tmp_path / "store")
    (tmp_path / "store" / "f").mkdir()
    for name in NAMES:
        (tmp_path / "store" / "f" / name).write_bytes(b"\xff\xd8\xff" + name.encode() + b" picture" * 1000 + b"END")
        (tmp_path / "store" / "f" / f"{name}.txt").write_bytes(b"text")
    with_pictures = Owner(tmp_path / "store", engine=lambda: engine)
    with_pictures.services.sync(lambda done, total: None)
    with_pictures.close()
    return tmp_path / "store"


@pytest.fixture
def owner(store: Path, engine: Engine) -> Iterator[Owner]:
    owner = Owner(store, engine=lambda: engine, read_ahead=PICTURES)
    yield owner
    owner.close()


def read(owner: Owner, name: str) -> bytes:
    file = io.BytesIO()
    owner.services.read_to(f"f/{name}", file)
    return file.getvalue()


def settled(owner: Owner, engine: Engine) -> list[str]:
    """What was decoded ahead once nothing more comes of it."""
    assert owner.tree.read_ahead is not None
    owner.tree.read_ahead.close()
    return sorted(engine.ahead())


def test_the_first_read_in_a_folder_says_nothing(owner: Owner, engine: Engine) -> None:
    read(owner, "05.jpg")
    assert settled(owner, engine) == []


@pytest.mark.parametrize(("first", "second"), [("05.jpg", "06.jpg"), ("05.jpg", "07.jpg")], ids=["the next", "the one after it"])
def test_two_reads_in_the_order_of_names_bring_the_following(owner: Owner, engine: Engine, first: str, second: str) -> None:
    read(owner, first)
    read(owner, second)
    eventually(lambda: len(engine.ahead()) == PICTURES)
    at = NAMES.index(second) + 1
    assert settled(owner, engine) == NAMES[at : at + PICTURES]


def test_two_reads_in_the_order_of_the_listing_bring_the_following(owner: Owner, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdfs.owner.renders.read_ahead.os.listdir", lambda path: NAMES[::-1])
    read(owner, "06.jpg")
    read(owner, "05.jpg")
    eventually(lambda: len(engine.ahead()) == PICTURES)
    assert settled(owner, engine) == ["01.jpg", "02.jpg", "03.jpg", "04.jpg"]


@pytest.mark.parametrize(("first", "second"), [("05.jpg", "15.jpg"), ("05.jpg", "05.jpg")], ids=["far apart", "the same"])
def test_reads_in_no_order_bring_nothing(owner: Owner, engine: Engine, first: str, second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdfs.owner.renders.read_ahead.os.listdir", lambda path: NAMES)
    read(owner, first)
    read(owner, second)
    assert settled(owner, engine) == []


def test_a_whole_folder_is_decoded_once(owner: Owner, engine: Engine) -> None:
    engine.seconds = 0.02
    for name in NAMES:
        assert read(owner, name)[3:9].decode() == name
    assert sorted(name for _, name in engine.decodes) == NAMES
    assert len(engine.ahead()) > len(NAMES) // 2
    assert owner.services.statistics().decoded_ahead == len(engine.ahead())


def test_who_reads_what_is_decoded_ahead_waits_for_that_and_hurries_it(owner: Owner, engine: Engine) -> None:
    read(owner, "05.jpg")
    read(owner, "06.jpg")
    eventually(lambda: owner.renders.cache.misses == 2 + PICTURES and owner.services.statistics().decoded == 2 + PICTURES)
    engine.may_decode.clear()
    read(owner, "07.jpg")
    eventually(lambda: "11.jpg" in engine.ahead())
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read, owner, "11.jpg")
        eventually(lambda: bool(engine.hurried))
        engine.may_decode.set()
        assert reader.result(10)[3:9] == b"11.jpg"
    assert [name for _, name in engine.decodes].count("11.jpg") == 1


def test_what_fails_ahead_of_a_reader_harms_nobody(owner: Owner, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.broken = True
    for name in NAMES[:2]:  # a third reader might share the failure of what is under way
        read(owner, name)
    eventually(lambda: len(engine.ahead()) > 0)
    settled(owner, engine)
    engine.decodes.clear()
    assert read(owner, "03.jpg")[3:9] == b"03.jpg"
    assert engine.decodes == [("r", "03.jpg")]
    assert not caplog.records


def test_pictures_too_large_for_the_cache_are_left_alone(store: Path, engine: Engine) -> None:
    owner = Owner(store, engine=lambda: engine, read_ahead=PICTURES, cache_bytes=2 * PICTURES * 5000)
    read(owner, "05.jpg")
    read(owner, "06.jpg")
    assert settled(owner, engine) == []
    owner.close()


def test_a_folder_that_changes_is_looked_at_again(owner: Owner, engine: Engine, tmp_path: Path) -> None:
    read(owner, "05.jpg")
    read(owner, "06.jpg")
    eventually(lambda: len(engine.ahead()) == PICTURES)
    (tmp_path / "store" / "f" / "11.jpg").rename(tmp_path / "store" / "f" / "07a.jpg")
    read(owner, "07.jpg")
    eventually(lambda: "11.jpg" in engine.ahead())
