"""The README's first command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

DEMO = ROOT / "scripts/demo.py"

pytestmark = [
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no /dev/fuse"),
    pytest.mark.skipif(not Path(sys.executable).with_name("sdfs").exists(), reason="sdfs is not installed"),
]


def demo(*arguments: Path) -> str:
    return subprocess.run([sys.executable, DEMO, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def test_the_demo_shows_pictures_of_the_users_own(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "photo.jpg").write_bytes(picture.read_bytes())
    (tmp_path / "own" / "notes.txt").touch()
    (tmp_path / "work").mkdir()
    table = demo(tmp_path / "work", tmp_path / "own")
    assert "own/photo.jpg" in table
    assert "2 files" in table


@pytest.mark.long
def test_the_demo_makes_the_packaged_photos_latents(tmp_path: Path) -> None:
    assert demo(tmp_path).count(" latent ") >= 9
