"""daemon.originals: giving up files, and not those that somebody changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.originals import ASIDE, ChangedError, dispose, put_back, without_writers
from tests.support import ROOT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"content")
    return path


def identity(path: Path) -> os.stat_result:
    return path.stat()


def test_deleted(file: Path) -> None:
    dispose(str(file), identity(file), "delete")
    assert not file.exists()


def test_kept(file: Path) -> None:
    dispose(str(file), identity(file), "keep")
    assert file.exists()


def test_trashed_where_desktops_look_for_it(file: Path, tmp_path: Path) -> None:
    """In a process of its own: Send2Trash looks at the environment when it is imported."""
    (tmp_path / "home").mkdir()
    script = "import os, sys; from daemon.originals import dispose; dispose(sys.argv[1], os.stat(sys.argv[1]), 'trash')"
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "XDG_DATA_HOME": str(tmp_path / "home/share")}
    subprocess.run([sys.executable, "-c", script, str(file)], check=True, env=environment, cwd=ROOT)
    assert not file.exists()
    assert (tmp_path / "home/share/Trash/files/a.jpg").read_bytes() == b"content"
    assert str(file) in (tmp_path / "home/share/Trash/info/a.jpg.trashinfo").read_text()


def test_gone_already_is_as_good(file: Path) -> None:
    before = identity(file)
    file.unlink()
    dispose(str(file), before, "delete")


def test_a_file_that_changed_is_not_given_up(file: Path) -> None:
    before = identity(file)
    file.write_bytes(b"other content")
    with pytest.raises(ChangedError):
        dispose(str(file), before, "delete")
    assert file.exists()


def test_another_file_of_that_name_is_not_given_up(file: Path) -> None:
    before = identity(file)
    os.rename(file, f"{file}.old")
    file.write_bytes(b"content")
    os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))
    with pytest.raises(ChangedError):
        dispose(str(file), before, "delete")


def test_a_file_that_changed_and_got_its_time_back_is_not_given_up(file: Path) -> None:
    before = identity(file)
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ChangedError):
        dispose(str(file), before, "delete")
    assert file.exists()


def test_what_a_killed_process_left_under_its_own_name_is_put_back(file: Path) -> None:
    aside = file.with_name(ASIDE + file.name)
    file.rename(aside)
    put_back(str(aside))
    assert file.read_bytes() == b"content"


def test_a_file_that_is_being_written_to_is_not_given_up(file: Path) -> None:
    before = identity(file)
    with file.open("ab"), pytest.raises(ChangedError):
        dispose(str(file), before, "delete")
    assert file.exists()


def test_a_writer_is_noticed_by_its_mapping_alone(file: Path) -> None:
    import mmap

    with file.open("r+b") as opened:
        mapping = mmap.mmap(opened.fileno(), 0)
    with mapping, file.open("rb") as reader, without_writers(reader.fileno()) as quiet:
        assert not quiet


def test_readers_do_not_matter(file: Path) -> None:
    with file.open("rb"), file.open("rb") as reader, without_writers(reader.fileno()) as quiet:
        assert quiet
