"""exiftool on pictures that are latents: an edit of metadata is there afterwards, and costs no generation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.support.mounting import REAL, Mounted, needs_fuse
from tests.support.photos import photo, pixels, store
from tests.support.programs import program, run

pytestmark = [needs_fuse, pytest.mark.timeout(300)]

WITH_MARKER = ["JPEG", "PNG", "WEBP"]  # formats that have room for the marker
EDITS = {  # what is set, and what it reads as
    "Exif": ("-Artist=A. Photographer", "A. Photographer"),
    "a rotation": ("-IFD0:Orientation#=6", "Rotate 90 CW"),
    "a date": ("-DateTimeOriginal=2024:07:01 12:00:00", "2024:07:01 12:00:00"),
    "XMP": ("-XMP:Rating=5", "5"),
    "a comment": ("-Comment=by the sea", "by the sea"),
}
BACKUP, RENAME, IN_PLACE = [], ["-overwrite_original"], ["-overwrite_original_in_place"]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with Mounted(tmp_path_factory.mktemp("exiftool"), command=REAL) as mounted:
        yield mounted


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "photo"


def edit(path: Path, *options: str) -> None:
    run(program("exiftool"), "-q", *options, path)


def read(path: Path, option: str) -> str:
    """The tag that `option` sets."""
    return run(program("exiftool"), "-s3", option.partition("=")[0].removesuffix("#"), path).strip()


def is_kept(mounted: Mounted, path: Path, before: np.ndarray) -> bool:
    """Whether the pixels are those that it had `before`, once all is done."""
    mounted.sync()
    return mounted.state(f"{path.parent.name}/{path.name}") == "latent" and np.array_equal(pixels(path), before)


@pytest.mark.parametrize(("format_", "what"), [pair for pair in product(WITH_MARKER, EDITS) if pair != ("WEBP", "a comment")])
def test_an_edit_is_there_and_costs_nothing(mounted: Mounted, path: Path, format_: str, what: str) -> None:
    option, value = EDITS[what]
    before = store(mounted, path, photo(21, size=256, format_=format_))
    edit(path, *RENAME, option)
    assert is_kept(mounted, path, before)
    assert read(path, option) == value


@pytest.mark.parametrize("how", [BACKUP, RENAME, IN_PLACE], ids=["with a backup", "over the original", "in place"])
@pytest.mark.parametrize("format_", WITH_MARKER)
def test_it_does_not_matter_how_the_file_is_replaced(mounted: Mounted, path: Path, format_: str, how: list[str]) -> None:
    before = store(mounted, path, photo(22, size=256, format_=format_))
    edit(path, *how, "-Artist=A. Photographer")
    assert is_kept(mounted, path, before)
    assert read(path, "-Artist") == "A. Photographer"
    if how == BACKUP:
        assert is_kept(mounted, path.with_name("photo_original"), before)


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_all_metadata_can_be_removed(mounted: Mounted, path: Path, format_: str) -> None:
    before = store(mounted, path, photo(23, size=256, format_=format_))
    edit(path, *RENAME, "-Artist=A. Photographer")
    edit(path, *RENAME, "-all=")
    assert is_kept(mounted, path, before)
    assert read(path, "-Artist") == ""


def test_many_edits_cost_nothing(mounted: Mounted, path: Path) -> None:
    before = store(mounted, path, photo(24, size=256))
    for option, _ in EDITS.values():
        edit(path, *RENAME, option)
        mounted.sync()
    assert is_kept(mounted, path, before)
    assert [read(path, option) for option, _ in EDITS.values()] == [value for _, value in EDITS.values()]


def test_an_edit_outlasts_the_mount(tmp_path: Path) -> None:
    with Mounted(tmp_path, command=REAL) as mounted:
        (mounted.path / "folder").mkdir()
        path = mounted.path / "folder" / "photo"
        before = store(mounted, path, photo(25, size=256))
        edit(path, *RENAME, "-Artist=A. Photographer")
        assert is_kept(mounted, path, before)
    with Mounted(tmp_path, command=REAL):
        np.testing.assert_array_equal(pixels(path), before)
        assert read(path, "-Artist") == "A. Photographer"


@pytest.mark.parametrize(("format_", "option", "artist"), [("TIFF", "-Artist=A. Photographer", "A. Photographer"), ("JPEG", "-all=", "")])
@pytest.mark.parametrize("how", [RENAME, IN_PLACE], ids=["over the original", "in place"])
def test_without_a_marker_the_file_that_was_replaced_tells(
    mounted: Mounted, path: Path, format_: str, option: str, artist: str, how: list[str]
) -> None:
    """An uncompressed file has no room for one, and exiftool takes it from a JPEG with all other segments."""
    before = store(mounted, path, photo(26, size=256, format_=format_))
    edit(path, *how, option)
    assert is_kept(mounted, path, before)
    assert read(path, "-Artist") == artist
