"""The names of files that have several."""

from __future__ import annotations

import pytest

from sdfs.mount import hard_links
from sdfs.mount.hard_links import HardLinks

A, B = (1, 10), (1, 11)


def test_others_are_all_names_but_the_one_at_hand() -> None:
    known = HardLinks()
    for path in ("/x", "/y", "/z"):
        known.note(A, path)
    known.note(B, "/b")
    assert known.others(A, "/y") == ["/x", "/z"]
    assert known.others((9, 9), "/y") == []


def test_it_is_empty_until_a_link_is_seen() -> None:
    known = HardLinks()
    assert not known
    known.note(A, "/x")
    assert known


def test_what_it_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hard_links, "REMEMBERED", 2)
    known = HardLinks()
    for number in range(5):
        known.note((1, number), f"/{number}")
    assert known.others((1, 0), "") == []
    assert known.others((1, 4), "") == ["/4"]
