"""Raw blobs are read and written on the disk itself: checked once, bit for bit, whatever their size."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.blob.container import KIND_RAW, MAGIC
from sdfs.errors import DamagedError
from sdfs.owner.owner import Owner
from sdfs.owner.renders import raw_blobs
from sdfs.owner.tree.tree import Tree
from tests.support.memory import taken_kib
from tests.support.trees import read, write

CONTENT = MAGIC + bytes(range(256)) * 100
HOLE = 8 << 20
LARGE = 150 << 20


@pytest.fixture
def blob(tree: Tree, root: Path) -> Path:
    """CONTENT at /a; its backing file."""
    write(tree, "/a", CONTENT)
    return root / "a"


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A file that begins with the blob magic, and has a word between two large holes."""
    return make_sparse(tmp_path / "sparse", HOLE)


def make_sparse(path: Path, hole: int) -> Path:
    with path.open("wb") as file:
        file.write(CONTENT)
        file.seek(hole)
        file.write(b"the end")
        file.truncate(2 * hole)
    return path


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def disk_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


class TestReading:
    def test_it_takes_no_memory_for_a_cache(self, owner: Owner, tree: Tree, blob: Path) -> None:
        assert read(tree, "/a") == CONTENT
        assert owner.services.statistics().memory_bytes == 0

    def test_any_range(self, tree: Tree, blob: Path) -> None:
        assert read(tree, "/a", 10, 5000) == CONTENT[5000:5010]
        assert read(tree, "/a", 100, len(CONTENT) - 3) == CONTENT[-3:]
        assert read(tree, "/a", 100, len(CONTENT)) == b""

    def test_the_kernel_keeps_pages_from_the_second_open_on(self, tree: Tree, blob: Path) -> None:
        read(tree, "/a")
        handle = tree.open("/a", os.O_RDONLY)
        assert handle.keep_cache
        tree.release(handle)

    def test_the_checksum_is_computed_once_for_all_readers(self, tree: Tree, blob: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        computed = []
        crc32 = raw_blobs._crc32
        monkeypatch.setattr(raw_blobs, "_crc32", lambda fd, offset: computed.append(offset) or crc32(fd, offset))
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: read(tree, "/a"), range(32))) == {CONTENT}
        assert len(computed) == 1

    def test_a_flipped_bit_is_an_error_and_one_log_line(self, tree: Tree, blob: Path, caplog: pytest.LogCaptureFixture) -> None:
        flip(blob, -5000)
        for _ in range(3):
            with pytest.raises(DamagedError, match="checksum"):
                read(tree, "/a", 10)
        assert [record.getMessage().split()[0] for record in caplog.records] == [str(blob)]

    def test_once_it_is_whole_again_it_is_read(self, tree: Tree, blob: Path) -> None:
        flip(blob, -5000)
        with pytest.raises(DamagedError):
            read(tree, "/a")
        flip(blob, -5000)
        assert read(tree, "/a") == CONTENT

    @pytest.mark.parametrize(
        ("size", "sections"),
        [
            (3, {"file": b"abc", "more": b""}),
            (3, {"more": b"abc"}),
            (3, {}),
            (2, {"file": b"abc"}),
            (4, {"file": b"abc"}),
        ],
        ids=["two sections", "another name", "no section", "too long", "too short"],
    )
    def test_a_section_table_that_breaks_the_rules_is_damage(self, tree: Tree, root: Path, size: int, sections: dict[str, bytes]) -> None:
        (root / "b").write_bytes(container.pack(KIND_RAW, size, {"note": "x"}, sections))
        with pytest.raises(DamagedError, match="one section"):
            read(tree, "/b")

    def test_a_payload_that_does_not_end_with_the_file_is_damage(self, tree: Tree, blob: Path) -> None:
        with blob.open("ab") as file:
            file.write(b"x")
        with pytest.raises(DamagedError, match="one section"):
            read(tree, "/a")


class TestWriting:
    def test_a_write_changes_what_it_says_and_nothing_else(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a", os.O_RDWR)
        handle.write(b"XYZ", 5000)
        handle.flush()
        tree.release(handle)
        assert read(tree, "/a") == CONTENT[:5000] + b"XYZ" + CONTENT[5003:]

    def test_damage_is_not_copied_up(self, tree: Tree, blob: Path) -> None:
        flip(blob, -5000)
        handle = tree.open("/a", os.O_RDWR)
        with pytest.raises(DamagedError):
            handle.write(b"XYZ", 5000)
        tree.release(handle)

    def test_a_mode_that_a_backing_file_cannot_have(self, tree: Tree, blob: Path) -> None:
        tree.chmod("/a", 0o400)
        assert stat.S_IMODE(tree.getattr("/a").mode) == 0o400
        assert read(tree, "/a") == CONTENT

    def test_what_is_larger_than_a_blob_can_be_is_refused(self, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a", os.O_RDWR)
        handle.truncate(container.MAX_RENDERED_BYTES + 1)
        with pytest.raises(OSError, match="too large") as raised:
            handle.flush()
        assert raised.value.errno == errno.EFBIG
        handle.truncate(100)
        tree.release(handle)
        assert read(tree, "/a") == CONTENT[:100]


class TestHoles:
    def test_they_stay_in_what_is_imported(self, owner: Owner, tree: Tree, sparse: Path, root: Path) -> None:
        owner.services.add(sparse, "a")
        assert tree.getattr("/a").size == sparse.stat().st_size
        assert disk_bytes(root / "a") < 1 << 20
        assert read(tree, "/a", 100, HOLE - 5) == (bytes(5) + b"the end").ljust(100, b"\0")

    def test_they_stay_in_what_is_copied_up(self, owner: Owner, tree: Tree, sparse: Path, root: Path) -> None:
        owner.services.add(sparse, "a")
        handle = tree.open("/a", os.O_RDWR)
        handle.write(b"text", 0)
        handle.flush()
        tree.release(handle)
        assert (root / "a").stat().st_size == sparse.stat().st_size
        assert disk_bytes(root / "a") < 1 << 20
        assert read(tree, "/a", 7, HOLE) == b"the end"

    def test_they_stay_in_an_imported_file_that_is_no_blob(self, owner: Owner, sparse: Path, root: Path) -> None:
        flip(sparse, 0)
        owner.services.add(sparse, "a")
        assert (root / "a").stat().st_size == sparse.stat().st_size
        assert disk_bytes(root / "a") < 1 << 20


MEMORY = """
import os, sys
from pathlib import Path
from sdfs.owner.owner import Owner
from tests.support.lossless_engine import LosslessEngine

def written(path, flags, content, offset):
    handle = tree.create(path, 0o644, flags)
    handle.write(content, offset)
    handle.flush()
    tree.release(handle)

owner = Owner(Path(sys.argv[1]), engine=LosslessEngine)
tree = owner.tree
before = peak()
owner.services.add(Path(sys.argv[2]), "a")
handle = tree.open("/a", os.O_RDONLY)
assert len(handle.read(1 << 20, 0)) == 1 << 20
tree.release(handle)
tree.chmod("/a", 0o400)
written("/a", os.O_RDWR, b"again", 1 << 20)
written("/a", os.O_RDWR, b"text", 0)
owner.close()
print(peak() - before)
"""


def test_no_more_than_chunks_of_a_large_one_are_in_memory(root: Path, tmp_path: Path) -> None:
    """Import, check, read, chmod, copy-up, wrapping again, unwrapping."""
    assert taken_kib(MEMORY, root, make_sparse(tmp_path / "large", LARGE)) < 40 << 10
