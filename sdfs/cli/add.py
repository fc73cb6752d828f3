from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from sdfs.settings import Heic

if TYPE_CHECKING:
    from rich.progress import Progress

    from sdfs.cli.output import Complaints
    from sdfs.control.requests import Access


@dataclass(frozen=True)
class _Copy:
    source: Path
    destination: str  # within the store


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store, or a mount of it.")],
    sources: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Files, and folders with all that is in them.")],
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="Where to, within the store; made if it is not there.")] = "",
    heic: Annotated[
        Heic, typer.Option("--heic", help="jpeg: HEIC and AVIF pictures become JPEGs, where those can hold all of them.")
    ] = "keep",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Copy files and folders into a store, and wait until they are shrunk.

    A name that is taken is left alone, and said so.
    """
    from sdfs.cli.naming import folder_within, store_of
    from sdfs.cli.output import Complaints, progress
    from sdfs.cli.sync import shrink
    from sdfs.owner.access import open_access

    complaints, folder = Complaints(), PurePosixPath(folder_within(to))
    copies = [copy for source in sources for copy in _plan(source, folder, complaints)]
    with open_access(store_of(store)) as access, progress(quiet=quiet) as bars:
        _copy(access, copies, heic, bars, complaints)
        shrink(access, bars)
    complaints.settle()


def _plan(source: Path, to: PurePosixPath, complaints: Complaints) -> Iterator[_Copy]:
    """Every file of `source`, a file or folder; raises FileNotFoundError."""
    source = source.resolve() if source.name in ("", "..") else source.absolute()
    if not stat.S_ISDIR(source.stat().st_mode):
        yield _Copy(source, str(to / source.name))
        return
    for folder, subfolders, names in os.walk(source, onerror=complaints.add):
        subfolders.sort()
        for name in sorted([*names, *(name for name in subfolders if Path(folder, name).is_symlink())]):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file():
                complaints.add(f"{path} is left out: it is no regular file")
            else:
                yield _Copy(path, str(to / source.name / path.relative_to(source)))


def _copy(access: Access, copies: list[_Copy], heic: Heic, bars: Progress, complaints: Complaints) -> None:
    for copy in bars.track(copies, description="copying"):
        with complaints.of_one_file():
            access.add(copy.source, copy.destination, heic=heic)
