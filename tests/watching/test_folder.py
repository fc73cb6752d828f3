"""daemon.folder: what lands in a watched folder moves into the store. Real events, a real store, an engine that keeps pictures exactly."""

from __future__ import annotations

import io
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from daemon import folder as folder_module
from daemon import session as session_module
from daemon import taking
from daemon.config import make
from daemon.folder import FolderWatch
from daemon.ledger import Ledger, reports
from daemon.session import Session
from sdfs.blob.container import MAGIC
from sdfs.control.requests import Access
from sdfs.owner.access import open_access, take_over
from sdfs.owner.owner import Owner
from sdfs.owner.serving import serving
from sdfs.owner.store.store import init
from sdfs.system.backoff import Backoff
from tests.support.lossless_engine import DEEP_HEIC, HEIC, JPEG_OF_HEIC, LosslessEngine
from tests.support.waiting import eventually

own = partial(Owner, engine=LosslessEngine)
open_store = partial(open_access, become_owner=own)


def picture(name: str = "") -> bytes:
    return b"\xff\xd8\xff" + f"picture {name}".encode() * 100 + b"END"


class Place:
    """A watched folder, its store, and a watch that can be stopped and started again."""

    def __init__(self, root: Path) -> None:
        self.folder, self.store = root / "incoming", root / "store"
        self.folder.mkdir()
        init(self.store)
        self.settings: dict[str, object] = {"originals": "delete", "settle_seconds": 0.2}
        self._running = ExitStack()
        self.watch: FolderWatch | None = None

    def start(self) -> None:
        config = make(folder=str(self.folder), store=str(self.store), **self.settings)
        self.watch = FolderWatch(config, session=partial(Session, open_store=open_store))
        self.watch.start()
        self._running.callback(self.watch.join)
        self._running.callback(self.watch.stop)
        assert self.watch.ready.wait(30)

    def stop(self) -> None:
        self._running.close()

    def taken(self) -> dict[str, bytes]:
        """What the store has, by name: the contents of files that are not pending."""
        found = {}
        with open_store(self.store) as access:
            for path in _walk(access, ""):
                content = io.BytesIO()
                access.read_to(path, content)
                if access.stat(path).state != "pending":
                    found[path.lstrip("/")] = content.getvalue()
        return found

    def left(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}

    def wait_for_one_of(self, landing: threading.Thread) -> None:
        """Until one more is in the store, or there are no more."""
        before = len(os.listdir(self.store))
        eventually(lambda: len(os.listdir(self.store)) > before or not (landing.is_alive() or self.left()))

    def in_store(self, name: str) -> bool:
        """Looked at from outside, so that nobody has to own the store."""
        path = self.store / name
        return path.is_file() and path.read_bytes().startswith(MAGIC)

    def moved(self, *names: str) -> None:
        eventually(lambda: all(self.in_store(name) for name in names) and not self.left() & set(names))


