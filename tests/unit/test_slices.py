"""Slices cover a grid, and their bytes come apart again."""

from __future__ import annotations

import numpy as np
import pytest

from sdfs.codec.coding import slices
from sdfs.errors import DamagedError


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (5, 9), (1, 30)])
def test_every_position_is_in_one_slice(rows: int, columns: int) -> None:
    seen = np.zeros((rows, columns), int)
    for place in slices.places(rows, columns, 4):
        seen[place] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("parts", [[b"a"], [b"a", b"bc", b"def", b"g"], [bytes(70_000), b"", b"y", b"z"]], ids=len)
def test_parts_come_back(parts: list[bytes]) -> None:
    rows = 4 * len(parts)
    assert slices.split(slices.join(parts), rows, 4, 4) == parts


def test_one_part_is_all_of_the_section() -> None:
    assert slices.join([b"abc"]) == b"abc"


@pytest.mark.parametrize("data", [b"", b"\0" * 5, b"\xff\xff\xff\x7f" + bytes(20), b"\x10\0\0\0" + bytes(15)])
def test_what_does_not_hold_them_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError):
        slices.split(data, 8, 8, 4)
