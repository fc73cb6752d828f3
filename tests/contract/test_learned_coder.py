"""Latents to bytes: exact, the same however it is computed, and refused when damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sdfs.codec.autoencoders.layout import CHANNELS, Analysed, Group, Latents
from sdfs.codec.autoencoders.runner import BundledAutoencoder
from sdfs.codec.coding import learned_coder
from sdfs.codec.coding.learned_coder import LATENT_LIMIT, LearnedCoder, Worth
from sdfs.codec.coding.learned_prior import GRID, LearnedPrior
from sdfs.errors import DamagedError

CHROMA_QUALITY = 85  # the lowest that has the last group
BEYOND_WORTH = np.float32(1e9)  # bits for a squared error: the nearest symbol is always taken


@pytest.fixture(scope="module")
def analysed(autoencoder: BundledAutoencoder, photo: NDArray[np.uint8]) -> Analysed:
    """Of 10 x 14 positions, some with short windows."""
    found = autoencoder.encode(photo[:150, :210], CHROMA_QUALITY)
    assert 0 < found.short.sum() < found.short.size
    return found


def even(analysed: Analysed, value: float = 4.0) -> Worth:
    return np.full(analysed.short.shape, value, np.float32)


def noise(rows: int, columns: int, scale: float = 30.0) -> Analysed:
    random = np.random.default_rng(1)
    return Analysed((random.normal(size=(rows, columns, CHANNELS)) * scale).astype(np.float32), random.random((rows, columns)) < 0.5)


def assert_same(found: Latents, wanted: Latents) -> None:
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(found.short, wanted.short)


@pytest.mark.parametrize("quality", [0, 37, CHROMA_QUALITY - 1, CHROMA_QUALITY, 100])
def test_the_decoder_gets_what_the_encoder_said(coder: LearnedCoder, analysed: Analysed, quality: int) -> None:
    data, latents = coder.encode(analysed, quality, even(analysed))
    assert_same(coder.decode(data, *analysed.short.shape, quality), latents)
    np.testing.assert_array_equal(latents.short, analysed.short)


def test_only_higher_qualities_have_the_last_group(coder: LearnedCoder) -> None:
    analysed = noise(2, 3)
    lower, higher = (coder.encode(analysed, quality, even(analysed))[1].values for quality in (CHROMA_QUALITY - 1, CHROMA_QUALITY))
    assert lower.shape[2] == Group.CHROMA.channels.start
    assert higher[:, :, Group.CHROMA.channels].any()


def test_quantisation_is_near(coder: LearnedCoder, analysed: Analysed) -> None:
    latents = coder.encode(analysed, 100, even(analysed, BEYOND_WORTH))[1]
    error = np.abs(latents.values / 16 - analysed.latents)
    assert np.mean(error > 0.5) < 2e-3  # only symbols of class 0, which are dropped, are farther away


def test_a_symbol_that_is_worth_nothing_is_not_sent(coder: LearnedCoder, analysed: Analysed) -> None:
    sizes = [len(coder.encode(analysed, CHROMA_QUALITY, even(analysed, worth))[0]) for worth in (0.0, 1.0, 10.0, BEYOND_WORTH)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("quality", [0, 50, 75, 90, 100])
@pytest.mark.parametrize("grey", [0, 120, 127, 128, 160, 255])
def test_means_are_near_even_where_the_prior_is_wrong(
    coder: LearnedCoder, autoencoder: BundledAutoencoder, grey: int, quality: int
) -> None:
    analysed = autoencoder.encode(np.full((80, 80, 3), grey, np.uint8), quality)
    values = coder.encode(analysed, quality, even(analysed, BEYOND_WORTH))[1].values[:, :, : Group.LOW.channels.stop]
    assert np.abs(values / 16 - analysed.latents[:, :, : Group.LOW.channels.stop]).max() < 0.5 + 1e-3


def test_what_the_prior_never_saw_is_coded_nevertheless(coder: LearnedCoder, autoencoder: BundledAutoencoder) -> None:
    """A checkerboard of single pixels has no other frequencies than the highest, which photos have not."""
    rows, columns = np.indices((48, 64))
    picture = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, 2)
    analysed = autoencoder.encode(picture, 75)
    data, latents = coder.encode(analysed, 75, even(analysed, BEYOND_WORTH))
    assert data[0] > 0  # outliers
    assert np.abs(latents.values / 16 - analysed.latents).max() < 0.5 + 1e-3
    assert_same(coder.decode(data, 3, 4, 75), latents)


@pytest.mark.parametrize(
    "outliers",
    [
        b"\1",  # one that is not there
        b"\1\0\0",  # of 0
        b"\1\x80\x80\x80\x7f\2",  # beyond the last place
        b"\2\xff\xff\x7f\2\xff\xff\x7f\2",  # the second one beyond it
        b"\1\0\xff\xff\xff\x7f",  # of more than a symbol may be
        b"\xff\xff\xff\xff\x0f",  # more than there are bytes
        b"\xff\xff\xff\xff\xff",  # no number
    ],
    ids=bytes.hex,
)
def test_outliers_that_cannot_be_are_damage(coder: LearnedCoder, outliers: bytes) -> None:
    with pytest.raises(DamagedError):
        coder.decode(outliers, 2, 3, CHROMA_QUALITY)


def test_an_outlier_is_added_wherever_it_is(coder: LearnedCoder) -> None:
    """Channel 500 of the second position of 1 x 2; nothing else is coded."""
    nothing = coder.encode(noise(1, 2, 0.0), CHROMA_QUALITY, np.zeros((1, 2), np.float32))[0]
    assert nothing[0] == 0
    plain, changed = (coder.decode(start + nothing[1:], 1, 2, CHROMA_QUALITY) for start in (b"\0", b"\1\xf4\x09\3"))
    difference = changed.values.astype(int) - plain.values
    assert np.argwhere(difference).tolist() == [[0, 1, 500]]
    assert difference[0, 1, 500] == -2 * 16


@pytest.mark.parametrize("quality", [30, CHROMA_QUALITY])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (5, 3), (64, 1), (64, 65)], ids=str)
def test_any_grid_is_coded(coder: LearnedCoder, shape: tuple[int, int], quality: int) -> None:
    analysed = noise(*shape)
    data, latents = coder.encode(analysed, quality, even(analysed))
    assert_same(coder.decode(data, *shape, quality), latents)


@pytest.mark.parametrize("quality", [0, 100])
def test_extreme_latents_are_coded(coder: LearnedCoder, quality: int) -> None:
    """As a checkerboard, which no mean expects, and alone."""
    extreme = noise(4, 4, 0.0)
    extreme.latents[:, :, :200] = np.where(np.indices((4, 4)).sum(0) % 2, 1e9, -1e9)[:, :, None]
    extreme.latents[1, 2, [300, 500, 700]] = 1e9, -1e9, 4e4
    data, latents = coder.encode(extreme, quality, even(extreme))
    assert np.abs(latents.values[:, :, :3]).max() > 16 * (LATENT_LIMIT - 1)
    assert_same(coder.decode(data, 4, 4, quality), latents)


def test_threads_change_nothing(coder: LearnedCoder, analysed: Analysed) -> None:
    data, latents = coder.encode(analysed, CHROMA_QUALITY, even(analysed))
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert_same(coder.decode(data, *analysed.short.shape, CHROMA_QUALITY), latents)
    finally:
        torch.set_num_threads(threads)


def test_slices_do_not_know_of_each_other(coder: LearnedCoder, analysed: Analysed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned_coder, "SLICE", 4)
    data, latents = coder.encode(analysed, CHROMA_QUALITY, even(analysed))
    assert_same(coder.decode(data, *analysed.short.shape, CHROMA_QUALITY), latents)
    length = int.from_bytes(data[:4], "little")
    first = Latents(latents.values[:4, :4], latents.short[:4, :4])
    assert_same(coder.decode(data[4 : 4 + length], 4, 4, CHROMA_QUALITY), first)


@pytest.mark.parametrize("last", [Group.MEAN, Group.LOW])
def test_the_first_groups_are_read_without_the_others(coder: LearnedCoder, analysed: Analysed, last: Group) -> None:
    data, latents = coder.encode(analysed, CHROMA_QUALITY, even(analysed))
    part = coder.decode(data, *analysed.short.shape, CHROMA_QUALITY, last)
    np.testing.assert_array_equal(part.values, latents.values[:, :, : last.channels.stop])
    if last is Group.LOW:
        np.testing.assert_array_equal(part.short, latents.short)


@settings(max_examples=60)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4), cut=st.integers(0, 20))
def test_damage_is_noticed_or_decodes_to_something(coder: LearnedCoder, analysed: Analysed, flips: list[tuple[int, int]], cut: int) -> None:
    """The checksum over the latents, in the header, catches what gets through here."""
    corner = Analysed(analysed.latents[:3, :3], analysed.short[:3, :3])
    data = bytearray(coder.encode(corner, CHROMA_QUALITY, even(corner))[0])
    for position, mask in flips:
        data[position % len(data)] ^= mask
    with contextlib.suppress(DamagedError):
        assert coder.decode(bytes(data[: len(data) - cut]), 3, 3, CHROMA_QUALITY).values.shape == (3, 3, CHANNELS)


@settings(max_examples=60)
@given(data=st.binary(min_size=1, max_size=400), quality=st.integers(0, 100))
def test_any_bytes_are_refused_or_decode_to_something(coder: LearnedCoder, data: bytes, quality: int) -> None:
    with contextlib.suppress(DamagedError):
        assert coder.decode(data, 2, 5, quality).short.shape == (2, 5)


def test_a_claimed_size_without_bytes_is_refused_at_once(coder: LearnedCoder) -> None:
    with pytest.raises(DamagedError, match="cannot hold"):
        coder.decode(bytes(100), 1 << 20, 1 << 20, CHROMA_QUALITY)


def test_the_prior_costs_at_most_240_kmac_a_position() -> None:
    """Which keeps it a small part of a decode: not a thousand multiplications a pixel."""
    assert 200_000 < multiplications(Group.CHROMA) <= 240_000


def test_without_the_last_group_it_costs_less() -> None:
    assert multiplications(Group.HIGH) < 0.9 * multiplications(Group.CHROMA)


def multiplications(last: Group) -> float:
    """Of the prior, a position."""
    prior, counted, side = LearnedPrior().requires_grad_(False), 0, 4 * GRID

    def count(layer: torch.nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal counted
        counted += out.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]

    for layer in prior.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)

    def step(group: Group, places: object, mean: torch.Tensor, log2_scale: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, 3, side // 4, side // 4) if log2_scale.shape[2] == 1 else torch.zeros_like(log2_scale)

    prior.passes(step, lambda _, logit: torch.zeros_like(logit), torch.tensor([70.0]), last=last)
    return counted / side**2


def spoiled(name: str, change: Callable[[torch.Tensor], torch.Tensor], weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return weights | {f"prior.{name}": change(weights[f"prior.{name}"].clone())}


def one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(x: torch.Tensor) -> torch.Tensor:
        x.view(-1)[0] = value
        return x

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mix.weight", one(300.0), "mix does not stay exact"),
        ("low.squeeze.bias", one(5000.0), "low.squeeze does not stay exact"),
        ("high.odd.weight", lambda x: x + 0.001, "high.odd.weight is not rounded"),
        ("refined.2.out.bias", lambda x: x + 0.001, "refined.2.out.bias is not rounded"),
        ("see_low.around.weight", one(float("nan")), "see_low.around"),
        ("middle.out.weight", one(float("inf")), "middle.out"),
        ("low_mean.weight", lambda x: x + 0.0001, "low_mean.weight is not rounded"),
        ("refined.1.linear.weight", one(300.0), "refined.1.linear does not stay exact"),
        ("low_mean_odd.weight", one(float("nan")), "low_mean_odd"),
        ("quality.levels", one(1000.0), "table quality"),
        ("high.quality.levels", one(float("nan")), "high.quality"),
    ],
)
def test_weights_that_are_not_exact_are_refused(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str, weights: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(DamagedError, match=message):
        LearnedCoder(spoiled(name, change, weights))


def test_sums_as_large_as_allowed_are_exact() -> None:
    """In float32 as in float64, whatever comes first."""
    prior = LearnedPrior().requires_grad_(False)
    for layer in prior.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.manual_seed(0)
            layer.weight.uniform_(0, 100)
    prior.restrain()
    prior.load_state_dict(prior.exact_state())
    rounded = prior.mix
    x = torch.randint(0, 256, (1, 9, 9, 64)).float()
    found = rounded(x).permute(0, 3, 1, 2)
    first = x.double().permute(0, 3, 1, 2)
    np.testing.assert_array_equal(
        found.double(), torch.nn.functional.conv2d(first, rounded.weight.double(), rounded.bias.double() * 16, padding=1)
    )
    assert found.abs().max() > 16000
