"""`sdfs recompress`, with the bundled model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import done, fails


@pytest.fixture
def copy(shrunk: Path, tmp_path: Path) -> Path:
    """A shrunk picture of a store that may be changed; its original is in the trash."""
    store = tmp_path / "copy"
    shutil.copytree(shrunk, store)
    return store / "2024" / "photo.jpg"


def status(path: Path) -> dict[str, object]:
    [found] = json.loads(done("stat", "--json", str(path)))
    return dict(found)


def test_from_the_original_while_that_is_in_the_trash(copy: Path) -> None:
    before = status(copy)
    done("recompress", copy, "--quality", "70")
    after = status(copy)
    assert (before["asked"], after["asked"]) == (60, 70)
    assert after["original_sha256"] == before["original_sha256"]
    assert after["logical_bytes"] == before["logical_bytes"]
    assert after["scores"]["psnr"] > before["scores"]["psnr"]  # type: ignore[index]


def test_not_from_what_readers_get_unless_that_is_asked_for(copy: Path) -> None:
    done("trash", "empty", copy.parents[1])
    assert "--accept-loss" in fails(12, "recompress", copy, "--quality", "70")
    assert status(copy)["asked"] == 60
    done("recompress", copy, "--quality", "70", "--accept-loss")
    assert status(copy)["asked"] == 70


def test_with_another_effort_and_gate(copy: Path) -> None:
    done("recompress", copy, "--effort", "fast", "--min-psnr", "90")
    assert str(status(copy)["reason"]).endswith("want 90 dB, MS-SSIM 0.94")


def test_all_in_a_folder(copy: Path) -> None:
    done("recompress", copy.parent, "--quality", "50")
    assert status(copy)["asked"] == 50


def test_a_model_that_is_not_here_is_named_with_the_command_that_gets_it(copy: Path) -> None:
    assert "sdfs model pull taesd" in fails(11, "recompress", copy, "--model", "taesd")


def test_a_store_cannot_be_made_for_a_model_that_is_not_here(tmp_path: Path) -> None:
    assert "sdfs model pull taesd" in fails(11, "init", tmp_path / "store", "--model", "taesd")
    assert not (tmp_path / "store").exists()
