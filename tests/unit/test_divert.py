"""User bytes that begin like a blob: they never lie in the tree as they are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.blob.container import MAGIC
from sdfs.owner.owner import Owner
from sdfs.owner.tree.tree import Tree
from tests.support.trees import read, write

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
