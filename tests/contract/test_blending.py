"""sdfs.codec.autoencoders.blending: tiles put together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdfs.codec.autoencoders.blending import blend, tiles

sizes = st.integers(8, 40)


@given(st.integers(1, 300), sizes, st.integers(0, 10), st.sampled_from([1, 4, 8]))
def test_weights_sum_to_one_everywhere(length: int, size: int, overlap: int, scale: int) -> None:
    overlap = min(overlap, size // 4)
    total = np.zeros(length * scale)
    meeting = np.zeros(length * scale, int)
    for tile in tiles(length, size, overlap, scale):
        where = slice(tile.start * scale, tile.start * scale + len(tile.weights))
        assert where.stop <= length * scale
        total[where] += tile.weights
        meeting[where] += tile.weights > 0
    assert np.allclose(total, 1)
    assert meeting.max() <= 2


@given(st.integers(1, 70), st.integers(1, 70), sizes, st.sampled_from([1, 3]))
def test_tiles_of_one_picture_give_that_picture(rows: int, columns: int, size: int, scale: int) -> None:
    picture = np.random.default_rng(1).random((2, rows * scale, columns * scale), np.float32)

    def make(top: int, left: int, height: int, width: int) -> np.ndarray:
        return picture[:, top * scale : (top + height) * scale, left * scale : (left + width) * scale]

    bands = list(blend(rows, columns, (size, size // 4), scale, 2, make))
    assert np.allclose(np.concatenate([band for _, band in bands], 1), picture, atol=1e-5)
    assert [top for top, _ in bands] == list(np.cumsum([0, *(band.shape[1] for _, band in bands[:-1])]))


@pytest.mark.parametrize("grid", [(0, 0), (8, 3), (8, -1)])
def test_a_grid_that_is_none(grid: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot overlap"):
        tiles(100, *grid, 1)
