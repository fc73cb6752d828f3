"""Pictures through the kernel with the real engine and codec; and what happens when the engine is killed."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdfs.owner.access import open_access
from tests.support.mounting import REAL, Mounted, engine_pids, needs_fuse
from tests.support.photos import photo
from tests.support.waiting import eventually

pytestmark = [needs_fuse, pytest.mark.timeout(300)]


def difference(one: bytes, other: bytes) -> float:
    """Mean of the absolute differences of the pixels, 0…255."""
    first, second = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float32) for data in (one, other))
    return float(np.abs(first - second).mean())


def encodes(mounted: Mounted) -> bool:
    with open_access(mounted.store) as access:
        return access.statistics().engine_state == "running"


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with Mounted(tmp_path_factory.mktemp("real"), command=REAL) as mounted:
        yield mounted


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_a_photo_shrinks_and_reads_as_a_picture_of_the_size_that_stat_tells(mounted: Mounted, folder: Path, format_: str) -> None:
    original = photo(1, format_=format_)
    path = folder / "photo"
    path.write_bytes(original)
    mounted.sync()
    assert mounted.state(f"{folder.name}/photo") in ("latent", "exact")
    size = path.stat().st_size
    render = path.read_bytes()
    assert len(render) == size
    assert difference(original, render) < 12
    assert (mounted.store / folder.name / "photo").stat().st_size < len(original)


def test_a_jpeg_keeps_its_size_and_times(mounted: Mounted, folder: Path) -> None:
    path = folder / "photo.jpg"
    path.write_bytes(photo(2))
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    before = path.stat()
    mounted.sync()
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("content", [photo(3)[:-500], b"\xff\xd8\xff\xe0 and no more", b"text"], ids=["cut", "head only", "text"])
def test_a_broken_picture_stays_bit_for_bit(mounted: Mounted, folder: Path, content: bytes) -> None:
    (folder / "a.jpg").write_bytes(content)
    mounted.sync()
    assert (folder / "a.jpg").read_bytes() == content
    assert mounted.state(f"{folder.name}/a.jpg") in ("plain", "exact")


def test_an_edited_photo_is_what_was_written(mounted: Mounted, folder: Path) -> None:
    path = folder / "photo.jpg"
    path.write_bytes(photo(4))
    mounted.sync()
    render = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"X")
    assert path.read_bytes() == render[:-1] + b"X"


def test_a_read_succeeds_after_the_engine_was_killed(mounted: Mounted, folder: Path) -> None:
    for name, seed in (("a.jpg", 5), ("b.jpg", 6)):
        (folder / name).write_bytes(photo(seed))
    mounted.sync()
    (folder / "a.jpg").read_bytes()
    for pid in engine_pids(mounted):
        os.kill(pid, signal.SIGKILL)
    assert difference(photo(6), (folder / "b.jpg").read_bytes()) < 12


def test_a_file_whose_encode_was_killed_stays_pending_and_is_taken_again(mounted: Mounted, folder: Path) -> None:
    original = photo(7, size=1600)
    path = folder / "photo.jpg"
    path.write_bytes(original)
    name = f"{folder.name}/photo.jpg"
    for _ in range(3):
        eventually(lambda: mounted.state(name) != "pending" or encodes(mounted), "an engine encodes")
        for pid in engine_pids(mounted):
            os.kill(pid, signal.SIGKILL)
        if mounted.state(name) == "pending":
            assert (mounted.store / folder.name / "photo.jpg").read_bytes() == original
    mounted.sync()
    assert mounted.state(name) in ("latent", "exact")
    assert difference(original, path.read_bytes()) < 12
