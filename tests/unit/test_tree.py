"""sdfs.owner.tree.tree: names, attributes and plain files, without FUSE."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.blob.container import MAGIC
from sdfs.owner.owner import Owner
from sdfs.owner.tree.tree import Tree
from tests.support.gated_engine import GatedEngine
from tests.support.lossless_engine import PICTURE
from tests.support.trees import read, shrink, write


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
