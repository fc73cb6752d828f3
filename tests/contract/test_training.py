"""Training end to end, for a few steps: crops, resuming, export, and a codec that works with what was exported."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdfs.autoencoders.runner import BundledAutoencoder
from sdfs.latent_coding import LearnedCoder
from sdfs.priors.learned import LowContext
from sdfs.trade_off import worth
from training.data import Crops
from training.export import tables
from training.objective import RAMP, Codec, Symbols, _chosen, gaussian_bits, rate_distortion
from training.train import Run, evaluate, train
from training.weights import weights_of


def steps(run: Run, crops: Path, count: int, valid: Path | None = None) -> None:
    train(crops, run, hours=1, cooldown=0, batch=2, size=64, valid=valid, max_steps=count)


def test_a_run_is_taken_up_where_it_stopped(crops: Path, tmp_path: Path) -> None:
    first = Run(tmp_path, 1e-4, "cpu")
    steps(first, crops, 3)
    second = Run(tmp_path, 1e-4, "cpu")
    assert second.step == 3
    for name, value in first.codec.state_dict().items():
        torch.testing.assert_close(second.codec.state_dict()[name], value)
    steps(second, crops, 2)
    assert second.step == 5


@pytest.mark.parametrize("symbols", Symbols)
def test_training_lowers_the_loss(crops: Path, symbols: Symbols) -> None:
    torch.manual_seed(0)
    codec = Codec()
    optimiser = torch.optim.Adam(codec.parameters(), lr=1e-4)
    pixels = next(Crops(crops, 128, seed=0).batches(4))
    losses = []
    for _ in range(8):
        loss = rate_distortion(codec, pixels, torch.full((4,), 50.0), symbols).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("symbols", Symbols)
def test_bits_move_encoder_and_prior(crops: Path, symbols: Symbols) -> None:
    torch.manual_seed(0)
    codec = Codec()
    pixels, q = next(Crops(crops, 64, seed=0).batches(2)), torch.tensor([10.0, 60.0])
    codec.compressed(pixels, q, symbols)[1].sum().backward()
    for part in (codec.encoder, codec.hyper_encoder, codec.prior):
        assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in part.parameters())


class TestChosenSymbols:
    PRICE = 20.0  # bits for a squared error of one symbol
    SCALE = torch.tensor([0.0])  # log2

    def bits_of(self, magnitude: float) -> float:
        return gaussian_bits(torch.tensor([magnitude]), self.SCALE).item()

    def chosen(self, residual: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The residual, its symbol and bits."""
        moved = torch.tensor([residual], requires_grad=True)
        return moved, *_chosen(moved, self.SCALE, torch.tensor([self.PRICE]))

    def test_a_symbol_is_chosen_where_its_error_saves_more_than_its_bits(self) -> None:
        threshold = 0.5 + (self.bits_of(1) - self.bits_of(0)) / (2 * self.PRICE)
        for residual, symbol in ((threshold - 0.01, 0), (threshold + 0.01, 1), (-threshold - 0.01, -1), (2.0, 2)):
            assert self.chosen(residual)[1].item() == symbol
            assert self.chosen(residual)[2].item() == self.bits_of(abs(symbol))

    @pytest.mark.parametrize(
        ("residual", "upper", "slope"),
        [(0.0, 1, 0), (0.2, 1, 0), (0.6, 1, 1 / RAMP), (-0.6, 1, 1 / RAMP), (1.3, 1, 0), (2.7, 3, 1), (-2.7, 3, 1)],
    )
    def test_error_and_bits_share_one_slope(self, residual: float, upper: int, slope: float) -> None:
        moved, symbol, bits = self.chosen(residual)
        assert torch.autograd.grad(symbol.sum(), moved)[0].item() == slope
        more = (self.bits_of(upper) - self.bits_of(upper - 1)) * slope
        assert torch.autograd.grad(bits.sum(), moved)[0].item() == pytest.approx(more if residual > 0 else -more)


def test_an_exported_codec_agrees_with_the_one_that_trained(photos: Path, tmp_path: Path) -> None:
    """The integer prior and the real coder spend no more bits than training estimated (which charges outliers more)."""
    torch.manual_seed(0)
    codec = Codec().eval()
    with torch.no_grad():  # an untrained prior expects too little, and symbols of class 0 are dropped
        contexts = [part.out for part in codec.prior.modules() if isinstance(part, LowContext)]
        for layer in (codec.prior.low_corners, *contexts, codec.prior.high):
            layer.bias += 3
    save_file(weights_of(codec) | tables(), tmp_path / "weights.safetensors")
    weights = load_file(tmp_path / "weights.safetensors")
    autoencoder = BundledAutoencoder(weights, "", torch.device("cpu"), torch.float32)
    coder = LearnedCoder(weights)
    picture = np.asarray(Image.open(photos / "coffee.jpg"))[:256, :256]
    latents = autoencoder.encode(picture, 40)
    data, quantised = coder.encode(latents, 40, worth(picture, 40))
    decoded = autoencoder.decode(coder.dequantise(quantised, 40), 40, 256, 256)
    with torch.no_grad():
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
        reconstruction, bits = codec(pixels, torch.tensor([40.0]), Symbols.CHOSEN)
    assert 0.5 * bits.item() < len(data) * 8 < 1.02 * bits.item()
    trained = (reconstruction[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255).round()
    errors = [float(np.mean(np.square(picture.astype(np.float64) - one))) for one in (decoded, trained)]
    assert errors[0] == pytest.approx(errors[1], rel=0.03)  # gains are rounded to 1/16 octave, so not every symbol is the same


def test_a_run_may_begin_with_the_weights_of_the_package(crops: Path, tmp_path: Path) -> None:
    """Which come out of it again as they went in, but for the quality tables, that were rounded between their levels."""
    weights = load_file(str(resources.files("sdfs").joinpath("weights/bundled.safetensors")))
    run = Run(tmp_path, 1e-4, "cpu", Symbols.CHOSEN, weights)
    tables = {"prior.gains", "prior.hyper_scales", "prior.quality_bias", "prior.multipliers"}  # the last are made of the gains
    for name, value in weights_of(run.codec).items():
        if name not in tables:
            assert torch.equal(value, weights[name]), name
        elif name != "prior.multipliers":
            assert (value - weights[name]).abs().max() <= 1, name
    gain = run.codec.prior.gain.clone()
    steps(run, crops, 1)
    assert torch.equal(run.codec.prior.gain, gain)  # symbols by cost say nothing about how fine they should be


def test_evaluation_reports_rate_and_psnr_by_quality(photos: Path) -> None:
    rows = evaluate(Codec().eval(), photos, count=1)
    assert [row["q"] for row in rows] == [0, 20, 40, 60, 80, 100]
    psnrs = [row["psnr"] for row in rows]
    assert psnrs == sorted(psnrs)
