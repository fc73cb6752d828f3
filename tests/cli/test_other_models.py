"""Stores with models of the hub's, and `sdfs model calibrate`: all processes real, the models small and with random weights."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdfs.cli import exit_codes
from sdfs.owner.access import open_access
from tests.support.commands import ENVIRONMENT, done, fails, sdfs
from tests.support.hub_server import HubServer

MSE, TAESD, TAESDXL = "stabilityai/sd-vae-ft-mse", "madebyollin/taesd", "madebyollin/taesdxl"
NO_GATE = ("--min-psnr", "0", "--min-ms-ssim", "0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a machine that sd-vae-ft-mse, taesd and taesdxl were pulled to."""
    from tests.support.small_models import kl, saved, tiny

    home = tmp_path_factory.mktemp("home")
    variables = {"HF_HOME": str(home / "hf"), "XDG_DATA_HOME": str(home / "data"), "OMP_NUM_THREADS": "1"}
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HF_")]:
            patch.delenv(name)
            patch.delitem(ENVIRONMENT, name)
        for name, value in {**variables, "HF_ENDPOINT": hub.url}.items():
            patch.setenv(name, value)
            patch.setitem(ENVIRONMENT, name, value)
        for repository, make in {MSE: kl, TAESD: tiny, TAESDXL: tiny}.items():
            folder = saved(make, home / repository)
            hub.put(repository, {path.name: path.read_bytes() for path in folder.iterdir()})
            done("model", "pull", repository)
        yield home


@pytest.fixture(scope="module")
def photos(home: Path, picture: Path) -> Path:
    """Two photos, of 240 × 180."""
    folder = home / "photos"
    folder.mkdir()
    part = Image.open(picture).crop((200, 100, 440, 280))
    part.save(folder / "photo.jpg", quality=95)
    part.save(folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def store(home: Path, photos: Path) -> Iterator[Path]:
    """Has the photos as latents of sd-vae-ft-mse. Owned by this process, so that all commands share an engine."""
    store = home / "store"
    done("init", store, "--model", "sd-vae-ft-mse", "--quality", "0", *NO_GATE)
    with open_access(store) as access:
        for photo in photos.iterdir():
            access.add(photo, photo.name)
        access.sync(lambda done, total: None)
        assert access.status().latent == 2
        yield store


@pytest.fixture(scope="module")
def taken(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What sd-vae-ft-mse makes of its latents, in `own`, and taesd, in `other`."""
    folder = tmp_path_factory.mktemp("taken")
    done("get", store / "photo.jpg", store / "photo.png", "--output", folder / "own")
    done("get", store / "photo.jpg", store / "photo.png", "--output", folder / "other", "--model", "taesd")
    return folder


@pytest.fixture(scope="module")
def calibrated(home: Path, photos: Path) -> list[float]:
    """The steps of taesd, as the command prints them."""
    return [float(step) for step in done("model", "calibrate", "taesd", photos).split()]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


class TestGate:
    def test_whoever_makes_a_store_for_another_model_is_told_of_it(self, home: Path, tmp_path: Path) -> None:
        completed = sdfs("init", tmp_path / "store", "--model", "taesd")
        [line] = completed.stderr.splitlines()
        assert "less than PSNR 22 dB or MS-SSIM 0.94 are kept exactly" in line
        assert f"min_psnr and min_ms_ssim in {tmp_path}/store/.sdfs/config.toml lower that" in line

    def test_whoever_gives_one_knows(self, home: Path, tmp_path: Path) -> None:
        assert sdfs("init", tmp_path / "store", "--model", "taesd", "--min-psnr", "20").stderr == ""


class TestGet:
    @pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
    def test_another_model_decodes_the_latents_to_other_pixels(self, taken: Path, name: str) -> None:
        own, other = (pixels((taken / folder / name).read_bytes()) for folder in ("own", "other"))
        assert own.shape == other.shape == (180, 240, 3)
        assert not np.array_equal(own, other)

    def test_its_file_has_the_size_that_readers_see(self, taken: Path) -> None:
        assert (taken / "other" / "photo.jpg").stat().st_size == (taken / "own" / "photo.jpg").stat().st_size

    def test_a_model_of_other_latents_is_refused(self, store: Path, tmp_path: Path) -> None:
        line = fails(exit_codes.INCOMPLETE, "get", store / "photo.jpg", "--output", tmp_path, "--model", "taesdxl")
        assert line.startswith(f"sdfs: /photo.jpg: {TAESDXL}@")
        assert f" does not decode latents of {MSE}@" in line
        assert line.endswith(": they are not known to share a latent space")
        assert list(tmp_path.iterdir()) == []

    def test_a_model_that_is_not_here_is_named_with_the_command_that_gets_it(self, store: Path, tmp_path: Path) -> None:
        line = fails(exit_codes.REFUSED, "get", store / "photo.jpg", "--output", tmp_path, "--model", "sd-vae")
        assert line == 'sdfs: sd-vae is not on this machine: get it with "sdfs model pull sd-vae"'


class TestFsck:
    def test_blobs_whose_model_is_missing_are_no_damage(self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The store was copied to a machine that has no models."""
        copy = tmp_path / "copy"
        shutil.copytree(store, copy)
        for name in ("HF_HOME", "XDG_DATA_HOME"):
            monkeypatch.setitem(ENVIRONMENT, name, str(tmp_path / "empty"))
        completed = sdfs("fsck", copy, "--decode")
        assert completed.returncode == exit_codes.INCOMPLETE
        for name, line in zip(("/photo.jpg", "/photo.png"), completed.stdout.splitlines(), strict=True):
            assert line.startswith(f"{name}: no-model: is whole, but was not decoded: {MSE}@")
            assert f'get it with "sdfs model pull {MSE}@' in line


class TestCalibrate:
    def test_it_prints_a_step_for_each_channel(self, calibrated: list[float]) -> None:
        assert len(calibrated) == 4
        assert math.prod(calibrated) == pytest.approx(1, rel=0.01)

    def test_it_is_remembered(self, calibrated: list[float]) -> None:
        [details] = json.loads(done("model", "info", "taesd", "--json"))
        assert details["calibrated"]

    def test_a_folder_without_a_photo_is_refused(self, home: Path, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no photo")
        line = fails(exit_codes.REFUSED, "model", "calibrate", "taesdxl", tmp_path)
        assert line.startswith("sdfs: taesdxl could not be calibrated: there is no photo in the folder")
