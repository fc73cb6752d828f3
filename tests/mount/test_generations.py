"""A picture that is copied out and in, or has its metadata edited, loses nothing a second time."""

from __future__ import annotations

import io
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdfs.codec.pictures.picture import find_marker
from tests.support.mounting import REAL, Mounted, needs_fuse
from tests.support.photos import photo, pixels, store

pytestmark = [needs_fuse, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with Mounted(tmp_path_factory.mktemp("generations"), command=REAL) as mounted:
        yield mounted


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_copy_reads_the_same(mounted: Mounted, folder: Path, format_: str) -> None:
    before = store(mounted, folder / "a", photo(11, format_=format_))
    shutil.copyfile(folder / "a", folder / "b")
    mounted.sync()
    assert mounted.state(f"{folder.name}/b") == "latent"
    np.testing.assert_array_equal(pixels(folder / "b"), before)


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload + jpeg[2:]


@pytest.mark.parametrize("how", ["renamed over", "written in place"])
def test_edited_metadata_keeps_the_pixels(mounted: Mounted, folder: Path, how: str) -> None:
    path = folder / "photo.jpg"
    before = store(mounted, path, photo(12))
    edited = with_segment(path.read_bytes(), 0xFE, b"a caption")
    if how == "renamed over":
        (folder / "edited.tmp").write_bytes(edited)
        (folder / "edited.tmp").rename(path)
    else:
        path.write_bytes(edited)
    mounted.sync()
    assert mounted.state(f"{folder.name}/photo.jpg") == "latent"
    assert b"a caption" in path.read_bytes()[:200]
    assert path.stat().st_size == len(edited)
    np.testing.assert_array_equal(pixels(path), before)


def test_a_copy_outside_comes_back_without_loss(mounted: Mounted, folder: Path, tmp_path: Path) -> None:
    before = store(mounted, folder / "photo.jpg", photo(13))
    shutil.copy2(folder / "photo.jpg", tmp_path / "out.jpg")
    shutil.copy2(tmp_path / "out.jpg", folder / "back.jpg")
    mounted.sync()
    np.testing.assert_array_equal(pixels(folder / "back.jpg"), before)


def test_copies_of_copies_read_the_same(mounted: Mounted, folder: Path) -> None:
    before = store(mounted, folder / "0.jpg", photo(14))
    for i in range(3):
        shutil.copyfile(folder / f"{i}.jpg", folder / f"{i + 1}.jpg")
        mounted.sync()
    np.testing.assert_array_equal(pixels(folder / "3.jpg"), before)


def test_edited_pixels_are_not_taken_for_the_old_ones(mounted: Mounted, folder: Path) -> None:
    """Though the editor kept the segment that names the blob."""
    path = folder / "photo.jpg"
    before = store(mounted, path, photo(15))
    marker = find_marker(path.read_bytes())
    assert marker is not None
    changed = before.copy()
    changed[100:200, 100:200] = 255 - changed[100:200, 100:200]
    file = io.BytesIO()
    Image.fromarray(changed).save(file, "JPEG", quality=95)
    edited = with_segment(file.getvalue(), 0xE2, b"SDFS\0" + bytes([len(marker)]) + marker)
    assert find_marker(edited) == marker
    after = store(mounted, path, edited).astype(int)
    assert np.abs(after - changed)[100:200, 100:200].mean() < 20
    assert np.abs(after - before)[100:200, 100:200].mean() > 20
