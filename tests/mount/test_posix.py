"""docs/POSIX.md: what is refused, row by row, with the error that the page tells; and what is not as elsewhere."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.mounting import Mounted, needs_fuse

pytestmark = needs_fuse

PICTURE = b"\xff\xd8\xff" + b"picture " * 5000 + b"END"
PAGE = (ROOT / "docs" / "POSIX.md").read_text()
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_EXCHANGE, RENAME_WHITEOUT = 2, 4
FALLOCATE_MODES = (0x01, 0x02 | 0x01, 0x08, 0x10, 0x20, 0x40)  # keep size, punch hole, collapse, zero, insert, unshare
FICLONE, FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FIEMAP = 0x40049409, 0x80086601, 0x801C581F, 0xC020660B
SYS_QUOTACTL_FD, Q_GETQUOTA = 443, 0x800007 << 8
FAN_CLASS_NOTIF_WITH_FID, FAN_MARK_ADD_FILESYSTEM, FAN_CREATE = 0x200, 0x101, 0x100


def call(function: str, *arguments: object) -> int:
    """A function of libc that tells errors by -1 and errno."""
    result: int = getattr(LIBC, function)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), function)
    return result


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def rename(folder: Path, flags: int) -> None:
    call("renameat2", AT_FDCWD, bytes(folder / "file"), AT_FDCWD, bytes(folder / "other"), flags)


def allocate(folder: Path, mode: int) -> None:
    with opened(folder / "file", os.O_RDWR) as fd:
        call("fallocate", fd, mode, ctypes.c_long(0), ctypes.c_long(4096))


def ioctl(folder: Path, request: int) -> None:
    with opened(folder / "file") as fd:
        fcntl.ioctl(fd, request, bytes(64))


def clone(folder: Path) -> None:
    with opened(folder / "file") as source, opened(folder / "other", os.O_WRONLY) as target:
        fcntl.ioctl(target, FICLONE, source)


def ask_for_a_quota(folder: Path) -> None:
    with opened(folder) as fd:
        call("syscall", SYS_QUOTACTL_FD, fd, Q_GETQUOTA, 0, bytes(200))


def swap_on(folder: Path) -> None:
    swap = folder / "swap"
    swap.write_bytes(bytes(1 << 20))
    swap.chmod(0o600)
    subprocess.run(["mkswap", swap], check=True, capture_output=True)
    call("swapon", bytes(swap), 0)


def mount_overlay(folder: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (folder / name).mkdir()
    options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    call("mount", b"overlay", bytes(folder / "merged"), b"overlay", 0, options.encode())


def watch_the_filesystem(folder: Path) -> None:
    group = call("fanotify_init", FAN_CLASS_NOTIF_WITH_FID, 0)
    try:
        call("fanotify_mark", group, FAN_MARK_ADD_FILESYSTEM, ctypes.c_uint64(FAN_CREATE), AT_FDCWD, bytes(folder))
    finally:
        os.close(group)


def go_deep(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(25):
            os.mkdir("d" * 200, dir_fd=fd)
            inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
    finally:
        os.close(fd)


def chmod_with_two_names(folder: Path) -> None:
    backing = Path(os.fsdecode(os.getxattr(folder.parent, "user.sdfs.store")), folder.name)
    (backing / "second").hardlink_to(backing / "picture")
    (folder / "picture").chmod(0o444)


def remove_a_folder_of_a_removed_file(folder: Path) -> None:
    (folder / "inner").mkdir()
    with (folder / "inner" / "file").open("w"):
        (folder / "inner" / "file").unlink()
        (folder / "inner").rmdir()


def open_a_device(folder: Path) -> None:
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (folder / "null").read_bytes()


ACL = b"\2\0\0\0"
REFUSED: dict[str, list[Callable[[Path], object]]] = {
    "`renameat2` with `RENAME_EXCHANGE` or `RENAME_WHITEOUT`": [
        lambda folder: rename(folder, RENAME_EXCHANGE),
        lambda folder: rename(folder, RENAME_WHITEOUT),
    ],
    "`fallocate` with any mode": [lambda folder, mode=mode: allocate(folder, mode) for mode in FALLOCATE_MODES],  # type: ignore[misc]
    "`open` with `O_TMPFILE`": [lambda folder: os.open(folder, os.O_TMPFILE | os.O_RDWR)],
    "POSIX ACLs: getting, setting, removing": [
        lambda folder: os.getxattr(folder / "file", "system.posix_acl_access"),
        lambda folder: os.setxattr(folder / "file", "system.posix_acl_access", ACL),
        lambda folder: os.setxattr(folder, "system.posix_acl_default", ACL),
        lambda folder: os.removexattr(folder / "file", "system.posix_acl_access"),
    ],
    "SELinux's labels of single files (`security.selinux`)": [
        lambda folder: os.getxattr(folder / "file", "security.selinux"),
        lambda folder: os.setxattr(folder / "file", "security.selinux", b"x"),
    ],
    "a hard link to a shrunk picture": [lambda folder: (folder / "link").hardlink_to(folder / "picture")],
    "a mode without reading and writing for its owner, for a shrunk picture that got a second name in the store itself": [
        chmod_with_two_names
    ],
    "reflinks: `FICLONE`": [clone],
    "`chattr`, `lsattr`: `FS_IOC_GETFLAGS`": [lambda folder: ioctl(folder, FS_IOC_GETFLAGS)],
    "project ids: `FS_IOC_FSGETXATTR`": [lambda folder: ioctl(folder, FS_IOC_FSGETXATTR)],
    "`filefrag`: `FS_IOC_FIEMAP`": [lambda folder: ioctl(folder, FS_IOC_FIEMAP)],
    "`quotactl` on the mount": [ask_for_a_quota],
    "swap files": [swap_on],
    "the upper folder of an overlay": [mount_overlay],
    "`fanotify` on a whole filesystem": [watch_the_filesystem],
    "a name of more than 255 bytes": [
        lambda folder: (folder / ("n" * 256)).touch(),
        lambda folder: (folder / ("猫" * 86)).mkdir(),
        lambda folder: (folder / "file").rename(folder / ("n" * 256)),
    ],
    "a path, from the store's root and with it, of more than 4095 bytes": [go_deep],
    "removing a folder from which a file was removed that is still open": [remove_a_folder_of_a_removed_file],
    "opening a device node": [open_a_device],
    "the name `.sdfs` in the root": [
        lambda folder: (folder.parent / ".sdfs").mkdir(),
        lambda folder: (folder / "file").rename(folder.parent / ".sdfs"),
    ],
    "setting `user.sdfs.…` attributes": [lambda folder: os.setxattr(folder / "file", "user.sdfs.plain", b"1")],
}
FOR_ROOT = {"swap files", "the upper folder of an overlay", "`fanotify` on a whole filesystem", "opening a device node"}
ROWS = re.findall(r"^\| (.+?) \| `(E[A-Z]+)` \|", PAGE, re.MULTILINE)


def test_every_row_is_tried() -> None:
    assert [what for what, _ in ROWS] == list(REFUSED)


@pytest.mark.parametrize(("what", "error"), ROWS)
def test_what_is_refused_is_so_with_the_error_that_the_page_tells(mounted: Mounted, folder: Path, what: str, error: str) -> None:
    if what in FOR_ROOT and os.geteuid() != 0:
        pytest.skip("needs root")
    for name, content in (("file", b"content"), ("other", b"other"), ("picture", PICTURE)):
        (folder / name).write_bytes(content)
    mounted.sync()
    for attempt in REFUSED[what]:
        with pytest.raises(OSError) as caught:  # noqa: PT011  # its errno is what matters
            attempt(folder)
        assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[getattr(errno, error)]
    assert ((folder / "file").read_bytes(), (folder / "picture").read_bytes()) == (b"content", PICTURE)


# not so, and no error says it


def test_each_name_of_a_hard_linked_file_has_an_inode_number_of_its_own(folder: Path) -> None:
    (folder / "a").touch()
    (folder / "b").hardlink_to(folder / "a")
    assert (folder / "a").stat().st_ino != (folder / "b").stat().st_ino


def test_shrinking_changes_neither_size_nor_time(mounted: Mounted, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(PICTURE)
    before, parent = (folder / "a.jpg").stat(), folder.stat()
    mounted.sync()
    after = (folder / "a.jpg").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert folder.stat().st_mtime_ns == parent.st_mtime_ns


def test_birth_times_are_not_told(folder: Path) -> None:
    (folder / "a").touch()
    assert subprocess.run(["stat", "-c", "%W", folder / "a"], check=True, capture_output=True, text=True).stdout.strip() in ("0", "-")


def test_direct_access_needs_no_alignment(folder: Path) -> None:
    (folder / "a").write_bytes(b"content")
    with opened(folder / "a", os.O_RDWR | os.O_DIRECT) as fd:
        os.pwrite(fd, b"XY", 3)
        assert os.pread(fd, 4, 2) == b"nXYn"
    assert (folder / "a").read_bytes() == b"conXYnt"


def test_a_sparse_file_seems_to_be_one_piece_and_stays_sparse(folder: Path, backing: Path) -> None:
    with opened(folder / "a", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"end", 1 << 20)
        assert (os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)) == (0, (1 << 20) + 3)
    assert (backing / "a").stat().st_blocks * 512 < 1 << 20


def test_set_id_bits_and_devices_are_not_heeded(mounted: Mounted) -> None:
    flags = os.statvfs(mounted.path).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV


# works

LOCKS = {
    "flock": "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "fcntl": "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
}


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_keeps_other_processes_out(folder: Path, kind: str) -> None:
    (folder / "a").touch()
    script = f"import fcntl, sys; fd = open(sys.argv[1], 'r+')\ntry: {LOCKS[kind]}\nexcept BlockingIOError: sys.exit(7)"
    with opened(folder / "a", os.O_RDWR) as fd:
        exec(LOCKS[kind], {"fcntl": fcntl, "fd": fd})
        assert subprocess.run([sys.executable, "-c", script, folder / "a"], check=False).returncode == 7
    assert subprocess.run([sys.executable, "-c", script, folder / "a"], check=False).returncode == 0


def test_files_are_copied_by_the_kernel(folder: Path) -> None:
    content = bytes(range(256)) * 1000
    (folder / "a").write_bytes(content)
    with opened(folder / "a") as source, opened(folder / "b", os.O_RDWR | os.O_CREAT) as target:
        assert os.copy_file_range(source, target, len(content)) == len(content)
    assert (folder / "b").read_bytes() == content


def test_a_socket_connects(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(folder / "socket"))
        server.listen()
        client.connect(str(folder / "socket"))


def test_a_running_program_cannot_be_written_to(folder: Path) -> None:
    shutil.copy(shutil.which("cat") or "", folder / "program")
    with subprocess.Popen([folder / "program"], stdin=subprocess.PIPE), pytest.raises(OSError, match="Text file busy"):
        (folder / "program").open("r+b")
