"""sdfs.codec.quality.rate_distortion, and what the bundled codec's encoder makes of it: the effort."""

from __future__ import annotations

import numpy as np
import pytest
import skimage
import torch

from sdfs.codec.autoencoders import layout
from sdfs.codec.autoencoders.runner import BundledAutoencoder
from sdfs.codec.coding.learned_coder import LearnedCoder
from sdfs.codec.quality import rate_distortion
from sdfs.codec.quality.scores import Scores, compare
from sdfs.codec.resident.model import BundledModel, Encoded
from sdfs.settings import Effort

QUALITY = 40


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[20:190, 100:300])


@pytest.fixture(scope="module")
def model() -> BundledModel:
    return BundledModel(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def encoded(model: BundledModel, picture: np.ndarray) -> dict[Effort, Encoded]:
    return {effort: model.encode(picture, QUALITY, effort) for effort in Effort}


def cost(picture: np.ndarray, one: Encoded) -> float:
    log2_step = float(layout.log2_step(torch.tensor(layout.fineness(QUALITY))))
    return rate_distortion.cost(compare(picture, one.pixels), 8 * len(one.section) / picture[:, :, 0].size, log2_step)


def test_each_effort_costs_no_more_than_the_one_before(encoded: dict[Effort, Encoded], picture: np.ndarray) -> None:
    fast, normal, best = (cost(picture, encoded[effort]) for effort in (Effort.FAST, Effort.NORMAL, Effort.BEST))
    assert best <= normal <= fast


def test_what_error_is_worth_decides_between_bytes_and_error(picture: np.ndarray, weights: dict[str, torch.Tensor]) -> None:
    autoencoder, coder = BundledAutoencoder(weights, "", torch.device("cpu"), torch.float32), LearnedCoder(weights)
    analysed, worth = autoencoder.encode(picture, QUALITY), rate_distortion.worth(picture)
    coded = [coder.encode(analysed, QUALITY, worth * np.float32(factor)) for factor in (0.25, 1.0, 4.0)]
    sizes = [len(data) for data, _ in coded]
    errors = [compare(picture, autoencoder.decode(latents, QUALITY, *picture.shape[:2])).psnr for _, latents in coded]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors)
    assert sizes[0] < sizes[2]


@pytest.mark.parametrize("effort", Effort)
def test_a_decoder_does_not_know_of_effort(
    effort: Effort, encoded: dict[Effort, Encoded], model: BundledModel, picture: np.ndarray
) -> None:
    one = encoded[effort]
    header = {"quality": QUALITY, "latents_crc32": one.latents_crc32}
    assert np.array_equal(model.decode(one.section, header, *picture.shape[:2]), one.pixels)


def test_error_is_worth_more_where_the_picture_is_flat() -> None:
    picture = np.full((96, 192, 3), 128, np.uint8)
    picture[:, 96:] = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    worth = rate_distortion.worth(picture)
    assert worth[:, :5].min() > 5 * worth[:, 7:].max()


def test_a_position_beside_calm_ground_counts_as_calm() -> None:
    """Whoever looks at an edge sees what it does to the calm side."""
    picture = np.full((96, 96, 3), 128, np.uint8)
    picture[:, 56:] = np.random.default_rng(0).integers(0, 256, (96, 40, 3), np.uint8)
    worth = rate_distortion.worth(picture)  # the fourth column of positions has 8 pixels of noise
    assert worth[:, 3].min() > 3 * worth[:, 5].max()


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (17, 40), (5, 100)])
def test_every_position_of_any_picture_has_a_worth(shape: tuple[int, int]) -> None:
    worth = rate_distortion.worth(np.zeros((*shape, 3), np.uint8))
    assert worth.shape == (-(-shape[0] // 16), -(-shape[1] // 16))
    assert np.isfinite(worth).all()


def test_strips_do_not_show(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rate_distortion.worth(picture)
    monkeypatch.setattr(rate_distortion, "_STRIP", 3)
    assert np.allclose(rate_distortion.worth(picture), whole, rtol=1e-5)


def test_cost_adds_up() -> None:
    """A squared error of 65.025 is 30 dB."""
    assert rate_distortion.cost(Scores(100.0, 1.0), 0.5, 4.0) == pytest.approx(0.5, abs=1e-3)
    price = rate_distortion.PRICE / 4**4
    assert rate_distortion.cost(Scores(30.0, 1.0), 0.5, 4.0) == pytest.approx(0.5 + price * 65.025)
    assert rate_distortion.cost(Scores(30.0, 0.99), 0.5, 4.0) == pytest.approx(0.5 + price * (65.025 + 0.1 * rate_distortion._STRUCTURE))
