"""A power loss at any moment loses nothing that was acknowledged: every prefix of what an operation does to the disk is looked at."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.blob.container import MAGIC
from sdfs.blob.signatures import picture_format
from sdfs.control.answers import Wish
from sdfs.owner.owner import Owner
from sdfs.owner.store.attributes import stays_plain
from sdfs.owner.store.fsck import check
from sdfs.owner.store.store import init
from sdfs.owner.tree.handle import Handle
from sdfs.settings import DEFAULTS
from tests.support.lossless_engine import HEIC, JPEG_OF_HEIC, LosslessEngine
from tests.support.recorder import Recording, View, recording
from tests.support.replay import Disk, Outcome, outcomes

TEXT = b"plain text\n" * 100
OLD, NEW, KEPT, OTHER, EDITED = (b"\xff\xd8\xff" + word * 1000 + b"END" for word in (b"old", b"new", b"kept", b"other", b"edited"))
RAW = MAGIC + b"user bytes that begin like a blob"


@dataclass
class Session:
    """An owner whose doings are recorded."""

    owner: Owner
    record: Recording
    outside: Path  # a folder that is not in the store

    def promise(self, path: str, *contents: bytes | None) -> None:
        """Readers of `path` get one of these; None: it is not there."""
        self.record.promise(path, lambda view: view.files.get(path) in contents)

    def promise_original(self, path: str, original: bytes) -> None:
        """While `path` is a blob, the trash has the original."""
        self.record.promise(f"original of {path}", lambda view: path not in view.blobs or original in view.trash)

    def create(self, path: str, *parts: bytes) -> Handle:
        handle = self.owner.tree.create(path, 0o644, os.O_WRONLY)
        offset = 0
        for part in parts:
            offset += handle.write(part, offset)
        return handle

    def close(self, handle: Handle) -> None:
        handle.flush()
        self.owner.tree.release(handle)

    def sync_folder(self, path: str) -> None:
        folder = self.owner.tree.open_folder(path)
        folder.fsync()
        folder.release()

    def shrink(self) -> None:
        self.owner.services.sync(lambda done, total: None)


def write_a_picture_and_fsync(session: Session) -> None:
    session.owner.tree.mkdir("/trip", 0o755)
    session.owner.tree.mkdir("/trip/day", 0o755)
    handle = session.create("/trip/day/a.jpg", OTHER[:1000], OTHER[1000:])
    handle.fsync()
    session.promise("/trip/day/a.jpg", OTHER)
    session.promise_original("/trip/day/a.jpg", OTHER)
    session.close(handle)
    session.shrink()


def write_a_picture_and_wait_until_it_is_shrunk(session: Session) -> None:
    session.owner.tree.mkdir("/trip", 0o755)
    session.promise_original("/trip/a.jpg", OTHER)
    session.close(session.create("/trip/a.jpg", OTHER))
    session.shrink()
    session.promise("/trip/a.jpg", OTHER)


def swap(session: Session) -> None:
    before = (session.owner.tree.getattr("/album/new.jpg").mode, session.owner.tree.getattr("/album/new.jpg").mtime_ns)
    session.record.promise("attributes", lambda view: view.attributes["/album/new.jpg"] == before)
    session.promise_original("/album/new.jpg", NEW)
    session.shrink()


def write_to_a_blob_and_fsync(session: Session) -> None:
    session.promise("/album/old.jpg", OLD, EDITED)
    handle = session.owner.tree.open("/album/old.jpg", os.O_RDWR)
    handle.write(EDITED[:100], 0)
    handle.write(EDITED[100:], 100)
    handle.fsync()
    session.promise("/album/old.jpg", EDITED)
    session.close(handle)
    session.shrink()


def truncate_a_blob_and_write_it_anew(session: Session) -> None:
    session.promise("/album/old.jpg", OLD, TEXT)
    handle = session.owner.tree.open("/album/old.jpg", os.O_WRONLY | os.O_TRUNC)
    handle.write(TEXT, 0)
    handle.flush()
    session.promise("/album/old.jpg", TEXT)
    session.owner.tree.release(handle)


def replace_a_blob_as_editors_do(session: Session) -> None:
    handle = session.create("/album/.old.jpg.new", EDITED)
    handle.fsync()
    session.close(handle)
    session.promise("/album/old.jpg", OLD, EDITED)
    session.owner.tree.rename("/album/.old.jpg.new", "/album/old.jpg")
    session.sync_folder("/album")
    session.promise("/album/old.jpg", EDITED)
    session.shrink()


def rename_a_file_and_fsync_it(session: Session) -> None:
    session.record.promise("/album/new.jpg", _at_either("/album/new.jpg", "/years/new.jpg", NEW))
    session.owner.tree.mkdir("/years", 0o755)
    session.owner.tree.rename("/album/new.jpg", "/years/new.jpg")
    handle = session.owner.tree.open("/years/new.jpg", os.O_RDWR)
    handle.fsync()
    session.promise("/years/new.jpg", NEW)
    session.close(handle)
    session.shrink()


def move_a_file_into_a_new_folder_and_fsync_that(session: Session) -> None:
    session.record.promise("/album/new.jpg", _at_either("/album/new.jpg", "/years/new.jpg", NEW))
    session.owner.tree.mkdir("/years", 0o755)
    session.owner.tree.rename("/album/new.jpg", "/years/new.jpg")
    session.sync_folder("/years")
    session.promise("/years/new.jpg", NEW)
    session.promise("/album/new.jpg", None)


def rename_a_folder(session: Session) -> None:
    for name, content in (("old.jpg", OLD), ("new.jpg", NEW)):
        session.record.promise(f"/album/{name}", _at_either(f"/album/{name}", f"/moved/{name}", content))
    session.owner.tree.rename("/album", "/moved")
    session.shrink()
    session.sync_folder("/")
    session.promise("/album/old.jpg", None)
    session.promise("/album/new.jpg", None)


def _at_either(one: str, other: str, content: bytes) -> Callable[[View], bool]:
    return lambda view: content in (view.files.get(one), view.files.get(other))


def unlink(session: Session) -> None:
    session.promise("/album/old.jpg", OLD, None)
    session.owner.tree.unlink("/album/old.jpg")
    session.sync_folder("/album")
    session.promise("/album/old.jpg", None)


def add(session: Session) -> None:
    source = session.outside / "source.jpg"
    source.write_bytes(OTHER)
    session.owner.services.add(source, "years/2024/a.jpg")
    session.promise("/years/2024/a.jpg", OTHER)
    session.promise_original("/years/2024/a.jpg", OTHER)
    session.shrink()


def add_a_heic_as_a_jpeg(session: Session) -> None:
    source = session.outside / "source.heic"
    source.write_bytes(HEIC)
    session.owner.services.add(source, "years/2024/a.heic", heic="jpeg")
    session.promise("/years/2024/a.jpg", JPEG_OF_HEIC)


def add_bytes_that_begin_like_a_blob(session: Session) -> None:
    source = session.outside / "raw"
    source.write_bytes(RAW)
    session.owner.services.add(source, "raw")
    session.promise("/raw", RAW)


def write_bytes_that_begin_like_a_blob(session: Session) -> None:
    handle = session.create("/raw", RAW[:4], RAW[4:])
    handle.fsync()
    session.promise("/raw", RAW)
    session.close(handle)


def write_in_place(session: Session) -> None:
    session.record.promise("/notes.txt", lambda view: "/notes.txt" in view.files)
    handle = session.owner.tree.open("/notes.txt", os.O_RDWR)
    handle.write(b"TEXT", 0)
    handle.truncate(500)
    handle.fsync(data_only=True)
    session.promise("/notes.txt", b"TEXT" + TEXT[4:500])
    session.close(handle)


def give_a_second_name(session: Session) -> None:
    session.owner.tree.link("/notes.txt", "/album/notes.txt")
    handle = session.owner.tree.open("/album/notes.txt", os.O_RDWR)
    handle.fsync()
    session.promise("/album/notes.txt", TEXT)
    session.close(handle)


def take_a_blobs_permissions(session: Session) -> None:
    session.owner.tree.chmod("/album/old.jpg", 0o444)
    session.owner.tree.chmod("/album/old.jpg", 0o644)


def take_the_permissions_of_a_blob_that_an_editor_replaces(session: Session) -> None:
    tree, copy = session.owner.tree, session.owner.store.copy
    handle = session.create("/album/.old.jpg.new", EDITED)
    handle.fsync()
    session.close(handle)

    def copy_and_be_too_late(source: int, target: int) -> None:
        copy(source, target)
        session.promise("/album/old.jpg", OLD, EDITED)
        tree.rename("/album/.old.jpg.new", "/album/old.jpg")
        session.sync_folder("/album")
        session.promise("/album/old.jpg", EDITED)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.owner.store, "copy", copy_and_be_too_late)
        tree.chmod("/album/old.jpg", 0o444)


def recompress(session: Session) -> None:
    session.promise("/album/old.jpg", OLD)
    session.owner.services.recompress("album/old.jpg", Wish({"quality": 30}, accept_loss=True))
    session.record.promise("recompressed", lambda view: "/album/old.jpg" in view.blobs and bool(view.trash))


def two_writers_at_once(session: Session) -> None:
    """One writes to a blob, and to a file of its own; the other renames over the blob."""
    tree = session.owner.tree
    begin = threading.Barrier(2)

    def write() -> None:
        handle = tree.open("/album/old.jpg", os.O_RDWR)
        begin.wait()
        handle.write(OTHER, 0)
        handle.fsync()
        session.close(handle)
        own = session.create("/written.jpg", OTHER)
        own.fsync()
        session.promise("/written.jpg", OTHER)
        session.close(own)

    def edit() -> None:
        handle = session.create("/album/.old.jpg.new", EDITED)
        handle.fsync()
        session.close(handle)
        begin.wait()
        tree.rename("/album/.old.jpg.new", "/album/old.jpg")
        session.sync_folder("/album")
        session.promise("/album/old.jpg", EDITED)

    session.promise("/album/old.jpg", OLD, OTHER, EDITED)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write), pool.submit(edit)]:
            done.result()
    session.shrink()


def let_the_trash_expire(session: Session) -> None:
    session.shrink()
    session.owner.store.trash.expire(time.time() + 1, grace_seconds=0)


def restore_an_original(session: Session) -> None:
    session.shrink()
    session.record.promise("kept", lambda view: NEW in view.trash or view.files.get("/years/new.jpg") == NEW)
    session.owner.services.restore("album/new.jpg", "years")
    session.record.promise("kept", lambda view: "/years/new.jpg" not in view.blobs)
    session.promise("/years/new.jpg", NEW)
    session.shrink()


SCENARIOS = (
    write_a_picture_and_fsync,
    write_a_picture_and_wait_until_it_is_shrunk,
    swap,
    write_to_a_blob_and_fsync,
    truncate_a_blob_and_write_it_anew,
    replace_a_blob_as_editors_do,
    rename_a_file_and_fsync_it,
    move_a_file_into_a_new_folder_and_fsync_that,
    rename_a_folder,
    unlink,
    add,
    add_a_heic_as_a_jpeg,
    add_bytes_that_begin_like_a_blob,
    write_bytes_that_begin_like_a_blob,
    write_in_place,
    give_a_second_name,
    take_a_blobs_permissions,
    take_the_permissions_of_a_blob_that_an_editor_replaces,
    recompress,
    two_writers_at_once,
    let_the_trash_expire,
    restore_an_original,
)


def owner_of(root: Path) -> Owner:
    return Owner(root, engine=LosslessEngine)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with a text, a blob, and a picture that is pending; its owner was killed while it made and replaced files."""
    root = tmp_path / "store"
    init(root)
    (root / "notes.txt").write_bytes(TEXT)
    (root / "album").mkdir()
    (root / "album" / "old.jpg").write_bytes(LosslessEngine().encode(OLD, DEFAULTS).result())
    (root / "album" / "new.jpg").write_bytes(NEW)
    (root / ".sdfs" / "staging" / "1-2").write_bytes(NEW[:50])
    (root / "album" / "kept.jpg").write_bytes(KEPT)
    (root / ".sdfs" / "trash" / f"{time.time_ns()}-1.kept.jpg").hardlink_to(root / "album" / "kept.jpg")
    return root


