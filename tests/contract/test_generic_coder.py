"""Latents of any autoencoder to bytes: exact, near, small, and refused when damaged."""

from __future__ import annotations

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sdfs.codec.coding import generic_coder, generic_prior, rotation
from sdfs.codec.coding.generic_coder import GenericCoder, steps_for
from sdfs.errors import DamagedError


@pytest.fixture(scope="module")
def coder() -> GenericCoder:
    return GenericCoder()


@pytest.fixture(scope="module")
def section(coder: GenericCoder) -> bytes:
    """Of three channels, 9 x 10."""
    return coder.encode(field(3, 9, 10), steps(3, 0.2))[0]


def field(channels: int, rows: int, columns: int, smooth: float = 1.5, seed: int = 0) -> NDArray[np.float32]:
    """Latents of unit variance, correlated between neighbours and between channels."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(channels, rows, columns))
    surfaces = np.stack([gaussian_filter(plane, smooth) for plane in noise])
    mixed = np.tensordot(random.normal(size=(channels, channels)), surfaces / max(surfaces.std(), 1e-9) + 0.02 * noise, 1)
    return (mixed / max(mixed.std(), 1e-9)).astype(np.float32)


def steps(channels: int, step: float) -> NDArray[np.float32]:
    return np.full(channels, step, np.float32)


@pytest.mark.parametrize("step", [2.0**-8, 0.03, 0.3, 1.0, 8.0])
def test_the_decoder_gets_what_the_encoder_said(coder: GenericCoder, step: float) -> None:
    latents = field(4, 40, 53)
    data, quantised = coder.encode(latents, steps(4, step))
    np.testing.assert_array_equal(coder.decode(data, *latents.shape), quantised)


@pytest.mark.parametrize("channels", [1, 2, 4, 16, 32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (5, 3), (17, 16), (33, 1)])
def test_any_grid_is_coded(coder: GenericCoder, channels: int, shape: tuple[int, int]) -> None:
    data, quantised = coder.encode(field(channels, *shape), steps(channels, 0.2))
    np.testing.assert_array_equal(coder.decode(data, channels, *shape), quantised)


@settings(max_examples=40)
@given(
    channels=st.integers(1, 6),
    rows=st.integers(1, 24),
    columns=st.integers(1, 24),
    step=st.floats(-8, 4),
    spread=st.floats(-6, 6),
    smooth=st.floats(0, 4),
    seed=st.integers(0, 99),
)
def test_any_latents_come_back_as_said(
    coder: GenericCoder, channels: int, rows: int, columns: int, step: float, spread: float, smooth: float, seed: int
) -> None:
    latents = field(channels, rows, columns, smooth, seed) * np.float32(2**spread)
    data, quantised = coder.encode(latents, steps(channels, 2**step))
    np.testing.assert_array_equal(coder.decode(data, *latents.shape), quantised)


@pytest.mark.parametrize("step", [0.05, 0.3])
def test_the_error_is_about_that_of_rounding(coder: GenericCoder, step: float) -> None:
    latents = field(4, 64, 64)
    data, quantised = coder.encode(latents, steps(4, step))
    error = np.mean((coder.dequantise(data, quantised) - latents) ** 2)
    assert error < 1.25 * step**2 / 12


def test_every_channel_has_the_error_of_its_step(coder: GenericCoder) -> None:
    latents = field(4, 64, 64)
    wanted = np.array([0.05, 0.1, 0.2, 0.4], np.float32)
    data, quantised = coder.encode(latents, wanted)
    errors = np.sqrt(12 * np.mean((coder.dequantise(data, quantised) - latents) ** 2, (1, 2)))
    np.testing.assert_allclose(errors, wanted, rtol=0.2)


def test_smaller_steps_take_more_bytes(coder: GenericCoder) -> None:
    sizes = [len(coder.encode(field(4, 32, 32), steps_for(quality, steps(4, 1)))[0]) for quality in range(0, 101, 10)]
    assert sizes == sorted(sizes)


def test_steps_fall_with_quality() -> None:
    weights = np.array([1, 0.5], np.float32)
    every = np.array([steps_for(quality, weights) for quality in range(101)])
    assert (np.diff(every, axis=0) < 0).all()
    np.testing.assert_allclose(every[:, 0], 2 * every[:, 1])


def test_a_surface_takes_far_less_than_noise(coder: GenericCoder) -> None:
    surface, noise = (len(coder.encode(field(4, 64, 64, smooth), steps(4, 0.2))[0]) for smooth in (4.0, 0.0))
    assert surface < 0.4 * noise


def test_channels_that_move_together_take_little_more_than_one(coder: GenericCoder) -> None:
    one = field(1, 64, 64)
    four = np.concatenate([one, -one, 0.5 * one, 0.8 * one])
    alone, together = (len(coder.encode(latents, steps(len(latents), 0.2))[0]) for latents in (one, four))
    assert together < 1.5 * alone


def test_what_is_constant_takes_next_to_nothing(coder: GenericCoder) -> None:
    data, quantised = coder.encode(np.full((4, 64, 64), 0.7, np.float32), steps(4, 0.1))
    assert len(data) < 80
    assert np.abs(coder.dequantise(data, quantised) - 0.7).max() < 0.05


def test_extreme_latents_are_coded(coder: GenericCoder) -> None:
    extreme = np.zeros((3, 20, 20), np.float32)
    extreme[0, 0, 0], extreme[1, 7, 7], extreme[2, 19, 4] = 1e9, -1e9, 300
    data, quantised = coder.encode(extreme, steps(3, 2.0**-8))
    np.testing.assert_array_equal(coder.decode(data, *extreme.shape), quantised)


def test_slices_do_not_know_of_each_other(coder: GenericCoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generic_coder, "SLICE", 8)
    latents = field(2, 20, 13)
    data, quantised = coder.encode(latents, steps(2, 0.2))
    np.testing.assert_array_equal(coder.decode(data, *latents.shape), quantised)
    head = generic_coder.Head.parse(data, 2)[1]
    length = int.from_bytes(data[head : head + 4], "little")
    np.testing.assert_array_equal(coder.decode(data[:head] + data[head + 4 : head + 4 + length], 2, 8, 8), quantised[:, :8, :8])


def test_a_rotation_is_one() -> None:
    angles = np.random.default_rng(0).integers(-128, 128, rotation.angle_count(7)).astype(np.int8)
    back = rotation.matrix(angles, 7)
    np.testing.assert_allclose(back @ back.T, np.eye(7), atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_rotated_channels_differ_independently_of_each_other(seed: int) -> None:
    latents = field(5, 64, 64, 1.0, seed) * 20
    angles = rotation.fitting(latents)
    assert angles is not None
    rotated = np.tensordot(rotation.matrix(angles, 5).T, latents, 1)
    correlation = np.corrcoef(np.diff(rotated, axis=1).reshape(5, -1) + np.random.default_rng(0).normal(size=(5, 63 * 64)))
    assert np.abs(correlation - np.eye(5)).max() < 0.15


def test_known_positions_alone_decide(coder: GenericCoder) -> None:
    """What a pass knows does not change with the positions that it and later passes decode."""
    grid = (field(2, 12, 11) * 160).astype(np.int32)
    profiles = np.array([3, 20], np.int32)
    for number, one in enumerate(generic_prior.PASSES):
        known = np.zeros_like(grid)
        known[:, ::2, ::2] = grid[:, ::2, ::2]
        for earlier in generic_prior.PASSES[:number]:
            known[earlier.where(1)] = grid[earlier.where(1)]
        for seen, wanted in zip(coder.prior.activity(grid, number, profiles), coder.prior.activity(known, number, profiles), strict=True):
            np.testing.assert_array_equal(seen, wanted)
        assert one.at != (0, 0)


def test_nothing_overflows(coder: GenericCoder) -> None:
    """The same in 64 bits."""
    signs = np.random.default_rng(1).choice([-1, 1], (3, 16, 16)) * generic_prior.VALUE_LIMIT
    for profile in range(generic_prior.PROFILES):
        profiles, shifts = np.full(3, profile, np.int32), np.zeros(3, np.int32)
        for number in range(len(generic_prior.PASSES)):
            narrow, wide = (coder.prior.activity(signs.astype(kind), number, profiles) for kind in (np.int32, np.int64))
            for one, other in zip(narrow, wide, strict=True):
                np.testing.assert_array_equal(one, other)
            classes = coder.prior.classes(narrow, 0, number, profiles, shifts)
            wide = generic_prior.Activity(*(part.astype(np.int64) for part in wide))
            np.testing.assert_array_equal(classes, coder.prior.classes(wide, 0, number, profiles, shifts))


@settings(max_examples=150)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4), cut=st.integers(0, 20))
def test_damage_is_noticed_or_decodes_to_something(coder: GenericCoder, section: bytes, flips: list[tuple[int, int]], cut: int) -> None:
    """The checksum over the latents, in the header, catches what gets through here."""
    data = bytearray(section)
    for position, mask in flips:
        data[position % len(data)] ^= mask
    damaged = bytes(data[: len(data) - cut])
    with contextlib.suppress(DamagedError):
        quantised = coder.decode(damaged, 3, 9, 10)
        assert quantised.shape == (3, 9, 10)
        assert np.isfinite(coder.dequantise(damaged, quantised)).all()


@settings(max_examples=150)
@given(data=st.binary(max_size=200), channels=st.integers(1, 5), rows=st.integers(1, 20), columns=st.integers(1, 20))
def test_noise_is_refused_or_decodes_to_something(coder: GenericCoder, data: bytes, channels: int, rows: int, columns: int) -> None:
    with contextlib.suppress(DamagedError):
        assert coder.decode(data, channels, rows, columns).shape == (channels, rows, columns)


def test_every_truncation_is_noticed(coder: GenericCoder, section: bytes) -> None:
    for length in range(len(section)):
        with pytest.raises(DamagedError):
            coder.decode(section[:length], 3, 9, 10)


def test_an_unknown_flag_is_refused(coder: GenericCoder, section: bytes) -> None:
    with pytest.raises(DamagedError, match="flags"):
        coder.decode(bytes([section[0] | 4]) + section[1:], 3, 9, 10)


def test_another_size_is_refused(coder: GenericCoder, section: bytes) -> None:
    with pytest.raises(DamagedError):
        coder.decode(section, 3, 10, 10)


def test_a_claimed_size_without_bytes_is_refused_at_once(coder: GenericCoder, section: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match="cannot hold"):
            coder.decode(section, 3, 1 << 20, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
