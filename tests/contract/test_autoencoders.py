"""The bundled autoencoder, with the package's weights: its transform, its network, and its tiles."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sdfs.codec.autoencoders import lapped, layout, rendering
from sdfs.codec.autoencoders.corners import Border
from sdfs.codec.autoencoders.lapped import BANDS, COMPONENTS, FACTOR
from sdfs.codec.autoencoders.layout import CHANNELS, DETAIL_CHANNELS, Analysed, Group, Latents
from sdfs.codec.autoencoders.rendering import HALO, Rendering
from sdfs.codec.autoencoders.restoration import Restoration, from_cells, to_cells
from sdfs.codec.autoencoders.runner import BundledAutoencoder, thumbnail
from sdfs.codec.autoencoders.tiles import spans
from sdfs.codec.coding.learned_coder import LearnedCoder
from sdfs.codec.quality import rate_distortion

CPU = torch.device("cpu")
CHROMA_QUALITY = 85  # the lowest that has the last group


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean(np.square(a.astype(float) - b)))))


def rounded(analysed: Analysed) -> Latents:
    return Latents(np.clip(np.rint(analysed.latents) * 16, -32000, 32000).astype(np.int16), analysed.short)


def random_windows(rows: int, columns: int) -> torch.Tensor:
    return torch.rand(1, rows, columns, generator=torch.Generator().manual_seed(0)) < 0.5


WINDOWS = {"long": torch.zeros(1, 3, 4, dtype=torch.bool), "short": torch.ones(1, 3, 4, dtype=torch.bool), "both": random_windows(3, 4)}


@pytest.mark.parametrize("windows", WINDOWS)
def test_the_transform_is_orthonormal(windows: str) -> None:
    """The coefficients of unit samples are the rows of a matrix whose inverse is its transpose."""
    short = WINDOWS[windows]
    rows, columns = short.shape[1:]
    samples = rows * columns * FACTOR**2
    units = torch.eye(samples).reshape(samples, 1, rows * FACTOR, columns * FACTOR)
    matrix = lapped.forward(units, short.expand(samples, -1, -1)).reshape(samples, -1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(samples), atol=2e-6, rtol=0)


@pytest.mark.parametrize("windows", WINDOWS)
def test_the_inverse_undoes_the_transform(windows: str) -> None:
    torch.manual_seed(0)
    components = torch.randn(1, COMPONENTS, 3 * FACTOR, 4 * FACTOR) * 100
    restored = lapped.inverse(lapped.forward(components, WINDOWS[windows]), WINDOWS[windows])
    torch.testing.assert_close(restored, components, atol=1e-3, rtol=0)


@pytest.mark.parametrize("windows", WINDOWS)
def test_a_constant_has_one_coefficient_a_position(windows: str) -> None:
    coefficients = lapped.forward(torch.full((1, 1, 3 * FACTOR, 4 * FACTOR), 50.0), WINDOWS[windows])
    torch.testing.assert_close(coefficients[..., 0], torch.full((1, 1, 3, 4), 50.0 * FACTOR), atol=1e-3, rtol=0)
    assert coefficients[..., 1:].abs().max() < 1e-3


def test_transforming_changes_nothing_in_place() -> None:
    components, short = torch.randn(1, 1, 32, 32), random_windows(2, 2)
    before = components.clone()
    coefficients = lapped.forward(components, short)
    assert torch.equal(components, before)
    before = coefficients.clone()
    lapped.inverse(coefficients, short)
    assert torch.equal(coefficients, before)


def test_an_error_of_short_windows_spreads_less_far() -> None:
    def reach(short: bool) -> int:
        coefficients = torch.zeros(1, 1, 5, 5, BANDS)
        coefficients[0, 0, 2, 2, 10] = 100
        samples = lapped.inverse(coefficients, torch.full((1, 5, 5), short))
        return int((samples[0, 0].abs() > 1e-3).any(1).sum())

    assert reach(False) == 2 * FACTOR
    assert reach(True) == FACTOR  # 8 samples, and 4 more on either side


def test_a_speck_gets_short_windows_and_calm_ground_long_ones() -> None:
    picture = torch.full((1, 3, 96, 96), 100.0)
    picture[..., 36:39, 36:39] = 200.0
    short = lapped.choose(lapped.to_components(picture), torch.tensor([16.0]))[0]
    assert short[2, 2]
    assert not short[4:].any()
    assert not short[:, 4:].any()


def test_colours_come_back() -> None:
    rgb = torch.rand(1, 3, 4, 4) * 255
    torch.testing.assert_close(lapped.to_rgb(lapped.to_components(rgb)), rgb, atol=1e-3, rtol=0)


def test_a_unit_of_any_component_does_the_same_to_rgb() -> None:
    for axis in range(COMPONENTS):
        unit = torch.zeros(1, COMPONENTS, 1, 1)
        unit[0, axis] = 1
        assert (lapped.to_rgb(unit) - lapped.to_rgb(0 * unit)).norm() == pytest.approx(1, abs=1e-4)


def test_fineness_is_eighths_from_0_to_100() -> None:
    found = [layout.fineness(quality) for quality in range(layout.QUALITIES)]
    assert (found[0], found[-1]) == (0, 100)
    assert found == sorted(set(found))
    assert all((8 * q).is_integer() for q in found)
    assert [layout.last_group(q) for q in (found[CHROMA_QUALITY - 1], found[CHROMA_QUALITY])] == [Group.HIGH, Group.CHROMA]


def test_channels_hold_every_coefficient_once() -> None:
    coefficients = torch.randperm(COMPONENTS * BANDS).float().reshape(1, COMPONENTS, 1, 1, BANDS)
    channels = layout.to_channels(coefficients)
    assert channels.shape == (1, CHANNELS, 1, 1)
    assert torch.equal(layout.to_coefficients(channels), coefficients)
    assert [group.size for group in Group] == [3, 25, 92, 296, 352]


def test_channels_that_are_not_there_are_0() -> None:
    channels = torch.randn(1, Group.CHROMA.channels.start, 2, 3)
    found = layout.to_channels(layout.to_coefficients(channels))
    assert torch.equal(found[:, : channels.shape[1]], channels)
    assert not found[:, channels.shape[1] :].any()


def test_steps_become_finer_with_quality() -> None:
    steps = torch.stack([layout.log2_steps(torch.tensor([layout.fineness(quality)]))[0] for quality in range(layout.QUALITIES)])
    assert (steps.diff(dim=0) <= 0).all()
    assert torch.equal(steps * 16, (steps * 16).round())


@pytest.mark.parametrize("quality", [50, CHROMA_QUALITY])
def test_latents_have_the_promised_shape(autoencoder: BundledAutoencoder, photo: NDArray[np.uint8], quality: int) -> None:
    analysed = autoencoder.encode(photo[:100, :130], quality)
    assert analysed.latents.shape == (7, 9, (Group.CHROMA if quality >= CHROMA_QUALITY else Group.HIGH).channels.stop)
    assert analysed.short.shape == (7, 9)
    assert (analysed.latents.dtype, analysed.short.dtype) == (np.float32, np.bool_)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (17, 33), (64, 65), (65, 127), (100, 400), (481, 321)], ids=str)
def test_a_picture_comes_back_in_its_size(autoencoder: BundledAutoencoder, photo: NDArray[np.uint8], shape: tuple[int, int]) -> None:
    picture = photo[: shape[0], : shape[1]]
    decoded = autoencoder.decode(rounded(autoencoder.encode(picture, 90)), 90, *picture.shape[:2])
    assert decoded.shape == picture.shape
    assert decoded.dtype == np.uint8
    assert psnr(decoded, picture) > 30


def test_a_grey_picture_has_no_chroma(autoencoder: BundledAutoencoder, photo: NDArray[np.uint8]) -> None:
    grey = np.repeat(photo[:128, :128, 1:2], 3, axis=2)
    coefficients = layout.to_coefficients(torch.from_numpy(autoencoder.encode(grey, 90).latents).permute(2, 0, 1)[None])
    assert coefficients[:, 1:].abs().max() < 1e-2


@pytest.mark.parametrize("quality", [30, 100])
def test_latents_are_what_the_transform_says(autoencoder: BundledAutoencoder, photo: NDArray[np.uint8], quality: int) -> None:
    """The fast way has no transform of its own."""
    picture = photo[:208, :160]
    found, q = autoencoder.encode(picture, quality), torch.tensor([layout.fineness(quality)])
    components = lapped.to_components(torch.from_numpy(picture).permute(2, 0, 1)[None].float())
    short = lapped.choose(components, torch.exp2(layout.log2_step(q)))
    assert 0 < short.sum() < short.numel()
    wanted = layout.to_channels(lapped.forward(components, short)) / torch.exp2(layout.log2_steps(q))[:, :, None, None]
    np.testing.assert_array_equal(found.short, short[0])
    np.testing.assert_allclose(found.latents, wanted[0].permute(1, 2, 0)[:, :, : found.latents.shape[2]], atol=1e-3)


def test_windows_are_nearly_the_same_in_another_number_format(
    autoencoder: BundledAutoencoder, weights: dict[str, torch.Tensor], photo: NDArray[np.uint8]
) -> None:
    other = BundledAutoencoder(weights, "", CPU, torch.bfloat16)
    wanted, found = (made.encode(photo, 50).short for made in (autoencoder, other))
    assert wanted.any()
    assert np.mean(wanted != found) < 0.01


@pytest.mark.parametrize("windows", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("quality", [10, 100])
def test_pixels_are_what_the_transform_and_the_network_say(autoencoder: BundledAutoencoder, quality: int, windows: float) -> None:
    """With latents of all groups, in some places; the fast way has no transform and no network of its own."""
    random = np.random.default_rng(4)
    values = (random.laplace(0, 6, (7, 9, CHANNELS)) * 16 * (random.random((7, 9, 1)) < 0.5)).astype(np.int16)
    short = random.random((7, 9)) < windows
    found = autoencoder.decode(Latents(values, short), quality, 7 * FACTOR, 9 * FACTOR)
    q = torch.tensor([layout.fineness(quality)])
    latents, flags = torch.from_numpy(values).permute(2, 0, 1)[None] / 16, torch.from_numpy(short)[None]
    step, steps = torch.exp2(layout.log2_step(q)), torch.exp2(layout.log2_steps(q))[:, :, None, None]
    linear = lapped.inverse(layout.to_coefficients(latents * steps), flags)
    with torch.inference_mode():
        wanted = lapped.to_rgb(autoencoder._network.restoration(linear, latents[:, DETAIL_CHANNELS], flags, step, q))
    wanted = wanted.clamp(0, 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() < 0.51


GREYS = [(level,) * 3 for level in range(256)]
SATURATED = [colour for colour in itertools.product((0, 255), repeat=3) if len(set(colour)) > 1]


@pytest.mark.parametrize("quality", range(0, 101, 20))
def test_flat_latents_give_a_flat_picture(quality: int, autoencoder: BundledAutoencoder) -> None:
    """Of every grey and of saturated colours, whatever was chosen for windows: the network gives nothing to what has nothing."""
    colours = torch.tensor([*GREYS, *SATURATED], dtype=torch.float32)
    means = lapped.to_components(colours[:, :, None, None]) * FACTOR
    coefficients = torch.zeros(len(colours), COMPONENTS, 2, 3, BANDS)
    coefficients[..., 0] = means
    short = random_windows(2, 3).expand(len(colours), -1, -1)
    q = torch.full((len(colours),), float(quality))
    detail = torch.zeros(len(colours), DETAIL_CHANNELS.stop - DETAIL_CHANNELS.start, 2, 3)
    restoration = autoencoder._network.restoration
    with torch.inference_mode():
        rgb = lapped.to_rgb(restoration(lapped.inverse(coefficients, short), detail, short, torch.exp2(layout.log2_step(q)), q))
    assert (rgb - colours[:, :, None, None]).abs().max() < 0.05


@pytest.mark.parametrize("quality", [0, 25, 50, 75, 100])
def test_a_flat_picture_stays_flat(quality: int, autoencoder: BundledAutoencoder, coder: LearnedCoder) -> None:
    """What is left is one error of all its pixels: that of the means."""
    half_step = 0.5 * 2 ** float(layout.log2_steps(torch.tensor([layout.fineness(quality)]))[0].max()) / FACTOR  # of a component
    for colour in [*GREYS[::17], *SATURATED]:
        picture = np.full((33, 50, 3), colour, np.uint8)
        latents = coder.encode(autoencoder.encode(picture, quality), quality, rate_distortion.worth(picture))[1]
        decoded = autoencoder.decode(latents, quality, 33, 50).astype(int)
        assert np.ptp(decoded, (0, 1)).max() <= 1, colour
        assert np.abs(decoded - colour).max() <= 1 + 3**0.5 * half_step, colour


def test_tiles_leave_no_seams(autoencoder: BundledAutoencoder, weights: dict[str, torch.Tensor], photo: NDArray[np.uint8]) -> None:
    small, picture = BundledAutoencoder(weights, "", CPU, torch.float32, tile=4), photo[:200, :150]
    whole, parts = autoencoder.encode(picture, 70), small.encode(picture, 70)
    np.testing.assert_array_equal(parts.short, whole.short)
    assert np.abs(parts.latents - whole.latents).max() < 1e-3
    difference = small.decode(rounded(whole), 70, 200, 150).astype(int) - autoencoder.decode(rounded(whole), 70, 200, 150)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("factor", "group"), [(16, Group.MEAN), (8, Group.LOW)])
def test_a_thumbnail_is_the_picture_reduced(factor: int, group: Group, autoencoder: BundledAutoencoder, photo: NDArray[np.uint8]) -> None:
    latents = rounded(autoencoder.encode(photo, 95))
    made = thumbnail(Latents(latents.values[:, :, : group.channels.stop], latents.short), 95, factor)
    reduced = photo.reshape(512 // factor, factor, 512 // factor, factor, 3).mean((1, 3))
    assert made.shape == reduced.shape
    assert psnr(made, reduced) > 25


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most_positions: int, device: str = "cpu") -> list[int]:
    """The device has no memory for tiles of more than so many latent positions per side. Returns what is tried."""
    tried: list[int] = []
    blocks = rendering.blocks

    def limited(values: NDArray[np.int16], short: NDArray[np.bool_], border: Border, scale: torch.Tensor, middle: float) -> torch.Tensor:
        tried.append(short.shape[1])
        if short.shape[1] > most_positions and scale.device.type == device:
            raise torch.OutOfMemoryError("no memory is left")
        return blocks(values, short, border, scale, middle)

    monkeypatch.setattr(rendering, "blocks", limited)
    return tried


def test_tiles_become_smaller_where_memory_is_short(
    weights: dict[str, torch.Tensor], photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = BundledAutoencoder(weights, "", CPU, torch.float32)
    latents = rounded(autoencoder.encode(photo, 50))
    decoded = autoencoder.decode(latents, 50, 512, 512)
    tried = short_of_memory(monkeypatch, 22)
    again = autoencoder.decode(latents, 50, 512, 512)
    assert np.abs(again.astype(int) - decoded).max() <= 1
    assert tried[:4] == [32, 32, 18, 18]  # 512 pixels in tiles of 64, 32 and 16 positions, with halos of 2
    tried.clear()
    autoencoder.decode(latents, 50, 512, 512)
    assert max(tried) <= 22


def test_the_cpu_is_used_where_the_smallest_tile_does_not_fit_on_the_device(
    autoencoder: BundledAutoencoder, weights: dict[str, torch.Tensor], photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 0, "meta")
    latents = rounded(autoencoder.encode(photo[:64, :64], 50))
    decoded = BundledAutoencoder(weights, "", torch.device("meta"), torch.float32).decode(latents, 50, 64, 64)
    assert np.abs(decoded.astype(int) - autoencoder.decode(latents, 50, 64, 64)).max() <= 1


def test_memory_that_does_not_suffice_for_the_smallest_tile_is_an_error(
    weights: dict[str, torch.Tensor], photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = BundledAutoencoder(weights, "", CPU, torch.float32)
    latents = rounded(autoencoder.encode(photo[:64, :64], 50))
    short_of_memory(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        autoencoder.decode(latents, 50, 64, 64)


@pytest.mark.parametrize(("noise", "warnings"), [(0.0, 0), (20.0, 1)])
def test_a_number_format_that_is_wrong_here_is_not_used(
    noise: float, warnings: int, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cells = Rendering._cells

    def inexact(self: Rendering, *given: Any) -> torch.Tensor:
        return cells(self, *given).add_(noise if self._dtype == torch.bfloat16 else 0)

    monkeypatch.setattr(Rendering, "_cells", inexact)
    made = BundledAutoencoder(weights, "", CPU, torch.bfloat16)
    assert [message.endswith("float32 is used") for message in caplog.messages] == [True] * warnings
    assert made.placed == (CPU, torch.float32 if warnings else torch.bfloat16)


def test_an_untrained_network_changes_nothing() -> None:
    components, detail = torch.randn(1, COMPONENTS, 32, 48) * 50, torch.randn(1, 117, 2, 3)
    with torch.no_grad():
        restored = Restoration()(components, detail, random_windows(2, 3), torch.tensor([10.0]), torch.tensor([50.0]))
    assert torch.equal(restored, components)


def test_cells_hold_every_sample_once() -> None:
    components = torch.randn(2, COMPONENTS, 24, 40)
    cells = to_cells(components)
    assert cells.shape == (2, 3, 5, 192)
    assert torch.equal(cells[1, 2, 4, 64:128], components[1, 1, 16:, 32:].flatten())
    assert torch.equal(from_cells(cells), components)


@pytest.mark.parametrize(("length", "tile", "halo"), [(1, 4, 2), (9, 4, 2), (8, 4, 1), (100, 7, 3)])
def test_spans_cover_everything_once(length: int, tile: int, halo: int) -> None:
    covered = [i for span in spans(length, tile, halo) for i in range(length)[span.inner]]
    assert covered == list(range(length))
    for span in spans(length, tile, halo):
        assert list(range(length)[span.outer])[span.kept] == list(range(length)[span.inner])


def test_no_pixel_depends_on_latents_beyond_the_halo() -> None:
    torch.manual_seed(0)
    restoration = Restoration()
    for layer in restoration.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.05)
    side, middle = 13, 6
    values = (torch.randn(1, CHANNELS, side, side) * 10).requires_grad_()
    short, q = random_windows(side, side), torch.tensor([70.0])
    components = lapped.inverse(layout.to_coefficients(values), short)
    picture = restoration(components, values[:, DETAIL_CHANNELS], short, torch.tensor([8.0]), q)
    block = picture[..., middle * FACTOR : (middle + 1) * FACTOR, middle * FACTOR : (middle + 1) * FACTOR]
    (gradient,) = torch.autograd.grad(block.square().sum(), values)
    reached = torch.nonzero(gradient.abs().sum((0, 1)))
    assert reached.min() == middle - HALO
    assert reached.max() == middle + HALO
