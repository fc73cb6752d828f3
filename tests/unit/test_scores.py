"""How far two pictures are apart."""

from __future__ import annotations

import numpy as np
import pytest

from sdfs.codec.quality import scores as quality
from sdfs.codec.quality.scores import BLOCK, Bound, Place, Scores, compare, worst_place

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


USUAL = Scores(22.0, 0.94)
BOUND = Bound.asked(50, USUAL)


def plainly(original: np.ndarray, rendered: np.ndarray, bound: Bound) -> Place:
    """`worst_place`, block by block, as its definition says."""
    a, b = (np.atleast_3d(picture).astype(float) for picture in (original, rendered))
    weights = [0.299, 0.587, 0.114] if a.shape[2] == 3 else [1.0]
    places = []
    for y in range(0, max(1, a.shape[0] - BLOCK // 2), BLOCK // 2):
        for x in range(0, max(1, a.shape[1] - BLOCK // 2), BLOCK // 2):
            one, other = a[y : y + BLOCK, x : x + BLOCK], b[y : y + BLOCK, x : x + BLOCK]
            mean, mse = np.abs((other - one).mean((0, 1))).max(), np.square(other - one).mean()
            p, r = one @ weights, other @ weights
            covariance = ((p - p.mean()) * (r - r.mean())).mean()
            structure = (2 * covariance + 7.65**2) / (p.var() + r.var() + 7.65**2)
            t = bound.tolerance
            parts = (
                mean / np.sqrt(t * (2 / 3 * t + p.std())),
                np.sqrt(mse / (t * (t + 3 * p.std()))),
                (1 - structure) / (1 - bound.structure),
            )
            places.append(Place(x, y, mean, np.sqrt(mse), structure, max(parts)))
    return max(places, key=lambda place: place.excess)


@pytest.mark.parametrize("shape", [(40, 56, 3), (41, 50, 3), (33, 47), (16, 16, 3), (9, 70, 3), (3, 5)])
def test_the_worst_place_is_that_of_the_definition(shape: tuple[int, ...]) -> None:
    picture = PICTURE[: shape[0], : shape[1]] if len(shape) == 3 else PICTURE[: shape[0], : shape[1], 0]
    noisy = np.clip(picture + RNG.normal(0, 9, shape), 0, 255).astype(np.uint8)
    place, expected = worst_place(picture, noisy, BOUND), plainly(picture, noisy, BOUND)
    assert (place.x, place.y) == (expected.x, expected.y)
    figures = (place.mean_error, place.rms_error, place.structure, place.excess)
    assert figures == pytest.approx((expected.mean_error, expected.rms_error, expected.structure, expected.excess), rel=1e-3)


def test_strips_do_not_show_in_the_worst_place(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = np.clip(PICTURE + RNG.normal(0, 9, PICTURE.shape), 0, 255).astype(np.uint8)
    whole = worst_place(PICTURE, noisy, BOUND)
    monkeypatch.setattr(quality, "_CACHED_ROWS", 16)
    assert worst_place(PICTURE, noisy, BOUND) == whole


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (64, 3), (17, 90, 3)])
def test_any_shape_has_a_worst_place(shape: tuple[int, ...]) -> None:
    picture = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert worst_place(picture, picture, BOUND) == Place(0, 0, 0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("at", [(0, 0), (80, 40), (189, 289), (184, 0)])
def test_a_spoilt_block_is_found_wherever_it_is(at: tuple[int, int]) -> None:
    spoilt = PICTURE.copy()
    spoilt[at[0] : at[0] + 11, at[1] : at[1] + 11] = (255, 0, 0)
    place = worst_place(PICTURE, spoilt, BOUND)
    assert place.excess > 1
    assert at[0] - BLOCK < place.y < at[0] + BLOCK
    assert at[1] - BLOCK < place.x < at[1] + BLOCK


def test_calm_ground_forgives_nothing() -> None:
    noise = RNG.normal(0, 12, (64, 64, 3))
    flat, busy = np.full((64, 64, 3), 127, np.uint8), RNG.integers(40, 216, (64, 64, 3), np.uint8)
    on_flat, on_busy = (worst_place(p, np.clip(p + noise, 0, 255).astype(np.uint8), BOUND).excess for p in (flat, busy))
    assert on_flat > 1 > on_busy


def test_a_tint_is_seen_that_luma_does_not_show() -> None:
    flat, tinted = np.full((64, 64, 3), 127, np.uint8), np.full((64, 64, 3), 127, np.uint8)
    tinted[..., 2] += 20
    assert worst_place(flat, tinted, BOUND).excess > 1
    assert worst_place(flat, tinted, BOUND).mean_error == 20


def test_a_lost_dot_is_seen() -> None:
    dotted, flat = np.full((64, 64, 3), 255, np.uint8), np.full((64, 64, 3), 255, np.uint8)
    dotted[30, 30] = 0
    assert worst_place(dotted, flat, BOUND).excess > 1


def test_more_quality_promises_more() -> None:
    bounds = [Bound.asked(q, USUAL) for q in (0, 25, 50, 75, 100)]
    assert [b.tolerance for b in bounds] == sorted((b.tolerance for b in bounds), reverse=True)
    assert [b.structure for b in bounds] == sorted(b.structure for b in bounds)


def test_a_gate_that_asks_less_of_the_picture_asks_less_of_its_blocks() -> None:
    assert Bound.asked(50, Scores(30.0, 0.97)) == BOUND
    assert Bound.asked(50, Scores(19.0, 0.94)).tolerance == pytest.approx(2 * BOUND.tolerance, rel=1e-2)
    assert Bound.asked(50, Scores(22.0, 0.88)).structure < BOUND.structure
    anything = Bound.asked(50, Scores(0.0, 0.0))
    assert worst_place(np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8), anything).excess < 1
