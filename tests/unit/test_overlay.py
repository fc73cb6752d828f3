"""A store on overlayfs, as in a container: there, files may have another device number than their folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.blob.container import MAGIC
from sdfs.owner.owner import Owner
from sdfs.owner.store.store import init
from tests.support.lossless_engine import PICTURE, LosslessEngine


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The lower folder is on another filesystem than the upper one, else overlayfs numbers files as folders."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount an overlay")
    lower, writable, merged = tmp_path / "lower", tmp_path / "writable", tmp_path / "merged"
    for folder in (lower, writable, merged):
        folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", writable], check=True)
    for name in ("upper", "work"):
        (writable / name).mkdir()
    options = f"lowerdir={lower},upperdir={writable}/upper,workdir={writable}/work,xino=off"
    mounted = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=False).returncode == 0
    try:
        if not mounted:
            pytest.skip("there is no overlayfs here")
        yield merged
    finally:
        for folder in (merged, writable) if mounted else (writable,):
            subprocess.run(["umount", folder], check=True)


def test_pictures_are_shrunk_and_found(root: Path) -> None:
    init(root / "store")
    owner = Owner(root / "store", engine=LosslessEngine)
    try:
        handle = owner.tree.create("/a.jpg", 0o644, os.O_RDWR)
        handle.write(PICTURE, 0)
        handle.flush()
        owner.tree.release(handle)
        owner.services.sync(lambda done, total: None)
        assert (root / "store/a.jpg").read_bytes().startswith(MAGIC)
        found = owner.services.find(hashlib.sha256(PICTURE).hexdigest(), len(PICTURE))
        assert found is not None
        assert (found.path, found.state) == ("/a.jpg", "exact")
    finally:
        owner.close()


def test_pictures_that_were_there_before_are_found(root: Path) -> None:
    init(root / "store")
    (root / "store/a.jpg").write_bytes(PICTURE)
    owner = Owner(root / "store", engine=LosslessEngine)
    try:
        owner.services.sync(lambda done, total: None)
        assert (root / "store/a.jpg").read_bytes().startswith(MAGIC)
    finally:
        owner.close()
