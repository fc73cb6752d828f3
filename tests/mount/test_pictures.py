"""Pictures through the kernel: swapped under readers' eyes, without the codec (see lossless_engine)."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from pathlib import Path

import pytest

from sdfs.blob import container
from tests.support.mounting import Mounted, needs_fuse
from tests.support.waiting import eventually

pytestmark = needs_fuse

PICTURE = b"\xff\xd8\xff" + b"picture " * 50_000 + b"END"


@pytest.fixture
def picture(mounted: Mounted, folder: Path) -> Path:
    """A picture in the mount that is a blob in the store."""
    (folder / "a.jpg").write_bytes(PICTURE)
    mounted.sync()
    return folder / "a.jpg"


def is_blob(path: Path) -> bool:
    return container.is_blob(path.read_bytes())


def test_a_picture_shrinks_by_itself(folder: Path, backing: Path) -> None:
    (folder / "a.jpg").write_bytes(PICTURE)
    eventually(lambda: is_blob(backing / "a.jpg"), "a blob")
    assert (folder / "a.jpg").read_bytes() == PICTURE


def test_a_picture_by_another_name_shrinks_as_well(mounted: Mounted, folder: Path, backing: Path) -> None:
    (folder / "a.txt").write_bytes(PICTURE)
    mounted.sync()
    assert is_blob(backing / "a.txt")
    assert (folder / "a.txt").read_bytes() == PICTURE


def test_sync_sees_what_was_just_closed(mounted: Mounted, folder: Path, backing: Path) -> None:
    for i in range(20):
        (folder / f"{i}.jpg").write_bytes(PICTURE)
    mounted.sync()
    assert all(is_blob(path) for path in backing.iterdir())


def test_stat_and_content_agree(picture: Path) -> None:
    assert picture.stat().st_size == len(picture.read_bytes()) == len(PICTURE)


def test_stat_does_not_change_at_the_swap(mounted: Mounted, folder: Path, backing: Path) -> None:
    path = folder / "a.jpg"
    path.write_bytes(PICTURE)
    path.chmod(0o604)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    before = path.stat()
    mounted.sync()
    after = path.stat()
    assert is_blob(backing / "a.jpg")
    kept = ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]


def test_tail(picture: Path) -> None:
    assert subprocess.run(["tail", "-c", "6", picture], check=True, capture_output=True).stdout == PICTURE[-6:]


def test_dd_at_odd_offsets(picture: Path) -> None:
    command = ["dd", f"if={picture}", "bs=777", "skip=300", "count=50", "status=none"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == PICTURE[777 * 300 :][: 777 * 50]


def test_a_mapping(picture: Path) -> None:
    with picture.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert mapping[:] == PICTURE


def test_a_mapping_outlives_its_descriptor_and_keeps_the_file_from_being_swapped(mounted: Mounted, folder: Path, backing: Path) -> None:
    (folder / "a.jpg").write_bytes(PICTURE)
    with (folder / "a.jpg").open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    mounted.sync()
    assert not is_blob(backing / "a.jpg")
    assert mapping[:] == PICTURE
    mapping.close()
    eventually(lambda: is_blob(backing / "a.jpg"), "a blob")


def test_the_kernel_does_not_serve_pages_of_what_was_there_before(mounted: Mounted, folder: Path) -> None:
    other = PICTURE.replace(b"picture", b"drawing")
    path = folder / "a.jpg"
    for content in (PICTURE, other, PICTURE):
        path.write_bytes(content)
        assert path.read_bytes() == content
        mounted.sync()
        assert path.read_bytes() == content


def test_overwriting_a_part(mounted: Mounted, picture: Path) -> None:
    with picture.open("r+b") as file:
        file.seek(1000)
        file.write(b"XYZ")
    assert picture.read_bytes() == PICTURE[:1000] + b"XYZ" + PICTURE[1003:]


def test_appending(picture: Path) -> None:
    with picture.open("ab") as file:
        file.write(b"tail")
    assert picture.read_bytes() == PICTURE + b"tail"
    assert picture.stat().st_size == len(PICTURE) + 4


@pytest.mark.parametrize("size", [0, 1000, len(PICTURE) + 10])
def test_truncating(picture: Path, size: int) -> None:
    os.truncate(picture, size)
    assert picture.read_bytes() == PICTURE[:size].ljust(size, b"\0")


def test_replacing(picture: Path) -> None:
    picture.write_bytes(b"text")
    assert picture.read_bytes() == b"text"


def test_a_writer_and_a_reader_see_the_same(picture: Path) -> None:
    with picture.open("rb", buffering=0) as reader, picture.open("r+b", buffering=0) as writer:
        assert reader.read(10) == PICTURE[:10]
        writer.write(b"XYZ")
        reader.seek(0)
        assert reader.read(10) == b"XYZ" + PICTURE[3:10]


def test_writing_through_a_mapping(mounted: Mounted, picture: Path) -> None:
    with picture.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[1000:1003] = b"XYZ"
    assert picture.read_bytes()[999:1004] == PICTURE[999:1000] + b"XYZ" + PICTURE[1003:1004]


def test_an_attempt_to_link_is_refused(picture: Path) -> None:
    with pytest.raises(OSError, match="not supported") as raised:
        os.link(picture, picture.with_name("b.jpg"))
    assert raised.value.errno == errno.ENOTSUP


def test_a_picture_with_two_names_is_left_alone(mounted: Mounted, folder: Path, backing: Path) -> None:
    (folder / "a.jpg").write_bytes(PICTURE)
    (folder / "b.jpg").hardlink_to(folder / "a.jpg")
    mounted.sync()
    assert not is_blob(backing / "a.jpg")


def test_rename_and_unlink(picture: Path, backing: Path) -> None:
    moved = picture.rename(picture.with_name("b.jpg"))
    assert moved.read_bytes() == PICTURE
    moved.unlink()
    eventually(lambda: list(backing.iterdir()) == [], "nothing is left once the file is released")


def test_an_open_picture_can_be_unlinked_and_read(picture: Path) -> None:
    with picture.open("rb") as file:
        picture.unlink()
        assert file.read() == PICTURE


def test_a_read_only_mode(picture: Path, backing: Path) -> None:
    picture.chmod(0o400)
    assert picture.stat().st_mode & 0o7777 == 0o400
    assert (backing / "a.jpg").stat().st_mode & 0o600 == 0o600
    assert picture.read_bytes() == PICTURE


def test_status_is_an_xattr_that_is_not_listed(picture: Path) -> None:
    assert b'"state": "exact"' in os.getxattr(picture, "user.sdfs.status")
    assert os.listxattr(picture) == []


def test_damage_is_an_error_for_that_file_alone_and_is_logged(mounted: Mounted, folder: Path, backing: Path) -> None:
    for name in ("good.jpg", "bad.jpg"):
        (folder / name).write_bytes(PICTURE.replace(b"picture", name[:3].encode()))
    mounted.sync()
    content = bytearray((backing / "bad.jpg").read_bytes())
    content[-1] ^= 1
    (backing / "bad.jpg").write_bytes(content)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            (folder / "bad.jpg").read_bytes()
    assert (folder / "good.jpg").read_bytes() == PICTURE.replace(b"picture", b"goo")
    assert mounted.log.read_text().count(f"{backing / 'bad.jpg'} cannot be read") == 1
    (folder / "bad.jpg").unlink()


def test_attributes_set_between_opening_and_writing_stay(picture: Path) -> None:
    with picture.open("r+b", buffering=0) as file:
        picture.chmod(0o400)
        os.setxattr(picture, "user.new", b"2")
        picture.chmod(0o600)
        file.seek(0, os.SEEK_END)
        file.write(b"tail")
    assert picture.stat().st_mode & 0o777 == 0o600
    assert os.getxattr(picture, "user.new") == b"2"
