"""sdfs.owner.store.fsck: what is found, what is repaired, and that nothing else changes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.blob.container import KIND_RAW, MAGIC
from sdfs.errors import DamagedError, ModelMissing, NotAStore, StoreBusy
from sdfs.owner.store.fsck import Finding, check
from sdfs.owner.store.store import Store, init
from sdfs.settings import DEFAULTS
from tests.support.lossless_engine import PICTURE, LosslessEngine
from tests.support.memory import CHUNKS_KIB, taken_kib, write_large_raw_blob


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with a plain file and a blob."""
    init(tmp_path / "store")
    Store(tmp_path / "store").close()
    (tmp_path / "store" / "notes.txt").write_text("text")
    (tmp_path / "store" / "photo.jpg").write_bytes(blob_of(PICTURE))
    return tmp_path / "store"


def blob_of(content: bytes) -> bytes:
    return LosslessEngine().encode(content, DEFAULTS).result()


def decode(key: str, blob: bytes) -> bytes:
    return LosslessEngine().decode(key, blob).result()


def refuse(key: str, blob: bytes) -> bytes:
    raise DamagedError("slice 3 is cut")


def lack(key: str, blob: bytes) -> bytes:
    raise ModelMissing("pull it")


def raw_blob_of(content: bytes, sha256: str | None = None) -> bytes:
    header = {"original_size": len(content), "original_sha256": sha256 or hashlib.sha256(content).hexdigest()}
    return container.pack(KIND_RAW, len(content), header, {"file": content})


