"""sdfs.codec.autoencoders.tone: the shades of tiles put right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdfs.codec.autoencoders import tone
from sdfs.codec.autoencoders.tone import CELL


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(60, 196, (height, width, 3), np.uint8)


def cell_means(picture: np.ndarray) -> np.ndarray:
    return np.array(
        [
            [picture[top : top + CELL, left : left + CELL].mean((0, 1)) for left in range(0, picture.shape[1], CELL)]
            for top in range(0, picture.shape[0], CELL)
        ]
    )


@given(st.integers(1, 3 * CELL), st.integers(1, 3 * CELL))
def test_the_correction_of_a_cell_is_its_mean_error(height: int, width: int) -> None:
    picture, decoded = noise(height, width), noise(height, width)[::-1]
    found = tone.measure(picture, decoded)
    assert found.shape == (3, -(-height // CELL), -(-width // CELL))
    error = picture.astype(int) - decoded
    assert np.allclose(found.transpose(1, 2, 0), cell_means(error), atol=1e-4)


def test_a_shade_over_all_of_a_picture_is_taken_off() -> None:
    picture = noise(130, 70)
    assert np.array_equal(tone.apply(picture - 17, tone.measure(picture, picture - 17)), picture)


@pytest.mark.parametrize("drift", [4, 12])
def test_two_tiles_of_different_shade_end_up_within_a_level_of_the_picture(drift: int) -> None:
    picture = np.full((256, 1024, 3), 120, np.uint8)
    decoded = picture.copy()
    fade = np.clip((np.arange(1024) - 448) / 128, 0, 1)  # as `blending` joins tiles
    decoded += np.rint(drift * fade).astype(np.uint8)[None, :, None]
    corrected = tone.apply(decoded, tone.measure(picture, decoded))
    assert abs(cell_means(corrected) - 120).max() <= 1


def test_corrections_stop_at_black_and_white() -> None:
    corrected = tone.apply(noise(64, 64), np.full((3, 1, 1), 300, np.float32))
    assert (corrected == 255).all()
