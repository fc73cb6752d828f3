"""The names of files that have several."""

from __future__ import annotations

import pytest

from sdfs.tree import links
from sdfs.tree.links import Links

A, B = (1, 10), (1, 11)


def test_others_are_all_names_but_the_one_at_hand() -> None:
    known = Links()
    for path in ("/x", "/y", "/z"):
        known.note(A, path)
    known.note(B, "/b")
    assert known.others(A, "/y") == ["/x", "/z"]
    assert known.others((9, 9), "/y") == []


def test_it_is_empty_until_a_link_is_seen() -> None:
    known = Links()
    assert not known
    known.note(A, "/x")
    assert known


def test_what_it_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "REMEMBERED", 2)
    known = Links()
    for number in range(5):
        known.note((1, number), f"/{number}")
    assert known.others((1, 0), "") == []
    assert known.others((1, 4), "") == ["/4"]
