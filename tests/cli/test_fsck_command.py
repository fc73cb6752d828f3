"""`sdfs fsck` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from sdfs.blob.container import MAGIC
from sdfs.cli import exit_codes
from sdfs.owner.store.store import Store
from tests.support.commands import done, fails, sdfs, told_on_terminal


def test_a_sound_store_is_silent(shrunk: Path) -> None:
    assert done("fsck", shrunk) == ""


def test_every_blob_of_a_sound_store_decodes(shrunk: Path) -> None:
    assert done("fsck", shrunk, "--decode") == ""


def test_damage_has_an_exit_status_and_a_line_for_each_file(store: Path) -> None:
    (store / "broken.jpg").write_bytes(MAGIC)
    completed = sdfs("fsck", store)
    assert completed.returncode == exit_codes.DAMAGED
    [line] = completed.stdout.splitlines()
    assert line.startswith("/broken.jpg: damaged: ")


def test_json_has_an_object_for_each_finding(store: Path) -> None:
    (store / ".sdfs" / "staging" / "1-2").touch()
    [finding] = json.loads(done("fsck", store, "--repair", "--json"))
    assert (finding["path"], finding["kind"], finding["repaired"]) == ("/.sdfs/staging/1-2", "staging", True)


def test_a_store_in_use_is_refused(store: Path) -> None:
    owned = Store(store)
    assert "in use by process" in fails(exit_codes.BUSY, "fsck", store)
    owned.close()


def test_who_looks_on_is_told_what_was_checked(store: Path) -> None:
    assert told_on_terminal("fsck", store) == "files checked: 2, damaged: 0, other findings: 0\n"
