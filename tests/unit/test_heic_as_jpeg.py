"""Services.add of a HEIC that is to become a JPEG: under which name, with which attributes, and what becomes of others."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from sdfs.errors import EngineError, NameTaken, SourceChanged, UserError
from sdfs.owner.access import holds
from sdfs.owner.jobs.importing import jpeg_name
from sdfs.owner.owner import Owner
from sdfs.owner.store.store import init
from sdfs.settings import EncodeSettings
from tests.support.lossless_engine import DEEP_HEIC, HEIC, JPEG_OF_HEIC, PICTURE, LosslessEngine
from tests.support.trees import is_blob, read, shrink


class CountingEngine(LosslessEngine):
    def __init__(self) -> None:
        self.converted = 0
        self.fails = False

    def convert(self, data: bytes, settings: EncodeSettings) -> Future[bytes]:
        self.converted += 1
        if not self.fails:
            return super().convert(data, settings)
        future: Future[bytes] = Future()
        future.set_exception(EngineError("the engine process died on this picture"))
        return future


@pytest.fixture
def root(tmp_path: Path) -> Path:
    init(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def owner(root: Path, engine: CountingEngine) -> Iterator[Owner]:
    owner = Owner(root, engine=lambda: engine)
    yield owner
    owner.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    return tmp_path / "IMG_1.HEIC"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a.heic", "/a.jpg"),
        ("/b.c/IMG_1.HEIC", "/b.c/IMG_1.jpg"),
        ("/a.heif", "/a.jpg"),
        ("/a.HIF", "/a.jpg"),
        ("/a.avif", "/a.jpg"),
        ("/a.tar.heic", "/a.tar.jpg"),
        ("/a.JPG", "/a.JPG"),
        ("/a.jpeg", "/a.jpeg"),
        ("/a.png", "/a.png.jpg"),
        ("/a", "/a.jpg"),
        ("/.heic", "/.heic.jpg"),
        ("/\udcff.heic", "/\udcff.jpg"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert jpeg_name(path) == name


def test_it_is_a_jpeg_at_once(owner: Owner, root: Path, source: Path) -> None:
    assert owner.services.add(source, "2024/IMG_1.HEIC", heic="jpeg") == "/2024/IMG_1.jpg"
    assert is_blob(root / "2024" / "IMG_1.jpg")
    assert read(owner.tree, "/2024/IMG_1.jpg") == JPEG_OF_HEIC
    assert os.listdir(root / "2024") == ["IMG_1.jpg"]
    assert os.listdir(root / ".sdfs" / "staging") == []


def test_it_stays_as_it_comes_unless_asked(owner: Owner, source: Path) -> None:
    assert owner.services.add(source, "a.heic") == "/a.heic"
    shrink(owner)
    assert read(owner.tree, "/a.heic") == HEIC


@pytest.mark.parametrize("mode", [0o640, 0o444])
def test_times_permissions_and_attributes_are_the_files(owner: Owner, source: Path, mode: int) -> None:
    os.setxattr(source, "user.note", b"by the sea")
    os.chmod(source, mode)
    os.utime(source, ns=(1, 1_000_000_007))
    owner.services.add(source, "a.heic", heic="jpeg")
    attributes = owner.tree.getattr("/a.jpg")
    assert (stat.S_IMODE(attributes.mode), attributes.mtime_ns) == (mode, 1_000_000_007)
    assert owner.tree.getxattr("/a.jpg", "user.note") == b"by the sea"


def test_it_is_found_by_its_content_also_by_the_next_owner(root: Path, owner: Owner, source: Path) -> None:
    assert owner.services.add(source, "a.heic", sha256(HEIC), heic="jpeg") == "/a.jpg"
    assert holds(root, "/a.jpg", sha256(HEIC))
    for _ in range(2):
        found = owner.services.find(sha256(HEIC), len(HEIC))
        assert found is not None
        assert (found.path, found.original_bytes, found.original_sha256) == ("/a.jpg", len(HEIC), sha256(HEIC))
        owner.close()
        owner = Owner(root, engine=LosslessEngine)
    owner.close()


def test_it_is_stored_once(owner: Owner, engine: CountingEngine, source: Path) -> None:
    for name in ("a.heic", "b.heic"):
        assert owner.services.add(source, name, sha256(HEIC), heic="jpeg") == "/a.jpg"
    assert engine.converted == 1


def test_a_taken_name_is_left_alone_before_anything_is_converted(owner: Owner, engine: CountingEngine, root: Path, source: Path) -> None:
    (root / "a.jpg").write_bytes(b"mine")
    with pytest.raises(NameTaken):
        owner.services.add(source, "a.heic", heic="jpeg")
    assert (engine.converted, (root / "a.jpg").read_bytes()) == (0, b"mine")


def test_the_name_of_what_stays_a_heic_may_be_taken_too(owner: Owner, root: Path, source: Path) -> None:
    (root / "a.heic").write_bytes(b"mine")
    source.write_bytes(DEEP_HEIC)
    with pytest.raises(NameTaken):
        owner.services.add(source, "a.heic", heic="jpeg")
    assert sorted(os.listdir(root)) == [".sdfs", "a.heic"]


def test_what_cannot_be_a_jpeg_is_exact_with_its_reason(owner: Owner, source: Path) -> None:
    source.write_bytes(DEEP_HEIC)
    assert owner.services.add(source, "a.heic", heic="jpeg") == "/a.heic"
    status = owner.services.stat("a.heic")
    assert (status.state, status.reason) == ("exact", "tests keep every picture")
    assert read(owner.tree, "/a.heic") == DEEP_HEIC


def test_what_is_not_whole_is_plain(owner: Owner, source: Path) -> None:
    source.write_bytes(HEIC[:-3])
    assert owner.services.add(source, "a.heic", heic="jpeg") == "/a.heic"
    shrink(owner)
    assert owner.services.stat("a.heic").state == "plain"


def test_other_pictures_are_none_of_its_business(owner: Owner, engine: CountingEngine, source: Path) -> None:
    source.write_bytes(PICTURE)
    assert owner.services.add(source, "a.heic", heic="jpeg") == "/a.heic"
    assert engine.converted == 0


def test_nothing_is_stored_where_the_engine_fails(owner: Owner, engine: CountingEngine, root: Path, source: Path) -> None:
    engine.fails = True
    with pytest.raises(UserError, match="could not be made a JPEG, and is not in the store: the engine process died"):
        owner.services.add(source, "a.heic", heic="jpeg")
    assert os.listdir(root) == [".sdfs"]


def test_one_that_changes_is_not_taken(owner: Owner, root: Path, source: Path) -> None:
    with pytest.raises(SourceChanged):
        owner.services.add(source, "a.heic", sha256(b"what it was"), heic="jpeg")
    assert os.listdir(root) == [".sdfs"]


def test_one_that_could_not_be_made_durable_is_made_so(
    owner: Owner, engine: CountingEngine, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner.tree.durable_names, "sync", _fail)
        with pytest.raises(UserError):
            owner.services.add(source, "a.heic", heic="jpeg")
    assert owner.services.add(source, "a.heic", heic="jpeg") == "/a.jpg"
    assert engine.converted == 1
    with pytest.raises(NameTaken):
        owner.services.add(source, "a.heic", heic="jpeg")


def _fail(path: str) -> None:
    raise OSError("as on a broken disk")
