"""A damaged blob: an error for whoever reads it, and only for him; it can be replaced in its place."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from sdfs.errors import DamagedError, StoreTooNew
from sdfs.owner.owner import Owner
from sdfs.owner.tree.tree import Tree
from tests.support.lossless_engine import PICTURE
from tests.support.trees import is_blob, read, shrink, trash, write


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