def record(scenario: Callable[[Session], None], root: Path) -> Recording:
    with recording(root) as recorded:
        for path, content in (("/notes.txt", TEXT), ("/album/old.jpg", OLD), ("/album/new.jpg", NEW)):
            recorded.promise(path, _at_either(path, path, content))
        owner = owner_of(root)
        try:
            scenario(Session(owner, recorded, root.parent))
        finally:
            owner.close()
    return recorded


def look(owner: Owner) -> View:
    files, attributes, blobs = {}, {}, set()
    for backing, _ in owner.store.walk():
        path = owner.tree.virtual(backing)
        handle = owner.tree.open(path, os.O_RDONLY)
        files[path] = handle.read(1 << 20, 0)
        owner.tree.release(handle)
        attributes[path] = (owner.tree.getattr(path).mode, owner.tree.getattr(path).mtime_ns)
        if container.is_blob(Path(backing).read_bytes()):
            blobs.add(path)
    trash = Path(owner.store.internal, "trash")
    return View(files, attributes, frozenset(blobs), frozenset(path.read_bytes() for path in trash.iterdir()))


def recover(outcome: Outcome, root: Path) -> None:
    """What the next owner does with what the power loss left, and that it is right."""
    outcome.disk.build(root)
    where = f"after {outcome.cut} events, names {outcome.names}, content {outcome.content}"
    owner = owner_of(root)
    try:
        found = look(owner)
        assert broken(outcome, found) == [], f"{where}: {found}"
        owner.services.sync(lambda done, total: None)
        shrunk = look(owner)
        assert broken(outcome, shrunk) == [], f"{where}, and then shrunk: {shrunk}"
        assert shrunk.files == found.files, where
        assert unshrunk(root, shrunk) == [], where
        assert list((root / ".sdfs" / "staging").iterdir()) == [], where
    finally:
        owner.close()
    assert check(root) == [], where


