"""What to watch: `[[watch]]` tables of config.toml."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from sdfs.errors import UserError
from sdfs.settings import Heic

Originals = Literal["trash", "keep", "delete"]
Layout = Literal["tree", "date"]


@dataclass(frozen=True)
class WatchConfig:
    """One watched folder. Durations are in seconds."""

    folder: str  # absolute
    store: str  # absolute: a store, or a mount of one
    to: str = ""  # the folder within the store
    originals: Originals = "trash"  # what becomes of a file that the store has
    heic: Heic = "keep"  # what becomes of HEIC and AVIF pictures: stored as they come, or as JPEGs
    layout: Layout = "tree"  # keep its folders, or sort by the date it was taken
    all_files: bool = False  # take what is no picture, too
    polling: bool = False  # look at the folder regularly instead of waiting for events: for network folders
    settle_seconds: float = 10.0  # without a change, after which a file is finished that nobody was seen to close
    rescan_seconds: float = 3600.0


_CHOICES = {"originals": get_args(Originals), "layout": get_args(Layout), "heic": get_args(Heic)}
_TYPES: dict[str, tuple[type, ...]] = {"bool": (bool,), "float": (int, float)}
_LEAST: dict[str, float] = {"settle_seconds": 0.1, "rescan_seconds": 1.0}


def load(path: Path) -> list[WatchConfig]:
    """Raises UserError, which names the file and what is wrong with it."""
    try:
        tables = tomllib.loads(path.read_text()).get("watch", [])
    except FileNotFoundError:
        raise UserError(f"{path} is not there: write one (docs/WATCHING.md has an example), or name FOLDER and STORE") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{path} has no [[watch]] table: there is nothing to watch")
    watches = []
    for table in tables:
        try:
            watches.append(make(**table))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    folders = [watch.folder for watch in watches]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"{path}: {folder} is watched twice")
        if within := [other for other in folders if folder.startswith(other.rstrip("/") + "/")]:
            raise UserError(f"{path}: {folder} is within {within[0]}, which is watched with all in it")
    return watches


def make(**settings: Any) -> WatchConfig:
    """A checked watch of untrusted settings; `~` and relative paths are resolved. Raises UserError."""
    _check(settings)
    try:
        paths = {name: os.path.realpath(Path(settings[name]).expanduser()) for name in ("folder", "store")}
    except (RuntimeError, ValueError) as error:  # a user that is not there, a zero in a path
        raise UserError(f"{settings['folder']!r}, {settings['store']!r}: {error}") from error
    if paths["folder"] == paths["store"]:
        raise UserError(f"{paths['folder']} is the store itself: watch another folder")
    if paths["folder"].startswith(paths["store"] + "/"):
        raise UserError(f"{paths['folder']} is within the store {paths['store']}: what is in there needs no watch")
    to = PurePosixPath("/", settings.get("to", ""))
    if ".." in to.parts or "\0" in str(to) or ".sdfs" in to.parts[1:2]:
        raise UserError(f"to: want a folder within the store, have {settings['to']!r}")
    return WatchConfig(**settings | paths)


def _check(settings: Mapping[str, Any]) -> None:
    """Names, types and ranges."""
    kinds = {field.name: str(field.type) for field in fields(WatchConfig)}
    if unknown := sorted(settings.keys() - kinds.keys()):
        raise UserError(f"{unknown[0]}: no such setting of a watch; there are {', '.join(kinds)}")
    if missing := [name for name in ("folder", "store") if not settings.get(name)]:
        raise UserError(f"{missing[0]}: is missing")
    for name, value in settings.items():
        _check_one(name, value, kinds[name])


def _check_one(name: str, value: Any, kind: str) -> None:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise UserError(f"{name}: want {' or '.join(_CHOICES[name])}, have {value!r}")
        return
    wanted = _TYPES.get(kind, (str,))
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted != (bool,)):
        raise UserError(f"{name}: want a {wanted[-1].__name__}, have {value!r}")
    number: Any = value
    if name in _LEAST and not _LEAST[name] <= number < float("inf"):
        raise UserError(f"{name}: want at least {_LEAST[name]}, have {number}")
