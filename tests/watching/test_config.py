"""daemon.config: what may be watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import WatchConfig, load, make
from sdfs.errors import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_several_folders_and_stores(tmp_path: Path) -> None:
    path = write(tmp_path, '[[watch]]\nfolder = "/a"\nstore = "/s"\n[[watch]]\nfolder = "/b"\nstore = "/t"\noriginals = "keep"\n')
    assert load(path) == [WatchConfig("/a", "/s"), WatchConfig("/b", "/t", originals="keep")]


def test_the_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make(folder="~/a", store="~/s").folder == f"{tmp_path}/a"


def test_other_tables_are_for_others(tmp_path: Path) -> None:
    assert len(load(write(tmp_path, '[other]\nx = 1\n[[watch]]\nfolder = "/a"\nstore = "/s"\n'))) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "nothing to watch"),
        ("watch = 1", "nothing to watch"),
        ("[[watch]]\n", "folder: is missing"),
        ('[[watch]]\nfolder = "/a"\n', "store: is missing"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\nfoo = 1\n', "foo: no such setting"),
        ('[[watch]]\nfolder = 1\nstore = "/s"\n', "folder: want a str"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\nall_files = 1\n', "all_files: want a bool"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\nsettle_seconds = true\n', "settle_seconds: want a float"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\nsettle_seconds = 0\n', "settle_seconds: want at least 0.1"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\nsettle_seconds = nan\n', "settle_seconds: want at least 0.1"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\noriginals = "burn"\n', "originals: want trash or keep or delete"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\nto = "../x"\n', "to: want a folder within the store"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\nto = ".sdfs/x"\n', "to: want a folder within the store"),
        ('[[watch]]\nfolder = "~nosuchuser/a"\nstore = "/s"\n', "nosuchuser"),
        ('[[watch]]\nfolder = "/a\\u0000"\nstore = "/s"\n', "null"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\n[[watch]]\nfolder = "/a/b"\nstore = "/s"\n', "watched with all in it"),
        ('[[watch]]\nfolder = "/a"\nstore = "/a"\n', "is the store itself"),
        ('[[watch]]\nfolder = "/s/a"\nstore = "/s"\n', "within the store"),
        ('[[watch]]\nfolder = "/a"\nstore = "/s"\n[[watch]]\nfolder = "/a"\nstore = "/t"\n', "watched twice"),
        ("[[watch", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_and_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=complaint) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        load(tmp_path / "config.toml")
