"""Programs that people run on folders: rsync, git, tar, cp, SQLite, fio. The lossless engine keeps pictures comparable."""

from __future__ import annotations

import filecmp
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.mounting import Mounted, needs_fuse
from tests.support.programs import program, run

pytestmark = [needs_fuse, pytest.mark.timeout(300)]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder as people have them: pictures, text, links, a sparse file, odd names, old times."""
    root = tmp_path / "library"
    (root / "2024" / "Ferien am Meer").mkdir(parents=True)
    random = np.random.default_rng(5)
    for number in range(6):
        content = b"\xff\xd8\xff\xe0" + random.bytes(20_000 + number) + b"END"  # a picture to the lossless engine
        (root / "2024" / f"bild {number}.jpg").write_bytes(content)
        (root / "2024" / "Ferien am Meer" / f"ü{number}.jpg").write_bytes(content[::-1])
    (root / "notes.txt").write_text("text\n" * 1000)
    (root / "empty").touch()
    (root / "link").symlink_to("notes.txt")
    (root / "hard").hardlink_to(root / "notes.txt")
    with (root / "sparse").open("wb") as file:
        file.truncate(3_000_000)
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(10**18, 10**18 + number * 1_234_567_891), follow_symlinks=False)
    (root / "notes.txt").chmod(0o640)
    return root


def assert_same(one: Path, other: Path) -> None:
    names = sorted(path.relative_to(one) for path in one.rglob("*"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("*"))
    for name in names:
        first, second = (one / name).lstat(), (other / name).lstat()
        assert (first.st_mode, first.st_mtime_ns) == (second.st_mode, second.st_mtime_ns), name
        if (one / name).is_symlink():
            assert (one / name).readlink() == (other / name).readlink()
        elif (one / name).is_file():
            assert first.st_size == second.st_size, name
            assert filecmp.cmp(one / name, other / name, shallow=False), name


def test_rsync_there_and_back_and_nothing_the_second_time(mounted: Mounted, folder: Path, library: Path, tmp_path: Path) -> None:
    rsync = program("rsync")
    run(rsync, "-a", f"{library}/", folder / "copy")
    mounted.sync()
    assert mounted.state(f"{folder.name}/copy/2024/bild 0.jpg") == "exact"
    assert run(rsync, "-ai", f"{library}/", folder / "copy") == ""
    run(rsync, "-a", f"{folder}/copy/", tmp_path / "back")
    assert run(rsync, "-aic", f"{library}/", tmp_path / "back") == ""
    assert run(rsync, "-ai", f"{tmp_path}/back/", folder / "copy") == ""


def test_cp_keeps_everything(mounted: Mounted, folder: Path, library: Path, tmp_path: Path) -> None:
    run("cp", "-a", library, folder / "copy")
    mounted.sync()
    assert_same(library, folder / "copy")
    run("cp", "-a", folder / "copy", tmp_path / "back")
    assert_same(library, tmp_path / "back")


def test_tar_there_and_back(mounted: Mounted, folder: Path, library: Path, tmp_path: Path) -> None:
    run("tar", "--format=posix", "-C", library, "-cf", tmp_path / "in.tar", ".")
    (folder / "copy").mkdir()
    run("tar", "-C", folder / "copy", "-xf", tmp_path / "in.tar")
    mounted.sync()
    assert_same(library, folder / "copy")
    run("tar", "--format=posix", "-C", folder / "copy", "-cf", tmp_path / "out.tar", ".")
    (tmp_path / "back").mkdir()
    run("tar", "-C", tmp_path / "back", "-xf", tmp_path / "out.tar")
    assert_same(library / "2024", tmp_path / "back" / "2024")


def test_git_clones_and_checks(mounted: Mounted, folder: Path, library: Path, tmp_path: Path) -> None:
    git = (program("git"), "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "safe.directory=*")
    run(*git, "init", "-q", library)
    run(*git, "add", "-A", cwd=library)
    run(*git, "commit", "-qm", "all", cwd=library)
    run(*git, "clone", "-q", "--no-local", library, folder / "clone")
    mounted.sync()
    run(*git, "fsck", "--full", "--strict", cwd=folder / "clone")
    assert run(*git, "status", "--porcelain", cwd=folder / "clone") == ""
    (folder / "clone" / "more.txt").write_text("more")
    run(*git, "add", "-A", cwd=folder / "clone")
    run(*git, "commit", "-qm", "more", cwd=folder / "clone")
    run(*git, "gc", "-q", cwd=folder / "clone")
    run(*git, "fsck", "--full", "--strict", cwd=folder / "clone")


WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for number in range(int(sys.argv[3])):
    database.execute("BEGIN IMMEDIATE")
    (last,) = database.execute("SELECT count(*) FROM t").fetchone()
    database.execute("INSERT INTO t VALUES (?, ?)", (last, sys.argv[2]))
    database.execute("COMMIT")
"""


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_sqlite_with_two_writers(folder: Path, journal: str) -> None:
    """Neither loses the other's rows, whatever the journal: locks, and in WAL mode shared memory, work across processes."""
    path = folder / "database"
    with sqlite3.connect(path) as database:
        assert database.execute(f"PRAGMA journal_mode={journal}").fetchone()[0].upper() == journal
        database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, who TEXT)")
    database.close()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, who, "40"]) for who in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*), max(n) FROM t").fetchone() == (80, 79)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.parametrize("engine", ["sync", "mmap"])
def test_fio_reads_what_it_wrote(folder: Path, engine: str) -> None:
    options = ["--name=job", f"--directory={folder}", f"--ioengine={engine}", "--rw=randwrite", "--bs=4k", "--size=8m", "--numjobs=2"]
    run(program("fio"), *options, "--verify=crc32c", "--verify_fatal=1", "--fsync=50", "--randseed=7", cwd=folder)
