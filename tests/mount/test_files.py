"""Files that are no pictures, and all that is done to names and attributes, through the kernel."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import sqlite3
import stat
import subprocess
import time
from pathlib import Path

import pytest

from sdfs.blob import container
from tests.support.mounting import Mounted, needs_fuse
from tests.support.waiting import eventually

pytestmark = needs_fuse

USER_BLOB = container.pack(container.KIND_RAW, 3, {"note": "theirs"}, {"file": b"abc"})
CONTENTS = {
    "text.txt": b"text\n" * 1000,
    "empty": b"",
    "empty.jpg": b"",
    "text named.jpg": b"this is no picture",
    "broken.jpg": b"\xff\xd8\xff\xe0 and no more",
    "broken.png": b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "magic": b"\x89SDFS\r\n\x1a",
    "magic and more": b"\x89SDFS\r\n\x1a and more",
    "a blob": USER_BLOB,
    "large": bytes(range(256)) * 20_000,
    "ünï çødé 猫": b"utf-8",
    " leading and trailing ": b"spaces",
    "\udcff\udcfe undecodable": b"bytes",
    "new\nline": b"newline",
}


@pytest.mark.parametrize("name", CONTENTS, ids=ascii)
def test_what_cp_brings_in_comes_out_bit_for_bit(mounted: Mounted, folder: Path, tmp_path: Path, name: str) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(CONTENTS[name])
    subprocess.run(["cp", os.fsencode(source), os.fsencode(folder / name)], check=True)
    mounted.sync()
    subprocess.run(["cp", os.fsencode(folder / name), os.fsencode(back)], check=True)
    assert back.read_bytes() == CONTENTS[name]
    assert (folder / name).stat().st_size == len(CONTENTS[name])


def test_a_blob_that_is_copied_in_is_wrapped_at_once(folder: Path, backing: Path) -> None:
    (folder / "a").write_bytes(USER_BLOB)
    assert container.parse((backing / "a").read_bytes()).sections["file"] == USER_BLOB


def test_a_blob_that_is_being_written_reads_as_written(folder: Path, backing: Path) -> None:
    with (folder / "a").open("wb", buffering=0) as file:
        file.write(USER_BLOB)
        assert (folder / "a").read_bytes() == USER_BLOB
        assert (folder / "a").stat().st_size == len(USER_BLOB)
        file.seek(0)
        file.write(b"X")
        assert (folder / "a").read_bytes() == b"X" + USER_BLOB[1:]
    assert (backing / "a").read_bytes() == b"X" + USER_BLOB[1:]


def test_dd_at_odd_offsets(folder: Path) -> None:
    content = CONTENTS["large"]
    (folder / "a").write_bytes(content)
    command = ["dd", f"if={folder / 'a'}", "bs=777", "skip=1234", "count=100", "status=none"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == content[777 * 1234 :][: 777 * 100]


def test_append(folder: Path) -> None:
    for line in (b"one\n", b"two\n"):
        with (folder / "log").open("ab") as file:
            file.write(line)
    assert (folder / "log").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("size", [0, 3, 20])
def test_truncate_by_name_and_by_descriptor(folder: Path, size: int) -> None:
    (folder / "a").write_bytes(b"content")
    (folder / "b").write_bytes(b"content")
    os.truncate(folder / "a", size)
    with (folder / "b").open("r+b") as file:
        file.truncate(size)
        assert os.fstat(file.fileno()).st_size == size
    for name in "ab":
        assert (folder / name).read_bytes() == b"content"[:size].ljust(size, b"\0")


def test_writes_through_a_shared_mapping(folder: Path, backing: Path) -> None:
    (folder / "a").write_bytes(bytes(10_000))
    with (folder / "a").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[5000:5007] = b"content"
        mapping.flush()
    assert (backing / "a").read_bytes()[5000:5007] == b"content"


def test_allocation(folder: Path) -> None:
    with (folder / "a").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 5000)
    assert (folder / "a").stat().st_size == 5000


def test_exclusive_creation(folder: Path) -> None:
    (folder / "a").touch()
    with pytest.raises(FileExistsError):
        (folder / "a").open("x")


def test_an_unlinked_open_file_can_still_be_used(folder: Path, backing: Path) -> None:
    with (folder / "a").open("w+b") as file:
        file.write(b"content")
        (folder / "a").unlink()
        file.seek(0)
        assert file.read() == b"content"
        assert os.fstat(file.fileno()).st_size == 7
        assert os.fstat(file.fileno()).st_nlink == 0
    eventually(lambda: list(backing.iterdir()) == [], "it is released, which follows the close")


def test_sqlite(folder: Path) -> None:
    for _ in range(2):
        database = sqlite3.connect(folder / "database")
        with database:
            database.execute("create table if not exists t (x)")
            database.execute("insert into t values (1)")
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        database.close()


def test_git(folder: Path) -> None:
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e"]
    (folder / "a").write_text("content")
    for arguments in (["init", "-q"], ["add", "a"], ["commit", "-qm", "m"], ["fsck", "--strict"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)


def test_rename_moves_and_replaces(folder: Path) -> None:
    (folder / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    (folder / "a").rename(folder / "b")
    assert (folder / "b").read_bytes() == b"a"
    assert not (folder / "a").exists()


@pytest.mark.parametrize(("flag", "number"), [(1, errno.EEXIST), (2, errno.EINVAL)], ids=["noreplace", "exchange"])
def test_rename_with_flags(folder: Path, flag: int, number: int) -> None:
    (folder / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(-100, bytes(folder / "a"), -100, bytes(folder / "b"), flag) == -1
    assert ctypes.get_errno() == number
    assert (folder / "b").read_bytes() == b"b"


def test_folders(folder: Path) -> None:
    (folder / "d" / "e").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"):
        (folder / "d").rmdir()
    (folder / "d").rename(folder / "f")
    (folder / "f" / "e").rmdir()
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_a_folder_of_many_files_is_listed_whole(folder: Path) -> None:
    names = {f"file with a rather long name, so that the listing takes several calls {i}" for i in range(1000)}
    for name in names:
        (folder / name).touch()
    assert set(os.listdir(folder)) == names  # as programs do


def test_the_internal_folder_is_not_there(mounted: Mounted) -> None:
    assert ".sdfs" not in [path.name for path in mounted.path.iterdir()]
    assert not (mounted.path / ".sdfs").exists()
    with pytest.raises(PermissionError):
        (mounted.path / ".sdfs").mkdir()
    with pytest.raises(PermissionError):
        (mounted.path / ".sdfs").touch()


def test_chmod_and_umask(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        (folder / "a").touch(0o666)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o640
    (folder / "a").chmod(0o4711)
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o4711


def test_times_in_nanoseconds(folder: Path) -> None:
    (folder / "a").touch()
    os.utime(folder / "a", ns=(1_234_567_890_123_456_789, -1_000_000_001))
    status = (folder / "a").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_234_567_890_123_456_789, -1_000_000_001)


def test_touch_sets_one_time_and_leaves_the_other(folder: Path) -> None:
    (folder / "a").touch()
    os.utime(folder / "a", ns=(1, 2))
    subprocess.run(["touch", "-a", folder / "a"], check=True)
    status = (folder / "a").stat()
    assert status.st_mtime_ns == 2
    assert abs(status.st_atime_ns - time.time_ns()) < 60 * 10**9


def test_symbolic_links(folder: Path) -> None:
    (folder / "a").write_bytes(b"content")
    (folder / "link").symlink_to("a")
    assert (folder / "link").read_bytes() == b"content"
    assert (folder / "link").readlink() == Path("a")
    os.utime(folder / "link", ns=(1, 2), follow_symlinks=False)
    assert (folder / "link").lstat().st_mtime_ns == 2


def test_hard_links_share_their_content(folder: Path) -> None:
    (folder / "a").write_bytes(b"content")
    (folder / "b").hardlink_to(folder / "a")
    (folder / "b").write_bytes(b"changed")
    assert (folder / "a").read_bytes() == b"changed"
    assert (folder / "a").stat().st_nlink == 2


def test_a_pipe_and_a_socket(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)
    assert stat.S_ISSOCK((folder / "socket").stat().st_mode)


def test_xattrs(folder: Path) -> None:
    (folder / "a").touch()
    os.setxattr(folder / "a", "user.one", b"1")
    os.setxattr(folder / "a", "user.two", b"")
    assert sorted(os.listxattr(folder / "a")) == ["user.one", "user.two"]
    assert os.getxattr(folder / "a", "user.one") == b"1"
    with pytest.raises(FileExistsError):
        os.setxattr(folder / "a", "user.one", b"1", os.XATTR_CREATE)
    os.removexattr(folder / "a", "user.one")
    with pytest.raises(OSError, match="No data"):
        os.getxattr(folder / "a", "user.one")


def test_the_stores_own_xattrs_are_there_but_not_listed(mounted: Mounted, folder: Path) -> None:
    (folder / "a").touch()
    assert os.getxattr(mounted.path, "user.sdfs.store") == bytes(mounted.store)
    assert b'"state": "plain"' in os.getxattr(folder / "a", "user.sdfs.status")
    assert os.listxattr(folder / "a") == os.listxattr(mounted.path) == []
    with pytest.raises(PermissionError):
        os.setxattr(folder / "a", "user.sdfs.status", b"")


def test_statfs_is_that_of_the_store(mounted: Mounted) -> None:
    assert os.statvfs(mounted.path).f_blocks == os.statvfs(mounted.store).f_blocks


def test_fsync_of_files_and_folders(folder: Path) -> None:
    with (folder / "a").open("wb") as file:
        file.write(b"content")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_a_tree_is_moved_in_and_out_by_tar(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t" / "d").mkdir(parents=True)
    for name, content in CONTENTS.items():
        (tmp_path / "t" / "d" / name).write_bytes(content)
    pipe = "tar -C {} --warning=no-file-changed -cf - . | tar -C {} -xpf -"  # wrapping a blob at its close changes its ctime
    subprocess.run(pipe.format(tmp_path / "t", folder), shell=True, check=True)
    shutil.rmtree(tmp_path / "t" / "d")
    subprocess.run(pipe.format(folder, tmp_path / "t"), shell=True, check=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "t" / "d").iterdir()} == CONTENTS


def test_what_is_done_through_one_name_shows_on_all_at_once(folder: Path) -> None:
    first, second, third = (folder / name for name in ("a", "b", "c"))
    first.write_bytes(b"one")
    assert first.stat().st_nlink == 1
    second.hardlink_to(first)
    third.hardlink_to(second)
    assert [path.stat().st_nlink for path in (first, second, third)] == [3, 3, 3]
    second.chmod(0o600)
    os.utime(second, (5, 5))
    assert [(path.stat().st_mode & 0o777, path.stat().st_mtime) for path in (first, third)] == [(0o600, 5), (0o600, 5)]
    second.write_bytes(b"longer than before")
    assert [path.stat().st_size for path in (first, third)] == [18, 18]
    first.unlink()
    assert [path.stat().st_nlink for path in (second, third)] == [2, 2]
    third.rename(folder / "d")
    assert second.stat().st_ctime_ns == (folder / "d").stat().st_ctime_ns


def test_a_mapping_of_a_file_opened_for_appending_writes_where_it_is(folder: Path) -> None:
    path = folder / "log"
    path.write_bytes(b"A" * 8192)
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    with mmap.mmap(fd, 8192) as mapping:
        mapping[:4] = b"ZZZZ"
        mapping.flush()
    os.write(fd, b"end")
    os.close(fd)
    assert path.read_bytes() == b"ZZZZ" + b"A" * 8188 + b"end"


def test_acls_are_refused_rather_than_not_enforced(folder: Path) -> None:
    path = folder / "file"
    path.touch()
    with pytest.raises(OSError, match="not supported"):
        os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0")