def _walk(access: Access, folder: str) -> Iterator[str]:
    for listed in access.list(folder):
        if listed.state == "folder":
            yield from _walk(access, listed.path)
        else:
            yield listed.path


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setattr(folder_module, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(folder_module, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(session_module, "IDLE_SECONDS", 0.3)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.stop()


class TestWhatIsTaken:
    def test_a_picture_that_lands_there(self, place: Place) -> None:
        place.start()
        (place.folder / "a.jpg").write_bytes(picture())
        place.moved("a.jpg")
        place.stop()
        assert place.taken() == {"a.jpg": picture()}

    def test_a_picture_that_was_there_before(self, place: Place) -> None:
        (place.folder / "a.jpg").write_bytes(picture())
        place.start()
        place.moved("a.jpg")

    def test_a_heic_as_it_comes(self, place: Place) -> None:
        place.start()
        (place.folder / "a.heic").write_bytes(HEIC)
        place.moved("a.heic")
        place.stop()
        assert place.taken() == {"a.heic": HEIC}

    def test_a_heic_as_a_jpeg(self, place: Place) -> None:
        place.settings["heic"] = "jpeg"
        place.start()
        (place.folder / "a.HEIC").write_bytes(HEIC)
        eventually(lambda: place.in_store("a.jpg") and not place.left())
        place.stop()
        assert place.taken() == {"a.jpg": JPEG_OF_HEIC}

    def test_a_heic_that_cannot_be_a_jpeg_as_it_comes(self, place: Place) -> None:
        place.settings["heic"] = "jpeg"
        place.start()
        (place.folder / "a.heic").write_bytes(DEEP_HEIC)
        place.moved("a.heic")
        place.stop()
        assert place.taken() == {"a.heic": DEEP_HEIC}

    def test_a_heic_once_whatever_it_is_called(self, place: Place) -> None:
        place.settings["heic"] = "jpeg"
        for name in ("a.heic", "b.heic", "c.heic"):
            (place.folder / name).write_bytes(HEIC)
        place.start()
        eventually(lambda: not place.left())
        place.stop()
        place.start()
        (place.folder / "d.heic").write_bytes(HEIC)
        eventually(lambda: not place.left())
        place.stop()
        assert place.taken() == {"a.jpg": JPEG_OF_HEIC}

    def test_two_heics_of_one_name(self, place: Place) -> None:
        place.settings["heic"] = "jpeg"
        other = HEIC.replace(b"picture", b"another")
        for content in (HEIC, other):
            place.start()
            (place.folder / "a.heic").write_bytes(content)
            eventually(lambda: not place.left())
            place.stop()
        assert place.taken() == {"a.jpg": JPEG_OF_HEIC, "a-1.jpg": b"\xff\xd8\xff" + other}

    def test_pictures_in_folders_keep_them(self, place: Place) -> None:
        place.settings["to"] = "photos"
        place.start()
        (place.folder / "a/b").mkdir(parents=True)
        (place.folder / "a/b/c.jpg").write_bytes(picture())
        eventually(lambda: place.in_store("photos/a/b/c.jpg") and not place.left())

    def test_by_date(self, place: Place) -> None:
        place.settings["layout"] = "date"
        (place.folder / "a.jpg").write_bytes(picture())
        os.utime(place.folder / "a.jpg", (0, 86400 * 365 * 30))
        place.start()
        eventually(lambda: place.in_store("1999/12/a.jpg"))

    def test_no_other_files(self, place: Place) -> None:
        place.start()
        (place.folder / "a.txt").write_bytes(b"text")
        (place.folder / "b.jpg").write_bytes(picture())
        place.moved("b.jpg")
        assert place.left() == {"a.txt"}

    def test_other_files_where_all_are_asked_for(self, place: Place) -> None:
        place.settings["all_files"] = True
        place.start()
        (place.folder / "a.txt").write_bytes(b"text")
        eventually(lambda: (place.store / "a.txt").is_file() and not place.left())

    def test_an_undecodable_name(self, place: Place) -> None:
        place.start()
        Path(os.fsdecode(os.fsencode(place.folder) + b"/\xff.jpg")).write_bytes(picture())
        place.moved("\udcff.jpg")

    def test_a_file_with_several_names_only_once(self, place: Place) -> None:
        (place.folder / "a.jpg").write_bytes(picture())
        (place.folder / "b.jpg").hardlink_to(place.folder / "a.jpg")
        place.start()
        eventually(lambda: not place.left())
        place.stop()
        assert list(place.taken().values()) == [picture()]

    def test_a_content_that_the_store_has_only_once(self, place: Place) -> None:
        place.start()
        (place.folder / "a.jpg").write_bytes(picture())
        place.moved("a.jpg")
        (place.folder / "b.jpg").write_bytes(picture())
        eventually(lambda: not place.left())
        place.stop()
        assert place.taken() == {"a.jpg": picture()}

    def test_another_content_of_the_same_name_under_another(self, place: Place) -> None:
        place.start()
        (place.folder / "a.jpg").write_bytes(picture("1"))
        place.moved("a.jpg")
        (place.folder / "a.jpg").write_bytes(picture("2"))
        eventually(lambda: place.in_store("a-1.jpg") and not place.left())

    def test_not_what_is_temporary_until_it_is_renamed(self, place: Place) -> None:
        place.start()
        (place.folder / "a.jpg.part").write_bytes(picture())
        (place.folder / "b.jpg").write_bytes(picture("b"))
        place.moved("b.jpg")
        eventually(lambda: place.left() == {"a.jpg.part"})
        (place.folder / "a.jpg.part").rename(place.folder / "a.jpg")
        place.moved("a.jpg")

    def test_not_what_is_in_a_store_or_a_hidden_folder(self, place: Place) -> None:
        init(place.folder / "other")
        (place.folder / "other/a.jpg").write_bytes(picture())
        (place.folder / ".hidden").mkdir()
        (place.folder / ".hidden/a.jpg").write_bytes(picture())
        (place.folder / "b.jpg").write_bytes(picture("b"))
        place.start()
        place.moved("b.jpg")
        assert {"other/a.jpg", ".hidden/a.jpg"} <= place.left()

    def test_not_while_somebody_writes(self, place: Place) -> None:
        place.start()
        with (place.folder / "a.jpg").open("wb") as file:
            file.write(picture()[:100])
            file.flush()
            (place.folder / "b.jpg").write_bytes(picture("b"))
            place.moved("b.jpg")
            time.sleep(0.5)  # longer than it has to be quiet: nothing is to happen
            assert not (place.store / "a.jpg").exists()
            file.write(picture()[100:])
        place.moved("a.jpg")
        place.stop()
        assert place.taken()["a.jpg"] == picture()

    def test_a_folder_that_is_moved_in(self, place: Place, tmp_path: Path) -> None:
        place.start()
        (tmp_path / "made/deep").mkdir(parents=True)
        for number in range(20):
            (tmp_path / f"made/deep/{number}.jpg").write_bytes(picture(str(number)))
        (tmp_path / "made").rename(place.folder / "made")
        place.moved(*(f"made/deep/{number}.jpg" for number in range(20)))

    def test_by_polling(self, place: Place) -> None:
        place.settings |= {"polling": True, "rescan_seconds": 1.0}
        place.start()
        (place.folder / "a.jpg").write_bytes(picture())
        place.moved("a.jpg")


class TestOriginals:
    def test_are_kept_and_not_taken_again(self, place: Place) -> None:
        place.settings["originals"] = "keep"
        (place.folder / "a.jpg").write_bytes(picture())
        place.start()
        eventually(lambda: place.in_store("a.jpg"))
        eventually(lambda: [report.counts for report in reports()] == [{"taken": 1}])
        place.stop()
        (place.store / "a.jpg").unlink()  # whoever removes a picture from the store does not want it back
        place.start()
        (place.folder / "b.jpg").write_bytes(picture("b"))
        eventually(lambda: place.in_store("b.jpg"))
        assert not (place.store / "a.jpg").exists()

    def test_that_change_are_taken_again(self, place: Place) -> None:
        place.settings["originals"] = "keep"
        (place.folder / "a.jpg").write_bytes(picture("1"))
        place.start()
        eventually(lambda: place.in_store("a.jpg"))
        (place.folder / "a.jpg").write_bytes(picture("22"))
        eventually(lambda: place.in_store("a-1.jpg"))


class TestTrouble:
    def test_a_file_that_cannot_be_read_stays_and_is_told(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        if os.geteuid() == 0:
            pytest.skip("root can read everything")
        (place.folder / "a.jpg").write_bytes(picture())
        (place.folder / "a.jpg").chmod(0)
        place.start()
        eventually(lambda: [entry.path for report in reports() for entry in report.problems] == ["a.jpg"])

    def test_a_store_that_is_not_there_is_waited_for(self, place: Place, tmp_path: Path) -> None:
        place.store.rename(tmp_path / "away")
        place.start()
        (place.folder / "a.jpg").write_bytes(picture())
        eventually(lambda: "no SDFS store" in str([report.facts for report in reports()]))
        (tmp_path / "away").rename(place.store)
        place.moved("a.jpg")
        eventually(lambda: [report.facts["trouble"] for report in reports()] == [""])

    def test_a_watched_folder_that_comes_back(self, place: Place, tmp_path: Path) -> None:
        place.start()
        place.folder.rename(tmp_path / "away")
        place.folder.mkdir()
        (place.folder / "a.jpg").write_bytes(picture())
        place.moved("a.jpg")

    def test_a_file_in_the_place_of_a_folder_stops_nothing_else(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"text")
        with open_store(place.store) as access:
            access.add(tmp_path / "file", "a")
        place.start()
        (place.folder / "a").mkdir()
        (place.folder / "a/x.jpg").write_bytes(picture())
        (place.folder / "b.jpg").write_bytes(picture("b"))
        place.moved("b.jpg")
        eventually(lambda: ["in the way" in str(entry.reason) for report in reports() for entry in report.problems] == [True])

    def test_a_file_that_could_not_be_taken_and_was_removed_is_forgotten(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(taking, "RETRY", Backoff(0.5, 60.0))
        (tmp_path / "file").write_bytes(b"text")
        with open_store(place.store) as access:
            access.add(tmp_path / "file", "a")
        (place.folder / "a").mkdir()
        (place.folder / "a/x.jpg").write_bytes(picture())
        place.start()
        eventually(lambda: [len(report.problems) for report in reports()] == [1])
        (place.folder / "a/x.jpg").unlink()
        eventually(lambda: [len(report.problems) for report in reports()] == [0])

    def test_a_pipe_in_the_place_of_a_file_holds_up_nobody(self, place: Place) -> None:
        os.mkfifo(place.folder / "a.jpg")
        place.start()
        (place.folder / "b.jpg").write_bytes(picture("b"))
        place.moved("b.jpg")

    def test_a_ledger_that_cannot_be_written_is_waited_for(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        place.start()

        def fail(*arguments: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(Ledger, "put", fail)
            broken.setattr(Ledger, "note", fail)
            broken.setattr(Ledger, "forget", fail)
            (place.folder / "a.jpg").write_bytes(picture())
            eventually(lambda: place.watch is not None and "disk is full" in place.watch.trouble)
        place.moved("a.jpg")

    def test_the_same_content_in_two_watched_folders_is_stored_once(self, place: Place, tmp_path: Path) -> None:
        other = Place.__new__(Place)
        other.__dict__ |= place.__dict__ | {"folder": tmp_path / "other", "_running": ExitStack(), "settings": dict(place.settings)}
        other.folder.mkdir()
        for number in range(30):
            for folder in (place.folder, other.folder):
                (folder / f"{number}.jpg").write_bytes(picture(str(number)))
        place.start()
        other.start()
        eventually(lambda: not place.left() and not other.left())
        other.stop()
        place.stop()
        assert sorted(place.taken().values()) == sorted(picture(str(number)) for number in range(30))

    def test_a_file_that_was_removed_while_it_is_open_is_not_in_the_store(self, place: Place, tmp_path: Path) -> None:
        owner = own(place.store)
        with serving(owner):
            (tmp_path / "a.jpg").write_bytes(picture())
            owner.services.add(tmp_path / "a.jpg", "a.jpg")
            owner.services.sync(lambda done, total: None)
            handle = owner.tree.open("/a.jpg", os.O_RDONLY)
            owner.tree.rename("/a.jpg", "/.fuse_hidden0000000100000001")  # as libfuse does
            place.start()
            (place.folder / "b.jpg").write_bytes(picture())
            place.moved("b.jpg")
            owner.tree.release(handle)


class TestOwnership:
    def test_the_store_is_free_while_nothing_is_to_do(self, place: Place) -> None:
        place.start()
        (place.folder / "a.jpg").write_bytes(picture())
        place.moved("a.jpg")
        eventually(lambda: _is_free(place.store))

    def test_the_engine_of_a_mount_does_the_work(self, place: Place) -> None:
        owner = own(place.store)
        with serving(owner):
            place.start()
            (place.folder / "a.jpg").write_bytes(picture())
            place.moved("a.jpg")
            assert owner.services.stat("a.jpg").state == "exact"

    def test_it_passes_to_a_mount_and_back(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session_module, "IDLE_SECONDS", 60.0)
        place.start()
        (place.folder / "a.jpg").write_bytes(picture("a"))
        place.moved("a.jpg")
        assert not _is_free(place.store)
        with serving(take_over(place.store, become_owner=own)):
            (place.folder / "b.jpg").write_bytes(picture("b"))
            place.moved("b.jpg")
        (place.folder / "c.jpg").write_bytes(picture("c"))
        place.moved("c.jpg")

    def test_owners_that_come_and_go_while_files_land(self, place: Place) -> None:
        place.start()
        names = [f"{number}.jpg" for number in range(60)]

        def land() -> None:
            for name in names:
                (place.folder / name).write_bytes(picture(name))
                time.sleep(0.02)  # so that owners come and go meanwhile

        landing = threading.Thread(target=land)
        landing.start()
        while landing.is_alive():
            with serving(take_over(place.store, become_owner=own)):
                place.wait_for_one_of(landing)
        landing.join()
        place.moved(*names)
        place.stop()
        assert place.taken() == {name: picture(name) for name in names}


def _is_free(store: Path) -> bool:
    try:
        own(store).close()
    except Exception:
        return False
    return True
