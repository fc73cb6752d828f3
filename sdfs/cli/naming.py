"""How files are named on the command line: by their path, in a mount or in the store's own folder; both mean the same file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sdfs.errors import NotAStore, UserError

if TYPE_CHECKING:
    from sdfs.control.requests import Access


@dataclass(frozen=True)
class Place:
    """A file or folder of a store."""

    store: Path
    path: str  # within the store, from its root: '/' is the store itself
    name: str  # what to call it elsewhere; of the root, the name it was given


def place_of(named: Path) -> Place:
    """Raises NotAStore where `named` lies in no store, FileNotFoundError where it is not there."""
    from sdfs.owner.access import store_at

    path = Path(os.path.realpath(named.parent)) / named.name if named.name not in ("", "..") else Path(os.path.realpath(named))
    refused = ""
    for folder in (path, *path.parents):
        try:
            store = store_at(folder, above=folder != path)
        except NotAStore as error:
            refused = refused or f": {error}"
            continue
        if store is not None:
            within = path.relative_to(folder)
            if not os.path.lexists(store / within):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(named))
            return Place(store, str(PurePosixPath("/", within)), path.name)
    raise NotAStore(f"{named} is in no SDFS store, nor in a mount of one" + (refused or "; `sdfs init FOLDER` makes a store"))


def store_of(named: Path) -> Path:
    """The store whose folder, or the root of whose mount, `named` is. Raises NotAStore, FileNotFoundError."""
    place = place_of(named)
    if place.path != "/":
        raise NotAStore(f"{named} is within the store {place.store}, not a store itself")
    return place.store


def folder_within(to: str) -> str:
    """What `--to` names, a folder within a store, if it cannot be taken for one elsewhere; raises UserError."""
    if ".." in PurePosixPath(to).parts:
        raise UserError(f"--to {to}: want a folder within the store, from its root down, without ..")
    return to


def each_place(named: Iterable[Path]) -> Iterator[tuple[Access, Place]]:
    """Every place that is named, in order, with access to its store. All of them are looked for before the first is yielded."""
    from sdfs.owner.access import open_access

    for store, places in groupby([place_of(path) for path in named], key=lambda place: place.store):
        with open_access(store) as access:
            for place in places:
                yield access, place
