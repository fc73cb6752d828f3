"""A damaged blob can be got rid of as any file can: by whatever replaces all of it."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.mounting import Mounted, needs_fuse

pytestmark = needs_fuse

PICTURE = b"\xff\xd8\xff" + b"picture " * 5000 + b"END"


@pytest.fixture(params=[20, 40], ids=["preamble", "header"])
def damaged(request: pytest.FixtureRequest, mounted: Mounted, folder: Path, backing: Path) -> Path:
    """A blob with a flipped bit, by its name in the mount."""
    (folder / "photo.jpg").write_bytes(PICTURE)
    mounted.sync()
    content = bytearray((backing / "photo.jpg").read_bytes())
    content[request.param] ^= 1
    (backing / "photo.jpg").write_bytes(content)
    return folder / "photo.jpg"


def test_reading_it_is_an_error(damaged: Path) -> None:
    with pytest.raises(OSError, match="Input/output"):
        damaged.read_bytes()


@pytest.mark.parametrize(
    ("command", "content"),
    [
        ("cp {good} {damaged}", b"good"),
        ("> {damaged}", b""),
        ("truncate --size 0 {damaged}", b""),
        ("mv {good} {damaged}", b"good"),
        ("rm {damaged}; cp {good} {damaged}", b"good"),
        ("rsync {good} {damaged}", b"good"),
    ],
)
def test_it_is_replaced_by(damaged: Path, tmp_path: Path, command: str, content: bytes) -> None:
    (tmp_path / "good").write_bytes(b"good")
    subprocess.run(command.format(good=tmp_path / "good", damaged=damaged), shell=True, check=True)
    assert damaged.read_bytes() == content


@pytest.mark.parametrize("command", ["chmod 600 {}", "touch {}", "chown 1:1 {}"])
def test_its_attributes_can_be_changed_by(damaged: Path, command: str) -> None:
    if command.startswith("chown") and os.geteuid() != 0:
        pytest.skip("needs root to give files away")
    subprocess.run(shlex.split(command.format(damaged)), check=True)