def damage(path: Path) -> None:
    """In its last section."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def kinds(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.path, finding.kind) for finding in findings]


def snapshot(root: Path) -> dict[str, object]:
    return {
        str(path): (status.st_ino, status.st_mode, status.st_nlink, status.st_mtime_ns, status.st_ctime_ns)
        for path in [root, *root.rglob("*")]
        for status in [path.lstat()]
    }


def test_a_sound_store_has_nothing_to_be_found(root: Path) -> None:
    assert check(root) == []


@pytest.mark.parametrize("at", [9, 20, 40, -1])
def test_a_flipped_bit_is_damage_wherever_it_is(root: Path, at: int) -> None:
    content = bytearray((root / "photo.jpg").read_bytes())
    content[at] ^= 1
    (root / "photo.jpg").write_bytes(content)
    assert kinds(check(root)) == [("/photo.jpg", "damaged")]


def test_a_blob_cut_short_is_damaged(root: Path) -> None:
    os.truncate(root / "photo.jpg", 1000 if (root / "photo.jpg").stat().st_size > 1000 else 50)
    assert kinds(check(root)) == [("/photo.jpg", "damaged")]


def test_user_bytes_that_begin_like_a_blob_are_found(root: Path) -> None:
    (root / "notes.txt").write_bytes(MAGIC + b"bytes that no SDFS wrote, behind its back")
    assert kinds(check(root)) == [("/notes.txt", "damaged")]


def test_a_raw_blob_that_no_reader_would_get_is_found(root: Path) -> None:
    (root / "raw").write_bytes(container.pack(KIND_RAW, 4, {}, {"file": b"file", "more": b""}))
    assert kinds(check(root)) == [("/raw", "damaged")]


def test_damage_in_the_trash_is_found(root: Path) -> None:
    (root / ".sdfs" / "trash" / "1-0.photo.jpg").write_bytes(MAGIC)
    assert kinds(check(root)) == [("/.sdfs/trash/1-0.photo.jpg", "damaged")]


def test_a_newer_blob_is_no_damage_of_ours_but_told(root: Path) -> None:
    content = container.Preamble(KIND_RAW, 0x80, 0, 0, 0).pack()
    (root / "photo.jpg").write_bytes(content)
    assert kinds(check(root)) == [("/photo.jpg", "too-new")]


def test_the_original_of_a_damaged_blob_is_found_in_the_trash_by_its_content(root: Path) -> None:
    kept = root / ".sdfs" / "trash" / "1-0.renamed.jpg"
    kept.write_bytes(PICTURE)
    damage(root / "photo.jpg")
    [finding] = check(root)
    assert finding.message.endswith(f"its original is {kept}")


def test_where_the_header_is_gone_the_newest_file_of_that_name_is_named(root: Path) -> None:
    for time_ns in (1, 2):
        (root / ".sdfs" / "trash" / f"{time_ns}-0.photo.jpg").write_bytes(PICTURE)
    (root / "photo.jpg").write_bytes(MAGIC)
    [finding] = check(root)
    assert finding.message.endswith("2-0.photo.jpg")


def test_a_damaged_blob_is_not_touched_by_a_repair(root: Path) -> None:
    (root / ".sdfs" / "trash" / "1-0.photo.jpg").write_bytes(PICTURE)
    damage(root / "photo.jpg")
    before = snapshot(root)
    check(root, repair=True)
    assert snapshot(root) == before


def test_a_blob_with_two_names_is_found(root: Path) -> None:
    (root / "second.jpg").hardlink_to(root / "photo.jpg")
    assert kinds(check(root)) == [("/photo.jpg", "links"), ("/second.jpg", "links")]


def test_a_blob_that_its_owner_may_not_write_is_found(root: Path) -> None:
    (root / "photo.jpg").chmod(0o444)
    assert kinds(check(root)) == [("/photo.jpg", "mode")]


def test_what_was_removed_while_it_was_open_is_found(root: Path) -> None:
    (root / ".fuse_hidden0000000100000001").write_text("content")
    assert kinds(check(root)) == [("/.fuse_hidden0000000100000001", "hidden")]


def test_what_is_wrong_within_the_internal_folder_is_found(root: Path) -> None:
    internal = root / ".sdfs"
    internal.chmod(0o755)
    (internal / "stranger").touch()
    (internal / "trash" / "stranger").touch()
    (internal / "staging").rmdir()
    assert kinds(check(root)) == [
        ("/.sdfs", "layout"),
        ("/.sdfs/stranger", "layout"),
        ("/.sdfs/staging", "layout"),
        ("/.sdfs/trash/stranger", "trash-name"),
    ]


def test_an_orphan_in_staging_is_told(root: Path) -> None:
    (root / ".sdfs" / "staging" / "1-2").touch()
    assert kinds(check(root)) == [("/.sdfs/staging/1-2", "staging")]


def test_a_repair_removes_it(root: Path) -> None:
    (root / ".sdfs" / "staging" / "1-2").touch()
    assert [finding.repaired for finding in check(root, repair=True)] == [True]
    assert check(root) == []


def test_a_folder_that_cannot_be_listed_is_damage(root: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may list it")
    (root / "closed").mkdir(mode=0)
    assert kinds(check(root)) == [("/closed", "unreadable")]


def test_without_repair_nothing_changes_whatever_is_found(root: Path) -> None:
    (root / ".sdfs" / "staging" / "1-2").touch()
    (root / ".sdfs" / "trash" / "stranger").touch()
    (root / ".fuse_hidden0000000100000001").write_text("content")
    damage(root / "photo.jpg")
    before = snapshot(root)
    assert len(check(root, decode=decode)) == 4
    assert snapshot(root) == before


def test_a_store_that_nobody_has_owned_yet_stays_as_it_is(tmp_path: Path) -> None:
    init(tmp_path)
    before = snapshot(tmp_path)
    assert check(tmp_path) == []
    assert snapshot(tmp_path) == before


def test_an_owned_store_is_refused(root: Path) -> None:
    store = Store(root)
    with pytest.raises(StoreBusy, match="unmount it"):
        check(root)
    store.close()


def test_nobody_can_own_a_store_that_is_being_checked(root: Path) -> None:
    def progress(done: int, total: int) -> None:
        with pytest.raises(StoreBusy):
            Store(root)

    check(root, progress=progress)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAStore):
        check(tmp_path)


def test_progress_ends_with_all_files(root: Path) -> None:
    told: list[tuple[int, int]] = []
    check(root, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (2, 2)


class TestDecoding:
    def test_a_blob_that_decodes_is_sound(self, root: Path) -> None:
        assert check(root, decode=decode) == []

    def test_a_render_of_another_size_is_found(self, root: Path) -> None:
        assert kinds(check(root, decode=lambda key, blob: decode(key, blob)[:-1])) == [("/photo.jpg", "undecodable")]

    def test_an_exact_blob_that_gives_other_bytes_is_found(self, root: Path) -> None:
        assert kinds(check(root, decode=lambda key, blob: decode(key, blob)[::-1])) == [("/photo.jpg", "undecodable")]

    def test_a_blob_that_the_engine_refuses_is_found(self, root: Path) -> None:
        assert kinds(check(root, decode=refuse)) == [("/photo.jpg", "undecodable")]

    def test_a_blob_whose_model_is_not_here_is_no_damage(self, root: Path) -> None:
        [finding] = check(root, decode=lack)
        assert (finding.path, finding.kind, finding.is_damage) == ("/photo.jpg", "no-model", False)
        assert finding.message == "is whole, but was not decoded: pull it"

    def test_a_damaged_blob_is_not_decoded(self, root: Path) -> None:
        damage(root / "photo.jpg")
        assert kinds(check(root, decode=decode)) == [("/photo.jpg", "damaged")]

    def test_a_raw_blob_is_none_of_the_engines_business(self, root: Path) -> None:
        (root / "photo.jpg").write_bytes(raw_blob_of(b"user bytes"))
        assert check(root, decode=refuse) == []

    def test_a_raw_blob_of_other_bytes_than_were_recorded_is_found(self, root: Path) -> None:
        (root / "photo.jpg").write_bytes(raw_blob_of(b"user bytes", sha256="0" * 64))
        assert kinds(check(root, decode=refuse)) == [("/photo.jpg", "undecodable")]


LARGE_BLOB = """
import sys
from pathlib import Path
from sdfs.owner.store.fsck import check
before = peak()
assert check(Path(sys.argv[1]), decode=lambda key, blob: sys.exit("no engine can take it")) == []
print(peak() - before)
"""


def test_no_more_than_chunks_of_a_large_raw_blob_are_in_memory(root: Path) -> None:
    (root / "photo.jpg").unlink()
    write_large_raw_blob(root / "raw")
    assert taken_kib(LARGE_BLOB, root) < CHUNKS_KIB
