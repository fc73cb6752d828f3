"""Training end to end, for a few steps: crops, resuming, export, and a codec that works with what was exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdfs.codec.autoencoders import lapped, layout
from sdfs.codec.autoencoders.layout import CHROMA_FROM, Group
from sdfs.codec.autoencoders.runner import BundledAutoencoder
from sdfs.codec.coding.entropy import CLASSES, FLAG_CLASSES, PRECISION, Tables
from sdfs.codec.coding.learned_coder import TABLES, LearnedCoder
from sdfs.codec.quality import ssimulacra2
from sdfs.codec.quality.rate_distortion import worth
from training import export
from training.data import Crops
from training.export import calibrated, tables, weights_of
from training.objective import Codec, chosen, distortion, laplace_bits
from training.train import Run

SIDE = 128


def steps(run: Run, crops: Path, count: int) -> list[dict[str, float]]:
    batches = Crops(crops, SIDE, seed=run.step).batches(2)
    return [run.advance(next(batches) * 255, torch.tensor([20.0, 80.0]), 1.0) for _ in range(count)]


@pytest.fixture(scope="module")
def trained(weights: dict[str, torch.Tensor]) -> Codec:
    """With the weights of the package."""
    codec = Codec().requires_grad_(False)
    parts = {name: value.float() for name, value in weights.items() if not name.startswith("entropy.")}
    codec.load_state_dict(parts)
    return codec


def test_a_run_is_taken_up_where_it_stopped(crops: Path, tmp_path: Path) -> None:
    first = Run(tmp_path, 1e-4)
    steps(first, crops, 3)
    first.save()
    second = Run(tmp_path, 1e-4)
    assert second.step == 3
    for name, value in first.codec.state_dict().items():
        assert torch.equal(second.codec.state_dict()[name], value), name
        assert torch.equal(second.average[name], first.average[name]), name
    state = second.optimiser.state_dict()["state"]
    assert state[0]["step"] == 3
    steps(second, crops, 2)
    assert second.step == 5


def test_steps_move_every_weight_and_the_average_follows(crops: Path, tmp_path: Path) -> None:
    """The rate grows at first, and the network's last layer is zero, so that those before it move in the second step."""
    run = Run(tmp_path, 1e-3)
    before = {name: value.clone() for name, value in run.codec.state_dict().items()}
    steps(run, crops, 4)
    unmoved = {name for name, value in run.codec.state_dict().items() if torch.equal(value, before[name])}
    assert unmoved == set()
    assert {name for name, value in run.average.items() if torch.equal(value, before[name])} == set()
    assert all(value.isfinite().all() for value in run.average.values())


def test_training_lowers_the_bits(crops: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    run, rgb = Run(tmp_path, 2e-2), next(Crops(crops, SIDE, seed=0).batches(2)) * 255
    found = [run.advance(rgb, torch.full((2,), 50.0), 1.0)["bpp"] for _ in range(12)]
    assert found[-1] < 0.95 * found[0]


def test_training_keeps_the_prior_exact(crops: Path, tmp_path: Path) -> None:
    """However far a step would go."""
    run = Run(tmp_path, 100)
    steps(run, crops, 1)
    exported = weights_of(run.codec)
    LearnedCoder(exported | tables())._prior.check()


def test_bits_reach_the_prior_and_errors_the_network_alone(crops: Path) -> None:
    torch.manual_seed(0)
    codec = Codec()
    rgb, q = next(Crops(crops, SIDE, seed=0).batches(2)) * 255, torch.tensor([10.0, 80.0])
    coded = codec.coded(rgb, q)
    coded.bits.sum().backward()
    assert all(parameter.grad is None for parameter in codec.restoration.parameters())
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in codec.prior.parameters())
    codec.zero_grad()
    distortion(rgb, lapped.to_rgb(codec.restored(codec.linear(coded, q), coded, q))).total.sum().backward()
    assert all(parameter.grad is None for parameter in codec.prior.parameters())
    assert codec.restoration.out.weight.grad is not None
    assert codec.restoration.out.weight.grad.abs().max() > 0


def test_lower_qualities_have_no_last_group_in_training_either(trained: Codec, crops: Path) -> None:
    rgb = next(Crops(crops, SIDE, seed=0).batches(2)) * 255
    values = trained.coded(rgb, torch.tensor([CHROMA_FROM - 1.0, 100.0])).values[:, Group.CHROMA.channels]
    assert not values[0].any()
    assert values[1].any()


class TestChosenSymbols:
    WORTH = torch.tensor([20.0])  # bits for a squared error of one symbol
    SCALE = torch.tensor([0.0])  # log2

    def bits_of(self, magnitude: float) -> float:
        return laplace_bits(torch.tensor([magnitude]), self.SCALE).item()

    def chosen(self, residual: float) -> float:
        return chosen(torch.tensor([residual]), self.SCALE, self.WORTH).item()

    def test_a_symbol_is_chosen_where_its_error_saves_more_than_its_bits(self) -> None:
        threshold = 0.5 + (self.bits_of(1) - self.bits_of(0)) / (2 * 20)
        for residual, symbol in ((threshold - 0.01, 0), (threshold + 0.01, 1), (-threshold - 0.01, -1), (2.0, 2), (0.0, 0)):
            assert self.chosen(residual) == symbol

    def test_probabilities_add_up(self) -> None:
        magnitudes = torch.arange(200.0)
        for scale in (-2.0, 0.0, 3.0):
            masses = torch.exp2(-laplace_bits(magnitudes, torch.tensor(scale)))
            assert masses[0] + 2 * masses[1:].sum() == pytest.approx(1, abs=1e-3)


