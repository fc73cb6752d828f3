"""What `sdfs model calibrate` measures, and what comes of it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sdfs.codec import calibration
from sdfs.codec.resident.model import Encoded
from sdfs.codec.resident.pretrained import PretrainedModel
from sdfs.models import registry
from sdfs.models.folder import Model
from sdfs.settings import Effort
from tests.support.small_models import kl, saved

CPU = torch.device("cpu")
FINE = 2  # the channel whose errors are four times those of the others


def uneven() -> Any:
    """Decodes a channel as if it were four times as large."""
    made = kl(scaling_factor=3.0)  # at which the noise that is added neither drowns the latents nor vanishes among 256 levels
    with torch.no_grad():
        made.post_quant_conv.weight.copy_(torch.eye(4)[:, :, None, None])
        made.post_quant_conv.weight[:, FINE] *= 4
        made.decoder.conv_in.weight.copy_(made.decoder.conv_in.weight[:, :1].expand(-1, 4, -1, -1))
    return made


@pytest.fixture(autouse=True)
def _data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(uneven, tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder: Path) -> Model:
    return registry.resolve(str(folder))


@pytest.fixture
def part(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return photo[60:124, 100:196]


@pytest.fixture
def photos(tmp_path: Path, photo: NDArray[np.uint8], part: NDArray[np.uint8]) -> Path:
    """Two, and one that is damaged."""
    made = tmp_path / "photos"
    made.mkdir()
    Image.fromarray(part).save(made / "colour.jpg")
    Image.fromarray(photo[200:270, 100:164, 1]).save(made / "grey.png")
    (made / "damaged.jpg").write_bytes((made / "colour.jpg").read_bytes()[:-200])
    (made / "notes.txt").write_text("no photo")
    return made


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: Path) -> list[dict[str, Any]]:
    """What the process that the command starts tells it."""
    monkeypatch.setattr(sys, "argv", ["sdfs.codec.calibration", *map(str, arguments)])
    calibration.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_channel_that_matters_more_gets_finer_steps(model: Model, photos: Path) -> None:
    *_, result = calibration.measure(model, calibration.photos_of(photos))
    steps = result["steps"]
    assert math.prod(steps) == pytest.approx(1)
    ratios = [step / steps[FINE] for channel, step in enumerate(steps) if channel != FINE]
    assert 2 < min(ratios) <= max(ratios) < 5


def test_no_channel_is_taken_for_worthless() -> None:
    steps = calibration.relative_steps(np.array([1e-30, 1.0, 1.0, 1e30]))
    assert math.prod(steps) == pytest.approx(1)
    assert max(steps) / min(steps) <= calibration._LARGEST_RATIO**2 * 1.0001


def test_each_photo_is_told_and_a_damaged_one_passed_over(
    folder: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    *told, result = said(capsys, monkeypatch, folder, photos)
    assert told == [{"photos": 1}, {"photos": 2}]
    assert result["photos"] == 2


def test_an_empty_folder_is_an_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = said(capsys, monkeypatch, folder, tmp_path / "none")
    assert line["error"].startswith("there is no photo in the folder")


def encoded(model: Model, picture: NDArray[np.uint8]) -> Encoded:
    return PretrainedModel(model, CPU, torch.float32).encode(picture, 40, Effort.NORMAL)


def test_the_next_encode_uses_the_steps(model: Model, part: NDArray[np.uint8]) -> None:
    sizes = [len(encoded(model, part).section)]
    for steps in ([0.5] * 4, [0.5, 0.5, 0.5, 0.25]):
        registry.save_calibration(model, {"steps": steps})
        sizes.append(len(encoded(model, part).section))
    assert sizes == sorted(set(sizes))


def test_no_blob_needs_them(model: Model, part: NDArray[np.uint8]) -> None:
    before = encoded(model, part)
    registry.save_calibration(model, {"steps": [2.0, 1.0, 0.25, 2.0]})
    header = {"latents_crc32": before.latents_crc32, **before.header}
    decoded = PretrainedModel(model, CPU, torch.float32).decode(before.section, header, *part.shape[:2])
    assert np.array_equal(decoded, before.pixels)
