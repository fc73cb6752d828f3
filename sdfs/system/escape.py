"""Text that comes from files, as a terminal or a log may show it."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, formats (among them what turns the direction), surrogates, line ends
_JOINERS = frozenset({"\u200c", "\u200d"})  # formats that scripts and emoji need


def escape(text: str) -> str:
    """`text` with an escape in place of every character that would not show, or would do more; a byte that is no UTF-8 as \\xNN."""
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _HIDDEN:
        return character
    if "\udc80" <= character <= "\udcff":  # surrogateescape
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