def test_weights_come_out_of_training_as_they_went_in(trained: Codec, weights: dict[str, torch.Tensor]) -> None:
    exported = weights_of(trained)
    assert {name for name in weights if not name.startswith("entropy.")} == set(exported)
    for name, value in exported.items():
        assert value.dtype == weights[name].dtype, name
        assert torch.equal(value, weights[name]), name


def test_an_exported_codec_agrees_with_the_one_that_trained(trained: Codec, weights: dict[str, torch.Tensor], photo: Any) -> None:
    """The real coder spends about what training estimated, and its pixels are as far from the picture."""
    autoencoder, coder = BundledAutoencoder(weights, "", torch.device("cpu"), torch.float32), LearnedCoder(weights)
    picture, quality = np.ascontiguousarray(photo[:256, 128:384]), 70
    data, latents = coder.encode(autoencoder.encode(picture, quality), quality, worth(picture))
    decoded = autoencoder.decode(latents, quality, 256, 256)
    rgb, q = torch.from_numpy(picture).permute(2, 0, 1)[None].float(), torch.tensor([layout.fineness(quality)])
    with torch.no_grad():
        coded = trained.coded(rgb, q)
        restored = lapped.to_rgb(trained.restored(trained.linear(coded, q), coded, q))
    assert 0.8 * coded.bits.item() < len(data) * 8 < 1.1 * coded.bits.item()
    np.testing.assert_array_equal(coded.short[0], latents.short)
    pixels = restored[0].clamp(0, 255).permute(1, 2, 0).numpy().round()
    errors = [float(np.mean(np.square(picture.astype(np.float64) - one))) for one in (decoded, pixels)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_an_export_is_what_the_coder_reads(crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, 1e-4)
    steps(run, crops, 1)
    run.save()
    file = tmp_path / "weights.safetensors"
    monkeypatch.setattr("sys.argv", ["export", str(run.out / "checkpoint.pt"), str(crops), "--to", str(file)])
    export.main()
    exported = load_file(file)
    autoencoder, coder = BundledAutoencoder(exported, "", torch.device("cpu"), torch.float32), LearnedCoder(exported)
    crop = np.load(crops)[0]
    data, latents = coder.encode(autoencoder.encode(crop, 70), 70, worth(crop))
    assert coder.decode(data, 16, 16, 70).crc32() == latents.crc32()
    np.testing.assert_array_equal(exported["prior.quality.levels"], run.average["prior.quality.levels"])


def test_counted_tables_take_fewer_bits(weights: dict[str, torch.Tensor], crops: Path) -> None:
    """Of what they were counted on."""
    networks = {name: value for name, value in weights.items() if not name.startswith("entropy.")}
    pictures = np.load(crops)
    assumed, counted = (LearnedCoder(networks | made) for made in (tables(), calibrated(networks, pictures)))
    autoencoder = BundledAutoencoder(weights, "", torch.device("cpu"), torch.float32)
    analysed, price = autoencoder.encode(pictures[3], 45), worth(pictures[3])
    assert len(counted.encode(analysed, 45, price)[0]) < len(assumed.encode(analysed, 45, price)[0])


def test_tables_are_whole_and_even() -> None:
    made = tables()
    checked = Tables(made["entropy.reach"].numpy(), made["entropy.frequencies"].numpy(), TABLES)
    for index in range(1, CLASSES):
        table = checked.frequencies[index]
        assert table[:-1].tolist() == table[:-1][::-1].tolist()
    odds = [checked.frequencies[CLASSES + index][2] / (1 << PRECISION) for index in range(FLAG_CLASSES)]
    assert odds == sorted(odds)
    assert odds[FLAG_CLASSES // 2] == pytest.approx(0.5, abs=1e-6)


def test_weights_saved_are_weights_read(trained: Codec, tmp_path: Path) -> None:
    exported = weights_of(trained)
    save_file(exported, tmp_path / "weights.safetensors")
    for name, value in load_file(tmp_path / "weights.safetensors").items():
        assert torch.equal(value, exported[name]), name


def test_the_distance_of_ssimulacra2_agrees_with_its_own(photo: Any, tmp_path: Path) -> None:
    """But for its borders."""
    from PIL import Image, ImageFilter
    from ssimulacra2 import compute_ssimulacra2

    original = Image.fromarray(photo[:256, :256])
    blurred = original.filter(ImageFilter.GaussianBlur(0.8))
    for name, picture in (("original", original), ("blurred", blurred)):
        picture.save(tmp_path / f"{name}.png")
    wanted = compute_ssimulacra2(str(tmp_path / "original.png"), str(tmp_path / "blurred.png"))
    a, b = (torch.from_numpy(np.array(one)).permute(2, 0, 1)[None].float() / 255 for one in (original, blurred))
    assert ssimulacra2.distance(a, a).item() == pytest.approx(0, abs=0.01)
    assert ssimulacra2.score(ssimulacra2.distance(a, b)).item() == pytest.approx(wanted, abs=3)


def test_steps_of_the_last_level_are_those_of_the_scale() -> None:
    assert layout.interpolate(torch.arange(9.0)[:, None], torch.tensor([0.0, 50.0, 99.0, 100.0])).flatten().tolist() == pytest.approx(
        [0, 4, 7.92, 8]
    )
