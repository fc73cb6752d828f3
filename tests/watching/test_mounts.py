"""The daemon beside mounts of its store: real processes, real FUSE."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.mounting import Mounted, needs_fuse
from tests.support.waiting import eventually
from tests.support.watching_daemon import Daemon, left, originals, picture

pytestmark = needs_fuse


@pytest.fixture(autouse=True)
def _one_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def land(daemon: Daemon, name: str) -> None:
    (daemon.folder / name).write_bytes(picture(name))
    eventually(lambda: not left(daemon), f"{name} is taken")


def wait_for_some(daemon: Daemon) -> None:
    before = len(left(daemon))
    eventually(lambda: not left(daemon) or len(left(daemon)) < before - 5, "some are taken")


def test_a_mount_takes_the_store_over_and_gives_it_back(daemon: Daemon) -> None:
    daemon.start()
    land(daemon, "a.jpg")  # the daemon owns the store, and would for half a minute
    with Mounted(daemon.root) as mounted:
        land(daemon, "b.jpg")
        assert (mounted.path / "a.jpg").read_bytes() == picture("a.jpg")
        assert (mounted.path / "b.jpg").read_bytes() == picture("b.jpg")
    land(daemon, "c.jpg")
    assert daemon.end() == 0
    assert sorted(path.name for path in daemon.stored()) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_store_named_by_its_mount_is_found_after_that_is_gone(daemon: Daemon) -> None:
    with Mounted(daemon.root) as mounted:
        daemon.config.write_text(daemon.config.read_text().replace(str(daemon.store), str(mounted.path)))
        daemon.start()
        land(daemon, "a.jpg")
    land(daemon, "b.jpg")


def test_mounts_come_and_go_while_pictures_land(daemon: Daemon) -> None:
    for number in range(150):
        (daemon.folder / f"{number}.jpg").write_bytes(picture(str(number)))
    daemon.start("0.02")
    for _ in range(3):
        with Mounted(daemon.root):
            wait_for_some(daemon)
    eventually(lambda: not left(daemon), "all are taken")
    assert daemon.end() == 0
    assert len(originals(daemon)) == 150
    assert set(originals(daemon).values()) == {1}


def test_the_real_codec_shrinks_a_photo_that_lands(daemon: Daemon) -> None:
    import skimage

    photo = Path(skimage.__file__).parent / "data" / "astronaut.png"
    command = [sys.executable, "-m", "daemon", str(daemon.folder), str(daemon.store), "--originals", "delete", "--settle", "0.3"]
    process = subprocess.Popen(command, cwd=ROOT, env=daemon.environment)
    try:
        daemon.wait_for("READY=1")
        (daemon.folder / "photo.png").write_bytes(photo.read_bytes())
        eventually(lambda: not left(daemon), "it is taken")
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert (daemon.store / "photo.png").stat().st_size < photo.stat().st_size / 8
