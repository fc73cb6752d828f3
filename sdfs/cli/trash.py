from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdfs.access import Trashed

_Store = Annotated[Path, typer.Argument(metavar="STORE", help="The store, or a mount of it.")]

app = typer.Typer(no_args_is_help=True, help="Get back, or forget, what was replaced: originals of pictures, and pictures written over.")


@app.command("list")
def list_(store: _Store, json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False) -> None:
    """List what is in the trash, the oldest first."""
    from sdfs.access import open_access
    from sdfs.cli.naming import store_of
    from sdfs.cli.output import print_json

    with open_access(store_of(store)) as access:
        trashed = access.trashed()
    if json:
        print_json(trashed)
    elif trashed:
        _print(trashed)


def _print(entries: Sequence[Trashed]) -> None:
    from sdfs.cli.output import number

    width = max(len(number(entry.logical_bytes)) for entry in entries)
    for entry in entries:
        when = datetime.fromtimestamp(entry.trashed_ns / 1e9).astimezone()
        print(f"{when:%Y-%m-%d %H:%M}  {number(entry.logical_bytes):>{width}}  {entry.path or '?'}  {entry.name}")


@app.command("restore")
def restore(
    store: _Store,
    names: Annotated[list[str], typer.Argument(metavar="NAMES...", help="Names in the trash, or paths of the store: the newest of each.")],
    to: Annotated[str | None, typer.Option("--to", metavar="FOLDER", help="Where to, within the store; else where it was.")] = None,
) -> None:
    """Put files back.

    A name that is taken is left alone, and said so. An original stays unshrunk until it is written to.
    """
    from sdfs.access import open_access
    from sdfs.cli.naming import store_of
    from sdfs.cli.output import Complaints
    from sdfs.errors import DamagedError, UserError

    complaints = Complaints()
    with open_access(store_of(store)) as access:
        for name in names:
            try:
                print(access.restore(name, to))
            except (UserError, DamagedError) as error:
                if type(error) not in (UserError, DamagedError):  # of the store, not of this file
                    raise
                complaints.add(error)
    complaints.settle()


@app.command("empty")
def empty(store: _Store) -> None:
    """Remove everything from the trash, now."""
    from sdfs.access import open_access
    from sdfs.cli.naming import store_of

    with open_access(store_of(store)) as access:
        access.empty_trash()
