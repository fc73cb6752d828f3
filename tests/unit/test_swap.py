"""A picture becomes a blob: which, when, and what others do meanwhile."""

from __future__ import annotations

import itertools
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sdfs.errors import EngineError
from sdfs.owner.owner import Owner
from sdfs.owner.services import Mount
from sdfs.owner.store.attributes import forget_plain
from sdfs.owner.tree import inode
from sdfs.owner.tree.tree import Tree
from tests.support.gated_engine import GatedEngine
from tests.support.lossless_engine import PICTURE, LosslessEngine
from tests.support.trees import is_blob, read, shrink, trash, write
from tests.support.waiting import eventually


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
