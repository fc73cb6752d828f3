from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdfs.control.answers import Trashed

_Store = Annotated[Path, typer.Argument(metavar="STORE", help="The store, or a mount of it.")]

app = typer.Typer(no_args_is_help=True, help="Get back, or forget, what was replaced: originals of pictures, and pictures written over.")


@app.command("list")
def list_(store: _Store, json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False) -> None:
    """List what is in the trash, the oldest first."""
    from sdfs.cli.naming import store_of
    from sdfs.cli.output import print_json
    from sdfs.owner.access import open_access

    with open_access(store_of(store)) as access:
        trashed = access.trashed()
    if json:
        print_json(trashed)
    else:
        _print(trashed)


def _print(entries: Sequence[Trashed]) -> None:
    from sdfs.cli.output import number, print_table

    print_table([(_time(entry), number(entry.logical_bytes), entry.path or "?", entry.name) for entry in entries], "<><")


def _time(entry: Trashed) -> str:
    return f"{datetime.fromtimestamp(entry.trashed_ns / 1e9).astimezone():%Y-%m-%d %H:%M}"


@app.command("restore")
def restore(
    store: _Store,
    names: Annotated[list[str], typer.Argument(metavar="NAMES...", help="Names in the trash, or paths of the store: the newest of each.")],
    to: Annotated[str | None, typer.Option("--to", metavar="FOLDER", help="Where to, within the store; else where it was.")] = None,
) -> None:
    """Put files back.

    A name that is taken is left alone, and said so. An original stays unshrunk until it is written to.
    """
    from sdfs.cli.naming import folder_within, store_of
    from sdfs.cli.output import Complaints, print_line
    from sdfs.errors import NameTaken
    from sdfs.owner.access import open_access

    complaints, folder = Complaints(), to and folder_within(to)
    with open_access(store_of(store)) as access:
        for name in names:
            with complaints.of_one_file():
                try:
                    print_line(access.restore(name, folder))
                except NameTaken as error:
                    raise NameTaken(f"{error}: restore it elsewhere, with --to") from error
    complaints.settle()


@app.command("empty")
def empty(store: _Store) -> None:
    """Remove everything from the trash, now."""
    from sdfs.cli.naming import store_of
    from sdfs.cli.output import note, number
    from sdfs.owner.access import open_access

    with open_access(store_of(store)) as access:
        trashed = access.trashed()
        access.empty_trash()
    note(f"files removed: {len(trashed):,}, bytes: {number(sum(entry.stored_bytes for entry in trashed))}")
