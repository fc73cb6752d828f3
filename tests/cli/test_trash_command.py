"""`sdfs trash` and `sdfs du` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdfs.cli import exit_codes
from tests.support.commands import done, fails, told_on_terminal


@pytest.fixture
def trashed(store: Path) -> Path:
    """A store whose trash has `old.txt`, of a path that is not recorded."""
    done("ls", store)
    (store / ".sdfs" / "trash" / "1000000000000000000-0.old.txt").write_text("old text")
    return store


def test_list_has_a_line_for_each(trashed: Path) -> None:
    [line] = done("trash", "list", trashed).splitlines()
    assert line.endswith("8  ?  1000000000000000000-0.old.txt")


def test_list_as_json(trashed: Path) -> None:
    [entry] = json.loads(done("trash", "list", trashed, "--json"))
    assert entry == {
        "name": "1000000000000000000-0.old.txt",
        "path": None,
        "logical_bytes": 8,
        "stored_bytes": 8,
        "trashed_ns": 10**18,
    }


def test_an_empty_trash_has_no_lines(store: Path) -> None:
    assert done("trash", "list", store) == ""


def test_restore_prints_where_the_file_is(trashed: Path) -> None:
    done_ = done("trash", "restore", trashed, "1000000000000000000-0.old.txt", "--to", "back")
    assert done_ == "/back/old.txt\n"
    assert done("cat", trashed / "back" / "old.txt") == "old text"


def test_restore_tells_of_what_it_leaves_out(trashed: Path) -> None:
    assert "not in the trash" in fails(exit_codes.INCOMPLETE, "trash", "restore", trashed, "missing")


def test_restore_tells_how_to_go_round_a_name_that_is_taken(trashed: Path) -> None:
    (trashed / "back").mkdir()
    (trashed / "back" / "old.txt").touch()
    message = fails(exit_codes.INCOMPLETE, "trash", "restore", trashed, "1000000000000000000-0.old.txt", "--to", "back")
    assert "/back/old.txt: File exists: restore it elsewhere, with --to" in message


def test_restore_refuses_a_folder_that_seems_to_be_elsewhere(trashed: Path) -> None:
    message = fails(exit_codes.REFUSED, "trash", "restore", trashed, "1000000000000000000-0.old.txt", "--to", "../out")
    assert "--to ../out: want a folder within the store" in message


def test_empty_forgets_all(trashed: Path) -> None:
    done("trash", "empty", trashed)
    assert done("trash", "list", trashed) == ""


def test_empty_tells_who_looks_on_what_is_gone(trashed: Path) -> None:
    assert told_on_terminal("trash", "empty", trashed) == "files removed: 1, bytes: 8\n"


def test_du_sums_up_folders_and_files(store: Path) -> None:
    usages = json.loads(done("du", "--json", store, store / "folder"))
    assert [(usage["path"], usage["files"], usage["stored_bytes"]) for usage in usages] == [("/", 2, 17), ("/folder", 1, 6)]


def test_du_prints_a_table(store: Path) -> None:
    assert done("du", store) == "logical  stored  trash  path\n     17      17      0  /\n"
