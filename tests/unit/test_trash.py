"""What was replaced can be listed, put back, and forgotten; and what a folder takes is summed up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.control.client import ControlClient
from sdfs.control.requests import Access
from sdfs.control.server import ControlServer
from sdfs.errors import DamagedError, UserError
from sdfs.owner.owner import Owner
from sdfs.owner.store.store import Store
from tests.support.lossless_engine import PICTURE, LosslessEngine
from tests.support.memory import CHUNKS_KIB, taken_kib, write_large_raw_blob
from tests.support.trees import shrink


@pytest.fixture
def owner(root: Path) -> Iterator[Owner]:
    """Of a store in which `2024/photo.jpg` was shrunk."""
    (root / "2024").mkdir()
    (root / "2024" / "photo.jpg").write_bytes(PICTURE)
    owner = Owner(root, engine=LosslessEngine)
    shrink(owner)
    yield owner
    owner.close()


@pytest.fixture(params=["in the owner", "through its socket"])
def access(request: pytest.FixtureRequest, owner: Owner, tmp_path: Path) -> Iterator[Access]:
    if request.param == "in the owner":
        yield owner.services
        return
    owner.store.announce(str(tmp_path / "socket"))
    server = ControlServer(owner.services, lambda: owner.store.identity, str(tmp_path / "socket"))
    yield ControlClient(str(tmp_path / "socket"), owner.store.identity)
    server.close()


def write(owner: Owner, path: str, content: bytes) -> None:
    handle = owner.tree.open(path, os.O_WRONLY | os.O_TRUNC)
    handle.write(content, 0)
    handle.flush()
    owner.tree.release(handle)


def test_the_original_of_a_shrunk_picture_is_listed_with_its_path(access: Access) -> None:
    [trashed] = access.trashed()
    assert (trashed.path, trashed.logical_bytes, trashed.stored_bytes) == ("/2024/photo.jpg", len(PICTURE), len(PICTURE))


def test_a_blob_that_was_written_over_is_listed_with_the_size_that_readers_knew(owner: Owner) -> None:
    write(owner, "/2024/photo.jpg", b"text")
    trashed = owner.services.trashed()[-1]
    assert (trashed.path, trashed.logical_bytes) == ("/2024/photo.jpg", len(PICTURE))
    assert trashed.stored_bytes < len(PICTURE)


def test_it_goes_back_to_where_it_was(access: Access, root: Path) -> None:
    (root / "2024" / "photo.jpg").unlink()
    (root / "2024").rmdir()
    assert access.restore("2024/photo.jpg", None) == "/2024/photo.jpg"
    assert (root / "2024" / "photo.jpg").read_bytes() == PICTURE
    assert list(access.trashed()) == []


def test_it_can_be_named_as_it_is_in_the_trash(access: Access, root: Path) -> None:
    (root / "2024" / "photo.jpg").unlink()
    assert access.restore(access.trashed()[0].name, None) == "/2024/photo.jpg"


def test_a_path_means_the_newest_of_that_path(owner: Owner, root: Path) -> None:
    write(owner, "/2024/photo.jpg", b"text")
    owner.services.restore("2024/photo.jpg", "back")
    assert container.is_blob((root / "back" / "photo.jpg").read_bytes())


def test_it_replaces_nothing(access: Access, root: Path) -> None:
    with pytest.raises(UserError, match="exists"):
        access.restore("2024/photo.jpg", None)
    assert len(access.trashed()) == 1
    assert container.is_blob((root / "2024" / "photo.jpg").read_bytes())


def test_it_can_go_elsewhere(access: Access, root: Path) -> None:
    assert access.restore("2024/photo.jpg", "a/b") == "/a/b/photo.jpg"
    assert (root / "a" / "b" / "photo.jpg").read_bytes() == PICTURE


def test_it_cannot_go_into_the_internal_folder(access: Access) -> None:
    with pytest.raises(UserError):
        access.restore("2024/photo.jpg", ".sdfs/trash")


def test_it_cannot_leave_the_store_through_a_link(access: Access, root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(UserError, match="symbolic link"):
        access.restore("2024/photo.jpg", "out")


def test_what_is_not_in_the_trash_is_refused(access: Access) -> None:
    with pytest.raises(UserError, match="not in the trash"):
        access.restore("other.jpg", None)


def test_where_no_path_is_recorded_a_folder_has_to_be_named(owner: Owner, root: Path) -> None:
    os.removexattr(root / ".sdfs" / "trash" / owner.services.trashed()[0].name, "user.sdfs.path")
    with pytest.raises(UserError, match="--to"):
        owner.services.restore(owner.services.trashed()[0].name, None)
    assert owner.services.restore(owner.services.trashed()[0].name, "back") == "/back/photo.jpg"


def test_user_bytes_that_begin_like_a_blob_do_not_get_into_the_tree(owner: Owner, root: Path) -> None:
    (root / ".sdfs" / "trash" / "1-0.rescued").write_bytes(container.MAGIC + b"user bytes")
    with pytest.raises(DamagedError):
        owner.services.restore("1-0.rescued", "back")


LARGE_BLOB = """
import sys
from pathlib import Path
from sdfs.owner.owner import Owner
from tests.support.lossless_engine import LosslessEngine
owner = Owner(Path(sys.argv[1]), engine=LosslessEngine)
before = peak()
owner.services.restore("1-0.raw", "back")
print(peak() - before)
owner.close()
"""


def test_no_more_than_chunks_of_a_large_raw_blob_are_in_memory(root: Path) -> None:
    Store(root).close()
    write_large_raw_blob(root / ".sdfs" / "trash" / "1-0.raw")
    assert taken_kib(LARGE_BLOB, root) < CHUNKS_KIB
    assert (root / "back" / "raw").exists()


class TestARestoredOriginal:
    @pytest.fixture(autouse=True)
    def _restored(self, owner: Owner) -> None:
        owner.services.restore("2024/photo.jpg", "back")

    def test_stays_plain(self, owner: Owner, root: Path) -> None:
        shrink(owner)
        assert (root / "back" / "photo.jpg").read_bytes() == PICTURE
        assert owner.services.stat("back/photo.jpg").state == "plain"

    def test_is_nothing_that_the_scan_of_the_next_owner_wants(self, owner: Owner, root: Path) -> None:
        path = root / "back" / "photo.jpg"
        assert not owner.compressor.wants(str(path), path.lstat())

    def test_stays_plain_under_another_name(self, owner: Owner) -> None:
        owner.tree.rename("/back/photo.jpg", "/2024/photo.jpg")
        shrink(owner)
        assert owner.services.stat("2024/photo.jpg").state == "plain"

    def test_is_shrunk_once_it_is_written_to(self, owner: Owner) -> None:
        write(owner, "/back/photo.jpg", PICTURE)
        shrink(owner)
        assert owner.services.stat("back/photo.jpg").state == "exact"

    def test_shows_no_mark(self, owner: Owner) -> None:
        assert owner.tree.listxattr("/back/photo.jpg") == []

    def test_gives_no_mark_to_a_copy(self, owner: Owner, root: Path) -> None:
        owner.services.add(root / "back" / "photo.jpg", "copy.jpg")
        shrink(owner)
        assert owner.services.stat("copy.jpg").state == "exact"


def test_an_emptied_trash_is_empty(access: Access) -> None:
    access.empty_trash()
    assert list(access.trashed()) == []


def test_a_folder_takes_what_its_files_take_and_the_trash_keeps_of_them(access: Access, root: Path) -> None:
    (root / "2024" / "notes").write_bytes(b"text")
    (root / "2025").mkdir()
    stored = (root / "2024" / "photo.jpg").stat().st_size + 4
    usage = access.usage("2024")
    assert (usage.files, usage.logical_bytes, usage.stored_bytes, usage.trash_bytes) == (2, len(PICTURE) + 4, stored, len(PICTURE))
    assert access.usage("2025").trash_bytes == 0


def test_the_root_takes_the_whole_trash(access: Access, root: Path) -> None:
    (root / ".sdfs" / "trash" / "1-0.unknown").write_bytes(b"12345")
    assert access.usage("").trash_bytes == len(PICTURE) + 5


def test_a_file_takes_what_its_blob_and_its_original_take(access: Access) -> None:
    usage = access.usage("2024/photo.jpg")
    assert (usage.files, usage.logical_bytes, usage.trash_bytes) == (1, len(PICTURE), len(PICTURE))