def broken(outcome: Outcome, view: View) -> list[str]:
    return [name for name, promise in outcome.promises.items() if not promise.holds(view)]


def unshrunk(root: Path, view: View) -> list[str]:
    """The pictures that should be blobs by now."""
    whole = [path for path, content in view.files.items() if picture_format(content[:16]) and content.endswith(b"END")]
    return [path for path in whole if path not in view.blobs and not is_marked(root, path)]


def is_marked(root: Path, path: str) -> bool:
    fd = os.open(f"{root}{path}", os.O_RDONLY)
    try:
        return stays_plain(fd)
    finally:
        os.close(fd)


@pytest.fixture
def replay(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Session], None]], None]:
    """Records a scenario and looks at every different outcome."""

    def run(scenario: Callable[[Session], None]) -> None:
        recorded = record(scenario, root)
        monkeypatch.setattr(os, "fsync", lambda fd: None)  # of what is recovered: hundreds of stores
        seen: set[tuple[str, ...]] = set()
        for number, outcome in enumerate(outcomes(recorded)):
            key = (outcome.disk.fingerprint(), *(f"{id(promise)}" for promise in outcome.promises.values()))
            if key not in seen:
                seen.add(key)
                recover(outcome, tmp_path / f"outcome{number}")
        print(f"{scenario.__name__}: {len(recorded.events) - recorded.start + 1} cuts, {number + 1} outcomes, {len(seen)} different")

    return run


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_nothing_is_lost_by(scenario: Callable[[Session], None], replay: Callable[[Callable[[Session], None]], None]) -> None:
    replay(scenario)


def test_the_replay_notices_a_promise_without_an_fsync(replay: Callable[[Callable[[Session], None]], None]) -> None:
    def promise_too_early(session: Session) -> None:
        handle = session.create("/early.txt", TEXT)
        session.promise("/early.txt", TEXT)
        handle.fsync()
        session.close(handle)

    with pytest.raises(AssertionError, match=r"/early\.txt"):
        replay(promise_too_early)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_recording_is_whole_of(scenario: Callable[[Session], None], root: Path, tmp_path: Path) -> None:
    recorded = record(scenario, root)
    disk = Disk(recorded.top)
    for event in recorded.events:
        disk.apply(event)
    disk.build(tmp_path / "replayed")
    assert tree_of(tmp_path / "replayed") == tree_of(root)


def tree_of(root: Path) -> dict[str, object]:
    return {
        str(path.relative_to(root)): (
            stat.filemode(path.lstat().st_mode),
            path.lstat().st_nlink,
            path.read_bytes() if path.is_file() else None,
            {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)},
        )
        for path in root.rglob("*")
    }
