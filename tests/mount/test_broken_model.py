"""A mount of an SDFS whose weights are damaged, until they are repaired."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sdfs.owner.store.store import init
from tests.support import ROOT
from tests.support.mounting import REAL, Mounted, needs_fuse
from tests.support.waiting import eventually

pytestmark = needs_fuse

GOLDEN = ROOT / "tests" / "vectors" / "golden"
INSTALLED = ROOT / "sdfs"


def installed_with_damaged_weights(folder: Path) -> Path:
    """This SDFS in `folder`; the weights of its bundled model, whose path is returned, are no weights."""
    package = folder / "sdfs"
    (package / "codec" / "weights").mkdir(parents=True)
    for part in [*INSTALLED.iterdir(), *(INSTALLED / "codec").iterdir(), *(INSTALLED / "codec" / "weights").iterdir()]:
        if part.name not in ("codec", "weights", "bundled.safetensors"):
            (package / part.relative_to(INSTALLED)).symlink_to(part)
    weights = package / "codec" / "weights" / "bundled.safetensors"
    weights.write_bytes(b"no weights")
    return weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_with_damaged_weights(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Mounted]:
    """With a latent blob and exact ones."""
    folder = tmp_path_factory.mktemp("broken")
    init(folder / "store")
    for name in ("latent-jpeg-q80", "exact-jxl", "exact-lz4"):
        shutil.copy(GOLDEN / f"{name}.sdfs", folder / "store" / name)
    python, option, program = REAL
    with Mounted(folder, command=(python, option, f"import sys; sys.path.insert(0, {str(weights.parents[3])!r}); {program}")) as mounted:
        yield mounted


@pytest.mark.parametrize("name", ["exact-jxl", "exact-lz4"])
def test_exact_files_are_read(broken: Mounted, name: str) -> None:
    want = json.loads((GOLDEN.parent / "golden.json").read_text())[name]["sha256"]
    assert hashlib.sha256((broken.path / name).read_bytes()).hexdigest() == want


def test_latents_are_errors_that_are_logged_once_until_the_weights_are_back(broken: Mounted, weights: Path) -> None:
    latent = broken.path / "latent-jpeg-q80"
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            latent.read_bytes()
    lines = [line for line in broken.log.read_text().splitlines() if "the bundled model cannot be loaded: SafetensorError" in line]
    assert [line.startswith("sdfs engine: ") for line in lines] == [True, False]  # of the model, and of the file

    shutil.copy(INSTALLED / "codec" / "weights" / "bundled.safetensors", weights)

    def is_read() -> bool:
        with suppress(OSError):
            return len(latent.read_bytes()) == latent.stat().st_size
        return False

    eventually(is_read, "read")
