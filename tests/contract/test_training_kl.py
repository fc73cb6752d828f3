"""Training a small AutoencoderKL, for a few steps: resuming, stopping, and the folder that diffusers loads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from training.data import Crops
from training.train_kl import PROBES, SIDE, Run, correlation_between_channels, latents_of, psnr, statistics, train


@pytest.fixture(scope="module")
def trained(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """After three steps."""
    run = Run(tmp_path_factory.mktemp("run"), 1e-4, "cpu")
    steps(run, crops, 3)
    return run


def steps(run: Run, crops: Path, count: int) -> None:
    train(crops, run, hours=1, batch=2, valid=None, max_steps=count)


def test_a_run_is_taken_up_where_it_stopped(trained: Run) -> None:
    second = Run(trained.out, 1e-4, "cpu")
    assert (second.step, second.seconds) == (3, trained.seconds)
    for ours, theirs in ((second.model, trained.model), (second.average, trained.average)):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert second.optimiser.state_dict()["state"][0]["step"] == 3


def test_a_run_that_has_its_hours_takes_no_further_step(crops: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, 1e-4, "cpu")
    run.seconds = 3600
    steps(run, crops, 3)
    assert run.step == 0


def test_sigterm_saves(crops: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.train_kl", str(crops), "--out", str(tmp_path), "--batch", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("training from"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert (tmp_path / "checkpoint.pt").exists()
    assert (tmp_path / "model/config.json").exists()


def test_the_model_has_the_geometry_of_stable_diffusion(trained: Run) -> None:
    model = AutoencoderKL.from_pretrained(trained.out / "model", use_safetensors=True)
    assert model.encode(torch.zeros(1, 3, 64, 96)).latent_dist.mode().shape == (1, 4, 8, 12)
    names = set(model.state_dict())
    assert {"quant_conv.weight", "post_quant_conv.weight", "decoder.mid_block.attentions.0.to_q.weight"} <= names


def test_the_scaling_factor_brings_training_latents_to_unit_deviation(trained: Run, crops: Path) -> None:
    model = AutoencoderKL.from_pretrained(trained.out / "model")
    latents = latents_of(model, next(Crops(crops, SIDE, seed=1).batches(PROBES)))
    assert (latents * model.config["scaling_factor"]).std() == pytest.approx(1, rel=0.01)


def test_training_lowers_the_loss_and_raises_the_psnr(crops: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = Run(tmp_path, 1e-3, "cpu")
    pixels = next(Crops(crops, 32, seed=0).batches(2))
    before = psnr(run.average, pixels)
    losses = [run.advance(pixels, 0.0) for _ in range(20)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert psnr(run.average, pixels) > before


def test_the_rate_ends_at_zero(crops: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, 1e-3, "cpu")
    run.advance(next(Crops(crops, 64, seed=0).batches(1)), 1.0)
    assert run.optimiser.param_groups[0]["lr"] == 0


def test_channels_that_say_the_same_are_correlated_and_others_are_not() -> None:
    torch.manual_seed(0)
    noise = torch.randn(4, 3, 32, 32)
    assert correlation_between_channels(noise) < 0.01
    noise[:, 2] = 5 - 2 * noise[:, 0]
    assert correlation_between_channels(noise) == pytest.approx(1 / 3, abs=0.01)  # one pair of three


def test_statistics_know_a_mean_a_deviation_and_neighbours() -> None:
    torch.manual_seed(0)
    noise = torch.randn(8, 2, 32, 32)
    ramp = torch.linspace(-1, 1, 32).expand(8, 1, 32, 32)
    found = statistics(torch.cat([noise * 3 + 5, ramp], 1))
    assert found.mean == pytest.approx([5, 5, 0], abs=0.2)
    assert found.std[:2] == pytest.approx([3, 3], rel=0.05)
    assert found.neighbours == pytest.approx([0, 0, 1], abs=0.05)
    assert found.channels[0] == pytest.approx([1, 0, 0], abs=0.05)
