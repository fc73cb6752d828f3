"""`--heic jpeg`, with real files and the real codec: of `sdfs add`, and of `sdfs watch`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sdfs.cli import exit_codes
from tests.support.commands import COMMAND, ENVIRONMENT, done, sdfs
from tests.support.heif_samples import CASES, heic, needs_cases
from tests.support.waiting import eventually

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
DESCRIBES = ("IFD", "ExifIFD", "GPS", "ICC", "XMP")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    done("init", tmp_path / "pictures.sdfs")
    return tmp_path / "pictures.sdfs"


def tags(path: Path) -> dict[str, Any]:
    told = subprocess.run(["exiftool", "-json", "-G1", "-a", path], check=True, capture_output=True)
    return {name: value for name, value in json.loads(told.stdout)[0].items() if name.startswith(DESCRIBES)}


def status(path: Path) -> dict[str, Any]:
    [found] = json.loads(done("stat", "--json", path))
    return dict(found)


@needs_cases
def test_add_makes_a_jpeg_that_shrinks(store: Path, tmp_path: Path) -> None:
    done("add", store, CASES / "8-bit.heic", "--to", "2024", "--heic", "jpeg")
    assert os.listdir(store / "2024") == ["8-bit.jpg"]
    found = status(store / "2024/8-bit.jpg")
    assert (found["state"], found["format"], found["original_bytes"]) == ("latent", "jpeg", (CASES / "8-bit.heic").stat().st_size)
    done("get", store / "2024/8-bit.jpg", "--output", tmp_path)
    got = tmp_path / "8-bit.jpg"
    assert got.read_bytes().startswith(b"\xff\xd8\xff")
    assert (got.stat().st_size, got.stat().st_mtime_ns) == (found["logical_bytes"], (CASES / "8-bit.heic").stat().st_mtime_ns)


@needs_cases
@needs_exiftool
@pytest.mark.parametrize("name", ["8-bit.heic", "turned.heic", "thumbnail.heic", "8-bit.avif"])
def test_its_metadata_are_those_of_the_heic(store: Path, tmp_path: Path, name: str) -> None:
    done("add", store, CASES / name, "--heic", "jpeg")
    got = Path(name).with_suffix(".jpg").name
    done("get", store / got, "--output", tmp_path)
    before, after = tags(CASES / name), tags(tmp_path / got)
    if "IFD0:Orientation" in before:
        before["IFD0:Orientation"] = "Horizontal (normal)"
    assert after == before


@needs_cases
@needs_exiftool
def test_its_gain_map_lies_behind_it(store: Path, tmp_path: Path) -> None:
    done("add", store, CASES / "gain-map.heic", "--heic", "jpeg")
    done("get", store / "gain-map.jpg", "--output", tmp_path)
    second = subprocess.run(["exiftool", "-b", "-MPImage2", tmp_path / "gain-map.jpg"], check=True, capture_output=True).stdout
    (tmp_path / "second.jpg").write_bytes(second)
    assert tags(tmp_path / "second.jpg")["XMP-apdi:AuxiliaryImageType"] == "urn:com:apple:photo:2020:aux:hdrgainmap"


@needs_cases
def test_what_cannot_be_a_jpeg_stays_exact(store: Path) -> None:
    done("add", store, CASES / "10-bit.heic", CASES / "motion.heic", "--heic", "jpeg")
    assert sorted(path.name for path in store.iterdir()) == [".sdfs", "10-bit.heic", "motion.heic"]
    assert [status(store / name)["reason"] for name in ("10-bit.heic", "motion.heic")] == ["10 bits a sample", "a motion photo"]


def test_a_heic_stays_one_unless_asked(store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(data := heic())
    done("add", store, tmp_path / "a.heic")
    found = status(store / "a.heic")
    assert (found["state"], found["format"], found["reason"]) == ("exact", "heic", "a HEIC picture: `--heic jpeg` stores it as a JPEG")
    done("get", store / "a.heic", "--output", tmp_path / "out")
    assert (tmp_path / "out/a.heic").read_bytes() == data


def test_a_name_that_is_taken_is_left_alone(store: Path, tmp_path: Path) -> None:
    (store / "a.jpg").write_text("mine")
    (tmp_path / "a.heic").write_bytes(heic())
    completed = sdfs("add", store, tmp_path / "a.heic", "--heic", "jpeg")
    assert (completed.returncode, (store / "a.jpg").read_text()) == (exit_codes.INCOMPLETE, "mine")


def test_another_word_is_a_mistake(store: Path, tmp_path: Path) -> None:
    assert sdfs("add", store, tmp_path, "--heic", "png").returncode == exit_codes.USAGE


@needs_cases
@pytest.mark.timeout(300)
def test_watch_stores_the_jpeg_and_the_trash_has_the_heic(store: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (incoming := tmp_path / "incoming").mkdir()
    data = (CASES / "8-bit.heic").read_bytes()
    for name in ("IMG_1.HEIC", "IMG_1 (copy).HEIC"):
        (incoming / name).write_bytes(data)
    homes = {name: str(tmp_path / name) for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "STATE_DIRECTORY")}
    homes["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("run", numbered=True))  # a socket's path may have 107 bytes
    command = [*COMMAND, "watch", incoming, store, "--heic", "jpeg", "--settle", "0.5"]
    with subprocess.Popen(command, env=ENVIRONMENT | homes) as process:
        eventually(lambda: not list(incoming.iterdir()), seconds=240)
        process.terminate()
    trashed = sorted((tmp_path / "XDG_DATA_HOME/Trash/files").iterdir())
    assert [path.read_bytes() for path in trashed] == [data, data]
    [stored] = [path for path in store.iterdir() if path.name != ".sdfs"]
    assert stored.suffix == ".jpg"
    assert status(stored)["state"] == "latent"
