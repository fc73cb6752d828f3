"""The code stays in pieces that one can read: functions of at most 40 lines, few entries in the package's folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.architecture import files, module_of

MOST_LINES = 40  # from `def` to the last one
MOST_ENTRIES = 20


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name and the lines of every function, also of those within others."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_no_function_is_longer_than_a_reader_sees_at_once(path: Path) -> None:
    assert {name: lines for name, lines in functions(path) if lines > MOST_LINES} == {}


def test_the_package_has_few_entries() -> None:
    assert len([path for path in (ROOT / "sdfs").iterdir() if path.name != "__pycache__"]) <= MOST_ENTRIES
