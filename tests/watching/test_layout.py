"""daemon.layout: where in the store a file goes."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from daemon.config import Layout, WatchConfig
from daemon.layout import destinations


def names(folder: Path, path: str, layout: Layout, to: str = "") -> list[str]:
    return list(islice(destinations(WatchConfig(str(folder), "/s", to=to, layout=layout), path), 3))


def picture(path: Path, taken: str | None = None) -> None:
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(0x8769)[0x9003] = taken  # DateTimeOriginal
    Image.new("RGB", (8, 8)).save(path, exif=exif.tobytes())
    os.utime(path, (0, 86400 * 365 * 30))  # 1999-12-25


def test_a_tree_keeps_its_folders(tmp_path: Path) -> None:
    assert names(tmp_path, "a/b.c.jpg", "tree", "in") == ["in/a/b.c.jpg", "in/a/b.c-1.jpg", "in/a/b.c-2.jpg"]


def test_a_name_without_extension(tmp_path: Path) -> None:
    assert names(tmp_path, "b", "tree") == ["b", "b-1", "b-2"]


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_by_the_date_it_was_taken(tmp_path: Path, extension: str) -> None:
    picture(tmp_path / f"b.{extension}", "2024:05:17 10:11:12")
    assert names(tmp_path, f"b.{extension}", "date")[0] == f"2024/05/b.{extension}"


def test_by_the_date_of_its_last_change_where_it_says_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "b.jpg")
    assert names(tmp_path, "b.jpg", "date")[0] == "1999/12/b.jpg"


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "rubbish", "    :  :     :  :  "])
def test_a_clock_that_was_never_set_is_not_believed(tmp_path: Path, taken: str) -> None:
    picture(tmp_path / "b.jpg", taken)
    assert names(tmp_path, "b.jpg", "date")[0] == "1999/12/b.jpg"


@pytest.mark.filterwarnings("ignore")
def test_a_broken_file_has_a_date_all_the_same(tmp_path: Path) -> None:
    picture(tmp_path / "b.jpg", "2024:05:17 10:11:12")
    content = (tmp_path / "b.jpg").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "b.jpg").write_bytes(content[:length])
        os.utime(tmp_path / "b.jpg", (0, 86400 * 365 * 30))
        assert names(tmp_path, "b.jpg", "date")[0] in ("1999/12/b.jpg", "2024/05/b.jpg")
