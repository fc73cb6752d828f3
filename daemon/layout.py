"""Where in the store a file goes."""

from __future__ import annotations

import datetime
import logging
import os
import posixpath
from collections.abc import Iterator

from daemon.config import WatchConfig

MOST_SUFFIXES = 10_000
_NAME_MAX = 255  # bytes
_log = logging.getLogger(__name__)


def destinations(watch: WatchConfig, path: str) -> Iterator[str]:
    """Names for the file at `path` within the watched folder: the one it should have, and others for when that is taken.

    `a.jpg`, `a-1.jpg`, `a-2.jpg` …
    """
    folder, name = posixpath.split(path)
    if watch.layout == "date":
        folder = _date_folder(posixpath.join(watch.folder, path))
    yield posixpath.join(watch.to, folder, name)
    for number in range(1, MOST_SUFFIXES):
        yield posixpath.join(watch.to, folder, _with_suffix(name, f"-{number}"))


def _with_suffix(name: str, suffix: str) -> str:
    """Cut, where it would be too long for a name."""
    stem, extension = posixpath.splitext(name)
    room = _NAME_MAX - len(suffix) - len(os.fsencode(extension))
    return os.fsdecode(os.fsencode(stem)[:room]) + suffix + extension


def _date_folder(path: str) -> str:
    """`2024/05`: when it was taken, by its EXIF data, or else when it was last written."""
    taken = _date_taken(path)
    if taken is None:
        try:
            taken = datetime.datetime.fromtimestamp(os.stat(path).st_mtime)
        except (ValueError, OverflowError):  # filesystems have room for the year 10000
            return "undated"
    return f"{taken.year:04}/{taken.month:02}"


def _date_taken(path: str) -> datetime.datetime | None:
    import exifread  # takes a while, and only this layout needs it

    logging.getLogger("exifread").setLevel(logging.CRITICAL)
    try:
        with open(path, "rb") as file:
            tags = exifread.process_file(file, details=False, extract_thumbnail=False)
    except Exception as error:  # whatever it makes of a file from anywhere, there is still the time of writing
        _log.debug("%s: its EXIF data cannot be read: %s", path, error)
        return None
    for tag in ("EXIF DateTimeOriginal", "EXIF DateTimeDigitized", "Image DateTime"):
        if tag in tags:
            try:
                return datetime.datetime.strptime(str(tags[tag])[:19], "%Y:%m:%d %H:%M:%S")
            except ValueError:
                continue  # cameras whose clock was never set write zeros
    return None
