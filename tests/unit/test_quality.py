"""How far two pictures are apart."""

from __future__ import annotations

import numpy as np
import pytest

from sdfs.quality import Scores, acceptable, compare

RNG = np.random.default_rng(3)
PICTURE = np.clip(np.cumsum(RNG.normal(size=(200, 300, 3)), axis=1) * 8 + 128, 0, 255).astype(np.uint8)


def test_a_picture_equals_itself() -> None:
    assert compare(PICTURE, PICTURE) == Scores(100.0, pytest.approx(1.0))


def test_psnr_is_that_of_the_mean_squared_error() -> None:
    grey = np.full((64, 64), 100, np.uint8)
    assert compare(grey, grey + np.uint8(5)).psnr == pytest.approx(10 * np.log10(255**2 / 25))


def test_more_noise_scores_less() -> None:
    scores = [compare(PICTURE, np.clip(PICTURE + RNG.normal(0, s, PICTURE.shape), 0, 255).astype(np.uint8)).ms_ssim for s in (2, 10, 40)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.98 > scores[2]


def test_ms_ssim_agrees_with_single_scale_ssim_of_a_library() -> None:
    """With every scale's weight on the first, MS-SSIM is the contrast-structure term of SSIM."""
    from skimage.metrics import structural_similarity

    from sdfs import quality

    noisy = np.clip(PICTURE[..., 0] + RNG.normal(0, 12, PICTURE.shape[:2]), 0, 255).astype(np.uint8)
    original = quality._WEIGHTS
    try:
        quality._WEIGHTS = (1.0,)  # type: ignore[assignment]
        ours = compare(PICTURE[..., 0], noisy).ms_ssim
    finally:
        quality._WEIGHTS = original
    theirs = structural_similarity(PICTURE[..., 0], noisy, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    assert ours == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (64, 3), (17, 90, 3)])
def test_any_shape_has_scores(shape: tuple[int, ...]) -> None:
    picture = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert compare(picture, picture).ms_ssim == pytest.approx(1.0)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        compare(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))


def test_the_gate_wants_both_scores() -> None:
    least = Scores(22.0, 0.94)
    assert acceptable(Scores(22.0, 0.94), least)
    assert not acceptable(Scores(30.0, 0.93), least)
    assert not acceptable(Scores(21.9, 0.99), least)
