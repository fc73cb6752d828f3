"""sdfs.owner.tree: every operation of a filesystem, copy-up, and the swap; without FUSE, with an engine that loses nothing."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sdfs.blob import container
from sdfs.blob.container import MAGIC
from sdfs.errors import DamagedError, EngineError, StoreTooNew, UserError
from sdfs.owner.owner import Owner
from sdfs.owner.services import Mount
from sdfs.owner.store.attributes import forget_plain
from sdfs.owner.store.store import init
from sdfs.owner.tree import inode
from sdfs.owner.tree.handle import Handle
from sdfs.owner.tree.tree import Tree
from sdfs.settings import EncodeSettings
from tests.support.lossless_engine import LosslessEngine
from tests.support.waiting import eventually

PICTURE = b"\xff\xd8\xff" + b"picture " * 1000 + b"END"


class GatedEngine(LosslessEngine):
    """Encodes and decodes only what the test lets through, and counts."""

    def __init__(self) -> None:
        self.encoding, self.may_encode = threading.Event(), threading.Event()
        self.may_encode.set()
        self.failures: list[Exception] = []  # of the next encodes
        self.encodes = self.decodes = self.warmed = 0

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> Future[bytes]:
        self.encodes += 1
        self.encoding.set()
        assert self.may_encode.wait(10)
        if self.failures:
            future: Future[bytes] = Future()
            future.set_exception(self.failures.pop())
            return future
        return super().encode(data, settings)

    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]:
        self.decodes += 1
        return super().decode(key, blob)

    def warm(self) -> None:
        self.warmed += 1


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    init(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def owner(root: Path, engine: GatedEngine) -> Iterator[Owner]:
    owner = Owner(root, engine=lambda: engine)
    yield owner
    engine.may_encode.set()
    owner.close()


@pytest.fixture
def tree(owner: Owner) -> Tree:
    return owner.tree


def write(tree: Tree, path: str, *parts: bytes) -> None:
    handle = tree.create(path, 0o644, os.O_WRONLY | os.O_TRUNC)
    offset = 0
    for part in parts:
        offset += handle.write(part, offset)
    handle.flush()
    tree.release(handle)


def read(tree: Tree, path: str) -> bytes:
    handle = tree.open(path, os.O_RDONLY)
    try:
        return handle.read(1 << 20, 0)
    finally:
        tree.release(handle)


def shrink(owner: Owner) -> None:
    owner.services.sync(lambda done, total: None)


def is_blob(path: Path) -> bool:
    return container.is_blob(path.read_bytes())


def trash(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((root / ".sdfs" / "trash").iterdir())]


class TestUnwrappedFiles:
    def test_what_is_written_is_read(self, tree: Tree) -> None:
        write(tree, "/a", b"con", b"tent")
        assert read(tree, "/a") == b"content"

    def test_they_are_plain_files_of_the_store(self, tree: Tree, root: Path) -> None:
        write(tree, "/a", b"content")
        assert (root / "a").read_bytes() == b"content"

    def test_they_are_written_in_place(self, tree: Tree, root: Path) -> None:
        write(tree, "/a", b"content")
        inode = (root / "a").stat().st_ino
        handle = tree.open("/a", os.O_RDWR)
        handle.write(b"C", 0)
        tree.release(handle)
        assert (root / "a").stat().st_ino == inode

    def test_exclusive_creation_refuses_an_existing_name(self, tree: Tree) -> None:
        write(tree, "/a", b"")
        with pytest.raises(FileExistsError):
            tree.create("/a", 0o644, os.O_WRONLY | os.O_EXCL)

    def test_opening_with_truncation_empties(self, tree: Tree) -> None:
        write(tree, "/a", b"content")
        tree.release(tree.open("/a", os.O_WRONLY | os.O_TRUNC))
        assert tree.getattr("/a").size == 0

    def test_allocation_extends(self, tree: Tree) -> None:
        handle = tree.create("/a", 0o644, os.O_RDWR)
        handle.allocate(0, 5000)
        tree.release(handle)
        assert tree.getattr("/a").size == 5000

    def test_a_reader_cannot_write(self, tree: Tree) -> None:
        write(tree, "/a", b"content")
        handle = tree.open("/a", os.O_RDONLY)
        with pytest.raises(OSError, match="Bad file descriptor"):
            handle.write(b"x", 0)
        tree.release(handle)

    def test_they_may_have_several_names(self, tree: Tree) -> None:
        write(tree, "/a", b"content")
        tree.link("/a", "/b")
        assert tree.getattr("/b").nlink == 2

    @pytest.mark.parametrize("year", [1600, 2300])
    def test_they_may_be_of_any_date(self, tree: Tree, year: int) -> None:
        write(tree, "/a", b"content, longer than a magic")
        tree.utimens("/a", 0, int((year - 1970) * 365.2425 * 86400) * 10**9)
        assert tree.getattr("/a").size == 28
        assert [name for name, _ in tree.open_folder("/").entries()] == [".", "..", "a"]

    def test_attributes_that_are_refused_are_not_listed(self, tree: Tree, root: Path) -> None:
        write(tree, "/a", b"content")
        try:
            os.setxattr(root / "a", "security.selinux", b"label")
        except OSError:
            pytest.skip("the filesystem takes no labels")
        assert tree.listxattr("/a") == []
        with pytest.raises(OSError, match="not supported"):
            tree.getxattr("/a", "security.selinux")

    def test_the_kernel_keeps_pages_of_what_was_written_through_it(self, tree: Tree) -> None:
        write(tree, "/a", b"content")
        handle = tree.open("/a", os.O_RDONLY)
        assert handle.keep_cache
        tree.release(handle)

    def test_the_kernel_keeps_pages_from_the_second_open_on(self, tree: Tree, root: Path) -> None:
        (root / "a").write_bytes(b"content")
        kept = []
        for _ in range(2):
            handle = tree.open("/a", os.O_RDONLY)
            kept.append(handle.keep_cache)
            tree.release(handle)
        assert kept == [False, True]

    def test_the_kernel_keeps_no_pages_of_a_file_with_several_names(self, tree: Tree) -> None:
        write(tree, "/a", b"content")
        tree.link("/a", "/b")
        tree.release(tree.open("/a", os.O_RDONLY))
        handle = tree.open("/a", os.O_RDONLY)
        assert not handle.keep_cache
        tree.release(handle)


class TestAListing:
    @staticmethod
    def list_all(tree: Tree, path: str = "/") -> None:
        folder = tree.open_folder(path)
        list(folder.entries())
        folder.release()

    def test_of_latents_has_the_model_loaded(self, tree: Tree, root: Path, engine: GatedEngine) -> None:
        (root / "photo.jpg").write_bytes(container.pack(container.KIND_LATENT, 100, {}, {}))
        self.list_all(tree)
        assert engine.warmed == 1

    def test_of_other_files_does_not(self, owner: Owner, tree: Tree, root: Path, engine: GatedEngine) -> None:
        write(tree, "/exact.jpg", PICTURE)
        shrink(owner)
        write(tree, "/text", b"no picture")
        (root / "damaged").write_bytes(MAGIC + b"no preamble" * 9)
        (root / "folder").mkdir()
        (root / "folder" / "photo.jpg").write_bytes(container.pack(container.KIND_LATENT, 100, {}, {}))
        self.list_all(tree)
        assert engine.warmed == 0
        self.list_all(tree, "/folder")
        assert engine.warmed == 1


class TestTheInternalFolder:
    def test_it_is_not_listed(self, tree: Tree) -> None:
        folder = tree.open_folder("/")
        assert sorted(name for name, _ in folder.entries()) == [".", ".."]
        folder.release()

    def test_it_is_not_found(self, tree: Tree) -> None:
        with pytest.raises(FileNotFoundError):
            tree.getattr("/.sdfs")

    def test_nothing_in_it_is_found(self, tree: Tree) -> None:
        with pytest.raises(FileNotFoundError):
            tree.open("/.sdfs/config.toml", os.O_RDONLY)

    @pytest.mark.parametrize("path", ["/.sdfs", "/.sdfs/x"])
    def test_its_name_cannot_be_taken(self, tree: Tree, path: str) -> None:
        with pytest.raises(PermissionError):
            tree.mkdir(path, 0o755)

    def test_nothing_can_be_renamed_to_it(self, tree: Tree) -> None:
        write(tree, "/a", b"")
        with pytest.raises(PermissionError):
            tree.rename("/a", "/.sdfs")

    def test_a_name_that_begins_like_it_is_any_name(self, tree: Tree) -> None:
        write(tree, "/.sdfs2", b"content")
        assert read(tree, "/.sdfs2") == b"content"

    def test_it_is_any_name_in_a_folder(self, tree: Tree) -> None:
        tree.mkdir("/d", 0o755)
        write(tree, "/d/.sdfs", b"content")
        assert read(tree, "/d/.sdfs") == b"content"


class TestSwap:
    def test_a_picture_becomes_a_blob(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/a.jpg", PICTURE)
        shrink(owner)
        assert is_blob(root / "a.jpg")

    def test_readers_get_what_was_written(self, owner: Owner, tree: Tree) -> None:
        write(tree, "/a.jpg", PICTURE)
        shrink(owner)
        assert read(tree, "/a.jpg") == PICTURE

    def test_its_content_decides_not_its_name(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/a.txt", PICTURE)
        write(tree, "/b.jpg", b"text")
        shrink(owner)
        assert is_blob(root / "a.txt")
        assert not is_blob(root / "b.jpg")

    def test_size_times_owner_mode_and_attributes_stay(self, owner: Owner, tree: Tree) -> None:
        write(tree, "/a.jpg", PICTURE)
        tree.chmod("/a.jpg", 0o640)
        tree.setxattr("/a.jpg", "user.comment", b"sea", 0)
        tree.utimens("/a.jpg", 1_111_111_111, 2_222_222_222)
        before = tree.getattr("/a.jpg")
        shrink(owner)
        after = tree.getattr("/a.jpg")
        kept = ("size", "mode", "uid", "gid", "mtime_ns", "nlink")
        assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
        assert tree.getxattr("/a.jpg", "user.comment") == b"sea"

    def test_a_mode_that_a_blob_cannot_have_is_shown_all_the_same(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/a.jpg", PICTURE)
        tree.chmod("/a.jpg", 0o444)
        shrink(owner)
        assert stat.S_IMODE(tree.getattr("/a.jpg").mode) == 0o444
        assert (root / "a.jpg").stat().st_mode & 0o600 == 0o600

    def test_the_original_is_in_the_trash(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/a.jpg", PICTURE)
        shrink(owner)
        assert trash(root) == [PICTURE]

    def test_a_file_with_two_names_is_left_alone(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/a.jpg", PICTURE)
        tree.link("/a.jpg", "/b.jpg")
        shrink(owner)
        assert not is_blob(root / "a.jpg")

    def test_a_broken_picture_stays_as_it_is_and_is_not_asked_about_again(
        self, owner: Owner, tree: Tree, root: Path, engine: GatedEngine
    ) -> None:
        write(tree, "/a.jpg", PICTURE[:-1])
        shrink(owner)
        status = (root / "a.jpg").stat()
        tree.pending.offer((status.st_dev, status.st_ino), f"{owner.store.root}/a.jpg")
        shrink(owner)
        assert (root / "a.jpg").read_bytes() == PICTURE[:-1]
        assert engine.encodes == 1

    def test_an_open_file_waits(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/a.jpg", PICTURE)
        handle = tree.open("/a.jpg", os.O_RDONLY)
        shrink(owner)
        assert not is_blob(root / "a.jpg")
        tree.release(handle)
        shrink(owner)
        assert is_blob(root / "a.jpg")

    def test_a_file_opened_while_it_is_encoded_waits(self, owner: Owner, tree: Tree, root: Path, engine: GatedEngine) -> None:
        engine.may_encode.clear()
        write(tree, "/a.jpg", PICTURE)
        with ThreadPoolExecutor() as pool:
            done = pool.submit(shrink, owner)
            assert engine.encoding.wait(10)
            handle = tree.open("/a.jpg", os.O_RDONLY)
            engine.may_encode.set()
            done.result()
        assert handle.read(100, 0) == PICTURE[:100]
        assert not is_blob(root / "a.jpg")
        tree.release(handle)

    @pytest.mark.parametrize("content", [b"other", PICTURE.replace(b"picture", b"drawing")], ids=["other size", "same size"])
    def test_a_file_written_to_while_it_is_encoded_keeps_what_was_written(
        self, owner: Owner, tree: Tree, engine: GatedEngine, content: bytes
    ) -> None:
        engine.may_encode.clear()
        write(tree, "/a.jpg", PICTURE)
        times = tree.getattr("/a.jpg")
        with ThreadPoolExecutor() as pool:
            done = pool.submit(shrink, owner)
            assert engine.encoding.wait(10)
            write(tree, "/a.jpg", content)
            tree.utimens("/a.jpg", times.atime_ns, times.mtime_ns)
            engine.may_encode.set()
            done.result()
        assert read(tree, "/a.jpg") == content

    def test_a_file_renamed_while_it_is_encoded_is_swapped_under_its_new_name(
        self, owner: Owner, tree: Tree, root: Path, engine: GatedEngine
    ) -> None:
        engine.may_encode.clear()
        tree.mkdir("/d", 0o755)
        write(tree, "/d/a.jpg", PICTURE)
        with ThreadPoolExecutor() as pool:
            done = pool.submit(shrink, owner)
            assert engine.encoding.wait(10)
            tree.rename("/d", "/e")
            engine.may_encode.set()
            done.result()
        assert is_blob(root / "e" / "a.jpg")

    @pytest.mark.parametrize("change", [lambda tree: tree.rename("/a.jpg", "/b.jpg"), lambda tree: tree.unlink("/a.jpg")])
    def test_a_file_that_is_renamed_or_removed_amid_its_close(
        self, owner: Owner, tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Tree], None]
    ) -> None:
        forget, left = forget_plain, [change]

        def forget_late(fd: int) -> None:
            forget(fd)
            if left:
                left.pop()(tree)

        monkeypatch.setattr(inode, "forget_plain", forget_late)
        shrink(owner)  # from here on, no scan finds it
        write(tree, "/a.jpg", PICTURE)
        shrink(owner)
        assert [is_blob(path) for path in root.glob("*.jpg")] in ([True], [])

    def test_a_file_that_is_looked_for_amid_its_rename_stays_pending(
        self, owner: Owner, tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename, finish, looked = tree.pending.rename, tree.pending.finish, threading.Event()

        def rename_late(*arguments: Any) -> None:
            looked.wait(0.5)  # the name is another by now, and the queue does not know
            rename(*arguments)

        monkeypatch.setattr(tree.pending, "rename", rename_late)
        monkeypatch.setattr(tree.pending, "finish", lambda taken: (looked.set(), finish(taken)))
        shrink(owner)  # from here on, no scan finds it
        write(tree, "/a.jpg", PICTURE)
        with ThreadPoolExecutor() as pool:
            renamed = pool.submit(tree.rename, "/a.jpg", "/b.jpg")
            eventually(lambda: (root / "b.jpg").exists())
            shrink(owner)
            renamed.result()
        shrink(owner)
        assert is_blob(root / "b.jpg")

    def test_a_file_removed_while_it_is_encoded_stays_removed(self, owner: Owner, tree: Tree, root: Path, engine: GatedEngine) -> None:
        engine.may_encode.clear()
        write(tree, "/a.jpg", PICTURE)
        with ThreadPoolExecutor() as pool:
            done = pool.submit(shrink, owner)
            assert engine.encoding.wait(10)
            tree.unlink("/a.jpg")
            engine.may_encode.set()
            done.result()
        assert not (root / "a.jpg").exists()

    def test_a_file_is_pending_again_after_the_engine_failed(self, owner: Owner, tree: Tree, root: Path, engine: GatedEngine) -> None:
        engine.failures = [EngineError("died")]
        write(tree, "/a.jpg", PICTURE)
        shrink(owner)
        assert is_blob(root / "a.jpg")

    def test_sync_says_when_the_engine_fails_again_and_again(self, owner: Owner, tree: Tree, engine: GatedEngine) -> None:
        engine.failures = [EngineError("died")] * 10
        write(tree, "/a.jpg", PICTURE)
        with pytest.raises(EngineError, match="1 of 1 files stay pending: died"):
            shrink(owner)
        assert owner.services.stat("a.jpg").state == "pending"

    def test_a_picture_that_was_there_before_is_found(self, owner: Owner, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d" / "a.jpg").write_bytes(PICTURE)
        shrink(owner)
        assert is_blob(root / "d" / "a.jpg")

    def test_what_an_unlinked_open_file_left_behind_is_moved_to_the_trash(self, owner: Owner, root: Path) -> None:
        (root / ".fuse_hidden0000000200000001").write_bytes(PICTURE)
        shrink(owner)
        eventually(lambda: not (root / ".fuse_hidden0000000200000001").exists())
        assert trash(root) == [PICTURE]

    def test_a_file_that_is_hidden_after_its_release_goes_at_once(self, tree: Tree, root: Path) -> None:
        tree.mkdir("/d", 0o755)
        write(tree, "/d/a", b"content")
        tree.rename("/d/a", "/d/.fuse_hidden0000000200000001")
        tree.rmdir("/d")
        assert trash(root) == [b"content"]

    def test_a_hidden_file_stays_while_it_is_open(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/a", b"content")
        handle = tree.open("/a", os.O_RDONLY)
        tree.rename("/a", "/.fuse_hidden0000000200000001")
        shrink(owner)
        assert (root / ".fuse_hidden0000000200000001").exists()
        tree.release(handle)
        eventually(lambda: not (root / ".fuse_hidden0000000200000001").exists())

    def test_whoever_is_told_of_a_swap_can_open_the_file(self, root: Path) -> None:
        seen = []
        mount = Mount("/mnt", read_only=False, unmount=lambda: None, forget=lambda path: seen.append(read(owner.tree, path)))
        owner = Owner(root, engine=LosslessEngine, mount=mount)
        write(owner.tree, "/a.jpg", PICTURE)
        shrink(owner)
        assert seen == [PICTURE]
        owner.close()

    def test_the_kernel_keeps_no_pages_over_a_swap(self, owner: Owner, tree: Tree) -> None:
        write(tree, "/a.jpg", PICTURE)
        tree.release(tree.open("/a.jpg", os.O_RDONLY))
        shrink(owner)
        handle = tree.open("/a.jpg", os.O_RDONLY)
        assert not handle.keep_cache
        tree.release(handle)


@pytest.fixture
def blob(owner: Owner, tree: Tree, root: Path) -> Path:
    """A picture, /a.jpg, that is a blob; its backing file."""
    write(tree, "/a.jpg", PICTURE)
    shrink(owner)
    return root / "a.jpg"


class TestBlobs:
    @pytest.mark.usefixtures("blob")
    def test_getattr_does_not_decode(self, tree: Tree, engine: GatedEngine) -> None:
        assert tree.getattr("/a.jpg").size == len(PICTURE)
        assert engine.decodes == 0

    @pytest.mark.usefixtures("blob")
    def test_many_readers_cost_one_decode(self, tree: Tree, engine: GatedEngine) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: read(tree, "/a.jpg"), range(32))) == [PICTURE] * 32
        assert engine.decodes == 1

    @pytest.mark.usefixtures("blob")
    def test_reads_at_any_offset(self, tree: Tree) -> None:
        handle = tree.open("/a.jpg", os.O_RDONLY)
        assert handle.read(7, 4001) == PICTURE[4001:4008]
        assert handle.read(100, len(PICTURE) - 3) == b"END"
        assert handle.read(100, len(PICTURE)) == b""
        tree.release(handle)

    def test_opening_for_writing_changes_nothing(self, tree: Tree, blob: Path) -> None:
        tree.release(tree.open("/a.jpg", os.O_RDWR))
        assert is_blob(blob)

    def test_a_write_is_seen_by_all_openers_at_once(self, tree: Tree, blob: Path) -> None:
        reader, writer = tree.open("/a.jpg", os.O_RDONLY), tree.open("/a.jpg", os.O_RDWR)
        writer.write(b"XYZ", 10)
        assert reader.read(3, 10) == b"XYZ"
        for handle in (reader, writer):
            tree.release(handle)

    def test_a_write_reaches_the_store_at_flush(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_WRONLY)
        handle.write(b"XYZ", 10)
        assert is_blob(blob)
        handle.flush()
        assert blob.read_bytes() == PICTURE[:10] + b"XYZ" + PICTURE[13:]
        tree.release(handle)

    def test_a_write_after_a_flush_goes_on_in_place(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_WRONLY)
        handle.write(b"XYZ", 10)
        handle.fsync()
        handle.write(b"ABC", 10)
        tree.release(handle)
        assert blob.read_bytes()[10:13] == b"ABC"

    def test_append_extends_the_picture(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_WRONLY | os.O_APPEND)
        handle.write(b"tail", len(PICTURE))
        tree.release(handle)
        assert read(tree, "/a.jpg") == PICTURE + b"tail"

    @pytest.mark.parametrize("size", [5, len(PICTURE) + 5])
    def test_truncate(self, tree: Tree, blob: Path, size: int) -> None:
        tree.truncate("/a.jpg", size)
        assert read(tree, "/a.jpg") == PICTURE[:size].ljust(size, b"\0")

    def test_overwriting_it_whole_needs_no_decode(self, tree: Tree, engine: GatedEngine, blob: Path) -> None:
        write(tree, "/a.jpg", b"new")
        assert blob.read_bytes() == b"new"
        assert engine.decodes == 0

    def test_what_a_write_replaced_is_in_the_trash(self, tree: Tree, root: Path, blob: Path) -> None:
        content = blob.read_bytes()
        write(tree, "/a.jpg", b"new")
        assert trash(root) == [PICTURE, content]

    def test_it_is_pending_again_after_a_write(self, owner: Owner, tree: Tree, blob: Path) -> None:
        write(tree, "/a.jpg", PICTURE.replace(b"picture", b"drawing"))
        assert owner.services.stat("a.jpg").state == "pending"
        shrink(owner)
        assert is_blob(blob)

    def test_size_and_time_are_those_of_what_is_being_written(self, tree: Tree, blob: Path) -> None:
        before = tree.getattr("/a.jpg")
        handle = tree.open("/a.jpg", os.O_WRONLY | os.O_APPEND)
        handle.write(b"tail", len(PICTURE))
        assert tree.getattr("/a.jpg").size == len(PICTURE) + 4
        assert tree.getattr("/a.jpg").mtime_ns > before.mtime_ns
        tree.release(handle)

    def test_attributes_set_while_it_is_written_stay(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_WRONLY)
        handle.write(b"X", 0)
        tree.chmod("/a.jpg", 0o600)
        tree.utimens("/a.jpg", None, 123_456_789)
        tree.setxattr("/a.jpg", "user.comment", b"sea", 0)
        handle.flush()
        tree.release(handle)
        attributes = tree.getattr("/a.jpg")
        assert (stat.S_IMODE(attributes.mode), attributes.mtime_ns) == (0o600, 123_456_789)
        assert tree.listxattr("/a.jpg") == ["user.comment"]

    def test_renamed_while_it_is_written_it_is_committed_under_its_new_name(self, tree: Tree, root: Path, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_WRONLY)
        handle.write(b"XYZ", 0)
        tree.rename("/a.jpg", "/b.jpg")
        tree.release(handle)
        assert (root / "b.jpg").read_bytes()[:3] == b"XYZ"
        assert not blob.exists()

    def test_unlinked_while_it_is_written_it_stays_unlinked(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_RDWR)
        handle.write(b"XYZ", 0)
        tree.unlink("/a.jpg")
        assert handle.read(3, 0) == b"XYZ"
        handle.flush()
        tree.release(handle)
        assert not blob.exists()

    def test_unlinked_while_it_is_open_it_can_be_read(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_RDONLY)
        tree.unlink("/a.jpg")
        assert handle.read(100, 0) == PICTURE[:100]
        tree.release(handle)

    def test_it_cannot_have_a_second_name(self, tree: Tree, blob: Path) -> None:
        with pytest.raises(OSError, match="second name") as raised:
            tree.link("/a.jpg", "/b.jpg")
        assert raised.value.errno == errno.ENOTSUP

    @pytest.mark.parametrize("mode", [0o400, 0o000, 0o4755, 0o644])
    def test_chmod(self, tree: Tree, blob: Path, mode: int) -> None:
        tree.chmod("/a.jpg", 0o444)
        tree.chmod("/a.jpg", mode)
        assert stat.S_IMODE(tree.getattr("/a.jpg").mode) == mode
        assert blob.stat().st_mode & 0o600 == 0o600
        assert read(tree, "/a.jpg") == PICTURE

    def test_a_commit_that_fails_is_told_to_the_writer_and_its_bytes_are_kept(
        self, tree: Tree, root: Path, blob: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

        monkeypatch.setattr(tree.store, "keep", full)
        handle = tree.open("/a.jpg", os.O_WRONLY | os.O_TRUNC)
        handle.write(b"new", 0)
        with pytest.raises(OSError, match="No space left"):
            handle.flush()
        tree.release(handle)
        assert read(tree, "/a.jpg") == PICTURE
        assert trash(root) == [PICTURE, b"new"]

    def test_what_is_open_when_the_owner_ends_is_committed(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_WRONLY | os.O_APPEND)
        handle.write(b"tail", len(PICTURE))
        tree.inodes.commit_all()
        assert blob.read_bytes() == PICTURE + b"tail"
        tree.release(handle)

    def test_nothing_is_left_in_staging(self, tree: Tree, root: Path, blob: Path) -> None:
        write(tree, "/a.jpg", b"new")
        assert list((root / ".sdfs" / "staging").iterdir()) == []

    def test_the_kernel_keeps_pages_once_a_render_was_as_recorded(self, tree: Tree, blob: Path) -> None:
        read(tree, "/a.jpg")
        handle = tree.open("/a.jpg", os.O_RDONLY)
        assert handle.keep_cache
        tree.release(handle)


class TestDamage:
    @pytest.mark.parametrize("offset", [20, 40, -1], ids=["preamble", "header", "section"])
    def test_it_is_an_error_for_that_file_and_one_log_line(
        self, tree: Tree, blob: Path, offset: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        damage(blob, offset)
        write(tree, "/b", b"content")
        for _ in range(2):
            with pytest.raises(DamagedError):
                read(tree, "/a.jpg")
        assert read(tree, "/b") == b"content"
        assert [record.getMessage().split()[0] for record in caplog.records] == [str(blob)]

    @pytest.mark.parametrize("offset", [20, 40, -1], ids=["preamble", "header", "section"])
    def test_the_file_can_be_looked_at_and_removed(self, tree: Tree, blob: Path, offset: int) -> None:
        damage(blob, offset)
        assert tree.getattr("/a.jpg").size > 0
        tree.unlink("/a.jpg")
        assert not blob.exists()

    @pytest.mark.parametrize("offset", [20, 40], ids=["preamble", "header"])
    def test_its_status_says_so(self, owner: Owner, blob: Path, offset: int) -> None:
        damage(blob, offset)
        assert owner.services.stat("a.jpg").state == "damaged"


def damage(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def make_too_new(path: Path) -> None:
    """A flag that is not known, in a preamble that is whole."""
    content = bytearray(path.read_bytes())
    content[11] = 0x80
    content[28:32] = zlib.crc32(content[:28]).to_bytes(4, "little")
    path.write_bytes(content)


class TestADamagedBlobIsReplacedInPlace:
    @pytest.fixture(params=["preamble", "header", "too new"])
    def damaged(self, request: pytest.FixtureRequest, tree: Tree, blob: Path) -> bytes:
        """What /a.jpg is in the store: a damaged blob that was read before."""
        read(tree, "/a.jpg")
        if request.param == "too new":
            make_too_new(blob)
        else:
            damage(blob, {"preamble": 20, "header": 40}[request.param])
        return blob.read_bytes()

    def test_by_opening_it_with_truncation(self, tree: Tree, root: Path, damaged: bytes) -> None:
        write(tree, "/a.jpg", b"good")
        assert read(tree, "/a.jpg") == b"good"
        assert damaged in trash(root)

    def test_by_opening_it_with_truncation_and_writing_nothing(self, tree: Tree, root: Path, damaged: bytes) -> None:
        write(tree, "/a.jpg")
        assert read(tree, "/a.jpg") == b""
        assert damaged in trash(root)

    def test_by_truncating_it_to_nothing(self, tree: Tree, root: Path, damaged: bytes) -> None:
        tree.truncate("/a.jpg", 0)
        assert tree.getattr("/a.jpg").size == 0
        assert damaged in trash(root)

    def test_by_truncating_an_open_one(self, tree: Tree, damaged: bytes) -> None:
        handle = tree.open("/a.jpg", os.O_RDWR)
        handle.truncate(0)
        handle.write(b"good", 0)
        assert handle.read(10, 0) == b"good"
        tree.release(handle)
        assert read(tree, "/a.jpg") == b"good"

    def test_by_renaming_another_over_it(self, tree: Tree, root: Path, damaged: bytes) -> None:
        write(tree, "/b", b"good")
        tree.rename("/b", "/a.jpg")
        assert read(tree, "/a.jpg") == b"good"
        assert damaged in trash(root)

    def test_by_a_picture_which_is_shrunk(self, owner: Owner, tree: Tree, blob: Path, damaged: bytes) -> None:
        write(tree, "/a.jpg", PICTURE)
        shrink(owner)
        assert read(tree, "/a.jpg") == PICTURE
        assert is_blob(blob)

    def test_not_by_changing_a_part_of_it(self, tree: Tree, blob: Path, damaged: bytes) -> None:
        handle = tree.open("/a.jpg", os.O_RDWR)
        changes: list[Callable[[], object]] = [
            lambda: handle.write(b"x", 5),
            lambda: handle.truncate(5),
            lambda: handle.allocate(0, 100_000),
            lambda: handle.read(5, 0),
        ]
        for change in changes:
            with pytest.raises((DamagedError, StoreTooNew)):
                change()
        tree.release(handle)
        assert blob.read_bytes() == damaged

    def test_its_times_mode_and_attributes_can_be_set(self, tree: Tree, damaged: bytes) -> None:
        tree.chmod("/a.jpg", 0o640)
        tree.utimens("/a.jpg", 1, 2)
        tree.chown("/a.jpg", -1, -1)
        tree.setxattr("/a.jpg", "user.comment", b"sea", 0)
        attributes = tree.getattr("/a.jpg")
        assert (stat.S_IMODE(attributes.mode), attributes.mtime_ns) == (0o640, 2)

    def test_what_replaces_it_has_its_attributes(self, tree: Tree, damaged: bytes) -> None:
        tree.chmod("/a.jpg", 0o640)
        write(tree, "/a.jpg", b"good")
        assert stat.S_IMODE(tree.getattr("/a.jpg").mode) == 0o640


USER_BLOB = container.pack(container.KIND_RAW, 3, {"note": "theirs"}, {"file": b"abc"})


class TestUserBytesThatLookLikeABlob:
    @pytest.mark.parametrize(
        "parts",
        [
            [USER_BLOB],
            [USER_BLOB[:4], USER_BLOB[4:]],
            [USER_BLOB[i : i + 1] for i in range(len(USER_BLOB))],
            [MAGIC],
            [MAGIC + b"no blob at all"],
        ],
        ids=["whole", "in two", "byte by byte", "the magic alone", "the magic and more"],
    )
    def test_they_come_back_bit_for_bit(self, tree: Tree, parts: list[bytes]) -> None:
        write(tree, "/a", *parts)
        assert read(tree, "/a") == b"".join(parts)
        assert tree.getattr("/a").size == len(b"".join(parts))

    def test_they_are_wrapped_in_the_store(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/a", USER_BLOB)
        assert container.parse((root / "a").read_bytes()).sections == {"file": USER_BLOB}
        assert owner.services.stat("a").reason == "begins like a blob"

    def test_the_store_never_has_them_bare(self, tree: Tree, root: Path) -> None:
        handle = tree.create("/a", 0o644, os.O_RDWR)
        handle.write(USER_BLOB, 0)
        assert (root / "a").read_bytes() == b""
        assert handle.read(1000, 0) == USER_BLOB
        assert tree.getattr("/a").size == len(USER_BLOB)
        tree.release(handle)

    def test_they_can_be_written_on_after_a_flush(self, tree: Tree) -> None:
        handle = tree.create("/a", 0o644, os.O_RDWR)
        handle.write(USER_BLOB, 0)
        handle.flush()
        handle.write(b"more", len(USER_BLOB))
        handle.flush()
        tree.release(handle)
        assert read(tree, "/a") == USER_BLOB + b"more"

    def test_they_can_become_other_bytes_again(self, tree: Tree, root: Path) -> None:
        write(tree, "/a", USER_BLOB)
        handle = tree.open("/a", os.O_RDWR)
        handle.write(b"text", 0)
        tree.release(handle)
        assert (root / "a").read_bytes() == b"text" + USER_BLOB[4:]

    def test_bytes_put_before_the_rest_of_the_magic(self, tree: Tree) -> None:
        handle = tree.create("/a", 0o644, os.O_RDWR)
        handle.write(USER_BLOB[1:], 1)
        handle.write(USER_BLOB[:1], 0)
        tree.release(handle)
        assert read(tree, "/a") == USER_BLOB

    def test_a_file_with_two_names_cannot_begin_so(self, tree: Tree) -> None:
        write(tree, "/a", b"content")
        tree.link("/a", "/b")
        handle = tree.open("/a", os.O_RDWR)
        with pytest.raises(OSError, match="several names"):
            handle.write(USER_BLOB, 0)
        tree.release(handle)
        assert read(tree, "/b") == b"content"

    def test_attributes_are_kept(self, tree: Tree) -> None:
        write(tree, "/a", USER_BLOB)
        tree.chmod("/a", 0o440)
        tree.utimens("/a", 1, 2)
        assert (stat.S_IMODE(tree.getattr("/a").mode), tree.getattr("/a").mtime_ns) == (0o440, 2)

    def test_an_imported_file_comes_back(self, owner: Owner, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(USER_BLOB)
        owner.services.add(tmp_path / "source", "a")
        assert read(tree, "/a") == USER_BLOB


class TestNames:
    def test_rename_replaces(self, tree: Tree) -> None:
        write(tree, "/a", b"a")
        write(tree, "/b", b"b")
        tree.rename("/a", "/b")
        assert read(tree, "/b") == b"a"

    def test_rename_without_replacing_refuses_an_existing_name(self, tree: Tree) -> None:
        write(tree, "/a", b"a")
        write(tree, "/b", b"b")
        with pytest.raises(FileExistsError):
            tree.rename("/a", "/b", replace=False)
        assert read(tree, "/b") == b"b"

    def test_undecodable_names(self, tree: Tree) -> None:
        write(tree, "/\udcff\udcfe.jpg", b"content")
        folder = tree.open_folder("/")
        assert ("\udcff\udcfe.jpg", stat.S_IFREG) in list(folder.entries())
        folder.release()
        assert read(tree, "/\udcff\udcfe.jpg") == b"content"

    def test_symbolic_links(self, tree: Tree) -> None:
        tree.symlink("no where", "/a")
        assert tree.readlink("/a") == "no where"
        assert stat.S_ISLNK(tree.getattr("/a").mode)

    def test_a_pipe(self, tree: Tree) -> None:
        tree.mknod("/a", stat.S_IFIFO | 0o600, 0)
        assert stat.S_ISFIFO(tree.getattr("/a").mode)

    def test_a_folder_that_is_not_empty_stays(self, tree: Tree) -> None:
        tree.mkdir("/d", 0o755)
        write(tree, "/d/a", b"")
        with pytest.raises(OSError, match="not empty"):
            tree.rmdir("/d")


class TestXattrs:
    @pytest.mark.parametrize("name", ["user.sdfs.status", "user.sdfs.other"])
    def test_our_own_cannot_be_set(self, tree: Tree, name: str) -> None:
        write(tree, "/a", b"")
        with pytest.raises(PermissionError):
            tree.setxattr("/a", name, b"", 0)

    def test_our_own_are_not_listed(self, tree: Tree, root: Path) -> None:
        write(tree, "/a", b"")
        os.setxattr(root / "a", "user.sdfs.status", b"")
        assert tree.listxattr("/a") == []

    def test_they_can_be_removed(self, tree: Tree) -> None:
        write(tree, "/a", b"")
        tree.setxattr("/a", "user.x", b"1", 0)
        tree.removexattr("/a", "user.x")
        assert tree.listxattr("/a") == []


class TestAccess:
    def test_add_keeps_time_and_mode(self, owner: Owner, tree: Tree, tmp_path: Path) -> None:
        source = tmp_path / "a"
        source.write_bytes(b"content")
        source.chmod(0o640)
        os.utime(source, ns=(1, 2))
        owner.services.add(source, "new/folder/a")
        attributes = tree.getattr("/new/folder/a")
        assert (stat.S_IMODE(attributes.mode), attributes.mtime_ns) == (0o640, 2)

    def test_add_refuses_an_existing_name(self, owner: Owner, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"new")
        write(tree, "/a", b"old")
        with pytest.raises(UserError, match="exists"):
            owner.services.add(tmp_path / "a", "a")
        assert read(tree, "/a") == b"old"

    def test_an_added_picture_is_pending(self, owner: Owner, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(PICTURE)
        owner.services.add(tmp_path / "a", "a")
        assert owner.services.stat("a").state == "pending"

    def test_a_path_through_a_symbolic_link_is_refused(self, owner: Owner, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        tree.symlink(str(tmp_path), "/out")
        with pytest.raises(UserError, match="symbolic link"):
            owner.services.stat("out/secret")

    def test_a_path_cannot_climb_out(self, owner: Owner, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        with pytest.raises(UserError, match="No such file"):
            owner.services.stat("../secret")

    @pytest.mark.usefixtures("blob")
    def test_status_counts(self, owner: Owner, tree: Tree, root: Path) -> None:
        write(tree, "/plain", b"content")
        write(tree, "/pending", PICTURE)
        status = owner.services.status()
        assert (status.exact, status.pending, status.plain) == (1, 1, 1)
        assert status.logical_bytes == 2 * len(PICTURE) + 7
        assert status.stored_bytes == len(PICTURE) + 7 + (root / "a.jpg").stat().st_size

    def test_list_tells_what_is_in_a_folder(self, owner: Owner, tree: Tree) -> None:
        tree.mkdir("/d", 0o755)
        write(tree, "/a", b"content")
        assert [(listed.path, listed.state, listed.logical_bytes) for listed in owner.services.list("/")] == [
            ("/a", "plain", 7),
            ("/d", "folder", 0),
        ]


def test_readers_of_a_file_that_is_replaced_swapped_and_changed_see_one_whole_version(
    owner: Owner, tree: Tree, engine: GatedEngine
) -> None:
    versions = [b"\xff\xd8\xff" + letter * 5000 + b"END" for letter in (b"A", b"B", b"C")]
    end = time.monotonic() + 1.5

    def replace() -> None:
        for version in itertools.cycle(versions):
            write(tree, "/new", version)
            tree.rename("/new", "/a")
            if time.monotonic() > end:
                return

    def change() -> None:
        for mode in itertools.cycle((0o600, 0o400)):
            tree.chmod("/a", mode)
            if time.monotonic() > end:
                return

    def look() -> None:
        while time.monotonic() < end:
            assert read(tree, "/a") in versions

    write(tree, "/a", versions[0])
    owner.compressor.start()
    tree.pending.hurry(1)
    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(task) for task in (replace, change, look, look, look)]:
            done.result()
    assert engine.encodes > 0


class TestAnFsyncOfTheFolderThatFails:
    @pytest.fixture
    def failures(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
        """Errors that the next syncs of names end with."""
        errors: list[OSError] = []
        sync = tree.durable_names.sync

        def fail(path: str) -> None:
            if errors:
                raise errors.pop()
            sync(path)

        monkeypatch.setattr(tree.durable_names, "sync", fail)
        return errors

    @pytest.fixture
    def handle(self, owner: Owner, tree: Tree) -> Iterator[Handle]:
        """Of a blob that was written to."""
        write(tree, "/a.jpg", PICTURE)
        shrink(owner)
        handle = tree.open("/a.jpg", os.O_RDWR)
        handle.write(b"text", 0)
        yield handle
        tree.release(handle)

    def test_is_told_to_the_writer(self, handle: Handle, failures: list[OSError]) -> None:
        failures.append(OSError(errno.EIO, "broken"))
        with pytest.raises(OSError, match="broken"):
            handle.fsync()

    def test_is_made_up_for_by_the_next_one(self, handle: Handle, failures: list[OSError], root: Path) -> None:
        failures.append(OSError(errno.EIO, "broken"))
        with pytest.raises(OSError, match="broken"):
            handle.fsync()
        handle.fsync()
        assert (root / "a.jpg").read_bytes()[:4] == b"text"

    def test_loses_nothing_at_the_last_close(self, tree: Tree, handle: Handle, failures: list[OSError], root: Path) -> None:
        failures.append(OSError(errno.EIO, "broken"))
        handle.inode.commit_or_rescue()
        assert (root / "a.jpg").read_bytes()[:4] == b"text"
