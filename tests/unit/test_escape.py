"""What terminals and logs get to see of names."""

from __future__ import annotations

import os

import pytest

from sdfs.system.escape import escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("\u2028\ufeff\U000e0041", "\\u2028\\ufeff\\U000e0041"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_would_not_show_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize(
    "text",
    ["", "IMG 1.jpg", "ünï 猫 الصورة", "Screenshot 5\u202fPM.png", "\U0001f468\u200d\U0001f469", "می\u200cخواهم", "back\\slash", "e\u0301"],
    ids=ascii,
)
def test_what_shows_is_left_as_it_is(text: str) -> None:
    assert escape(text) == text
