"""Latents to bytes: exact, the same however it is computed, and refused when damaged."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sdfs import latent_coding
from sdfs.autoencoders import Autoencoder
from sdfs.errors import DamagedError
from sdfs.latent_coding import LearnedCoder
from sdfs.priors.learned import HYPER, LOW_BAND, LearnedPrior


@pytest.fixture(scope="module")
def latents(autoencoder: Autoencoder, photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    return autoencoder.encode(photo[:150, :210], 60)


@pytest.mark.parametrize("quality", [0, 37, 60, 100])
def test_the_decoder_gets_what_the_encoder_said(coder: LearnedCoder, latents: NDArray[np.float32], quality: int) -> None:
    data, quantised = coder.encode(latents, quality)
    np.testing.assert_array_equal(coder.decode(data, *latents.shape[1:], quality), quantised)


def test_quantisation_is_near(coder: LearnedCoder, latents: NDArray[np.float32]) -> None:
    _, quantised = coder.encode(latents, 100)
    restored = coder.dequantise(quantised, 100)
    step = coder.dequantise(np.full_like(quantised, 16), 100)
    beyond = np.abs(restored - latents) > 0.5 * step + 1e-2
    assert np.mean(beyond) < 2e-3  # only symbols of class 0, which are dropped, are farther away
    assert np.abs((restored - latents) / step).max() < 1.5


@pytest.mark.parametrize("quality", [50, 75, 90, 100])
@pytest.mark.parametrize("grey", [120, 127, 128, 160])
def test_the_low_band_is_near_even_where_the_prior_is_wrong(coder: LearnedCoder, autoencoder: Autoencoder, grey: int, quality: int) -> None:
    """Flat mid-grey is what it was not trained with: it is sure of means that are off by tens of steps."""
    latents = autoencoder.encode(np.full((256, 256, 3), grey, np.uint8), quality)
    restored = coder.dequantise(coder.encode(latents, quality)[1], quality)
    step = coder.dequantise(np.full_like(restored, 16, np.int16), quality)
    assert np.abs((restored - latents) / step)[LOW_BAND].max() < 0.5 + 1e-3


@pytest.mark.parametrize("quality", [75, 90])
def test_flat_mid_grey_takes_about_as_few_bytes_as_another_grey(coder: LearnedCoder, autoencoder: Autoencoder, quality: int) -> None:
    mid, other = (autoencoder.encode(np.full((256, 256, 3), grey, np.uint8), quality) for grey in (127, 160))
    assert len(coder.encode(mid, quality)[0]) < 3 * len(coder.encode(other, quality)[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (64, 65)])
def test_any_grid_is_coded(coder: LearnedCoder, shape: tuple[int, int]) -> None:
    noise = (np.random.default_rng(1).normal(size=(256, *shape)) * 30).astype(np.float32)
    data, quantised = coder.encode(noise, 50)
    np.testing.assert_array_equal(coder.decode(data, *shape, 50), quantised)


def test_extreme_latents_are_coded(coder: LearnedCoder) -> None:
    extreme = np.zeros((256, 4, 4), np.float32)
    extreme[0, 0, 0], extreme[7, 1, 1], extreme[200, 2, 2] = 1e9, -1e9, 4e4
    data, quantised = coder.encode(extreme, 100)
    np.testing.assert_array_equal(coder.decode(data, 4, 4, 100), quantised)


def test_threads_change_nothing(coder: LearnedCoder, latents: NDArray[np.float32]) -> None:
    data, quantised = coder.encode(latents, 60)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            np.testing.assert_array_equal(coder.decode(data, *latents.shape[1:], 60), quantised)
    finally:
        torch.set_num_threads(threads)


def test_slices_do_not_know_of_each_other(coder: LearnedCoder, latents: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_coding, "SLICE", 4)
    data, quantised = coder.encode(latents, 60)
    length = int.from_bytes(data[:4], "little")
    np.testing.assert_array_equal(coder.decode(data[4 : 4 + length], 4, 4, 60), quantised[:, :4, :4])


@settings(max_examples=60)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4), cut=st.integers(0, 20))
def test_damage_is_noticed_or_decodes_to_something(
    coder: LearnedCoder, latents: NDArray[np.float32], flips: list[tuple[int, int]], cut: int
) -> None:
    """The checksum over the latents, in the header, catches what gets through here."""
    data = bytearray(coder.encode(latents[:, :3, :3], 60)[0])
    for position, mask in flips:
        data[position % len(data)] ^= mask
    with contextlib.suppress(DamagedError):
        assert coder.decode(bytes(data[: len(data) - cut]), 3, 3, 60).shape == (256, 3, 3)


def test_a_claimed_size_without_bytes_is_refused_at_once(coder: LearnedCoder) -> None:
    with pytest.raises(DamagedError, match="cannot hold"):
        coder.decode(bytes(100), 1 << 20, 1 << 20, 60)


def test_the_prior_costs_at_most_40_kmac_a_position() -> None:
    """Which keeps it a small part of a decode."""
    prior, multiplications = LearnedPrior(), 0

    def count(layer: torch.nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal multiplications
        multiplications += out.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]

    for layer in prior.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    q = torch.tensor([50.0])
    with torch.no_grad():
        prior.passes(prior.features(torch.zeros(1, HYPER, 8, 8), q), q, lambda *step: torch.zeros_like(step[2]))
    assert 30_000 < multiplications / 32**2 <= 40_000
