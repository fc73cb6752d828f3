"""Blobs that are read and written: copy-up at the first write, the working copy, the commit."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdfs.owner.owner import Owner
from sdfs.owner.tree.handle import Handle
from sdfs.owner.tree.tree import Tree
from tests.support.gated_engine import GatedEngine
from tests.support.lossless_engine import PICTURE
from tests.support.trees import is_blob, read, shrink, trash, write


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
