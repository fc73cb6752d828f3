"""daemon.ledger: what outlasts the process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.ledger import Entry, Identity, Ledger, path_for, reports
from sdfs.errors import UserError

HERE = Identity(2, 3, 4)
UNDECODABLE = "a/\udcff.jpg"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger("/watched")
    yield ledger
    ledger.close()


def test_entries_outlast_it(ledger: Ledger) -> None:
    entry = Entry(UNDECODABLE, HERE, "failed", None, "why", 2, 5.0)
    ledger.put(entry)
    ledger.close()
    again = Ledger("/watched")
    assert again.get(UNDECODABLE) == entry
    again.close()
    ledger.__init__("/watched")  # type: ignore[misc]  # for the fixture to close


def test_a_folder_is_watched_by_one_process(ledger: Ledger) -> None:
    with pytest.raises(UserError, match="watched by another process"):
        Ledger("/watched")


def test_other_folders_have_their_own(ledger: Ledger) -> None:
    other = Ledger("/other")
    other.put(Entry("a", HERE, "left"))
    other.close()
    assert ledger.get("a") is None


def test_what_is_due_is_told(ledger: Ledger) -> None:
    ledger.put(Entry("a", HERE, "failed", due=time.time() - 1))
    ledger.put(Entry("b", HERE, "failed", due=time.time() + 60))
    ledger.put(Entry("c", HERE, "taken"))
    assert ledger.due() == ["a"]


def test_what_is_due_in_years_is_of_a_wrong_clock(ledger: Ledger) -> None:
    ledger.put(Entry("a", HERE, "failed", due=time.time() + 1e9))
    assert ledger.due() == ["a"]


def test_entries_may_be_forgotten_while_they_are_read(ledger: Ledger) -> None:
    for number in range(2500):
        ledger.put(Entry(f"{number:04}", HERE, "left"))
    read = []
    for entry in ledger.entries():
        read.append(entry.path)
        ledger.forget(entry.path)
    assert read == [f"{number:04}" for number in range(2500)]
    assert list(ledger.entries()) == []


def test_one_that_is_damaged_is_put_aside() -> None:
    path = path_for("/watched")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all" * 1000)
    ledger = Ledger("/watched")
    ledger.put(Entry("a", HERE, "left"))
    ledger.close()
    assert path.with_name(path.name + ".damaged").exists()


def test_a_report_says_whether_somebody_watches(ledger: Ledger) -> None:
    ledger.put(Entry("a", HERE, "failed", None, "why", 1, 5.0))
    ledger.put(Entry("b", HERE, "left"))
    (report,) = reports()
    assert report.facts["folder"] == "/watched"
    assert report.watched
    assert report.counts == {"failed": 1, "left": 1}
    assert [entry.reason for entry in report.problems] == ["why"]


def test_a_report_after_the_watch_ended(ledger: Ledger) -> None:
    ledger.close()
    (report,) = reports()
    assert not report.watched
    ledger.__init__("/watched")  # type: ignore[misc]
