from __future__ import annotations

from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdfs.control.answers import Listed, Reason


def run(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder or file of a store.")],
    long: Annotated[bool, typer.Option("--long", "-l", help="With state, size, stored size, and time.")] = False,
    reasons: Annotated[bool, typer.Option("--reasons", help="Sum up, with all below it, what is not shrunk, and why.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """List a folder of a store."""
    from sdfs.cli.naming import each_place
    from sdfs.cli.output import print_json, print_line

    for access, place in each_place([path]):
        if reasons:
            found = access.reasons(place.path)
            print_json(found) if json else _print_reasons(found)
            continue
        entries = access.list(place.path)
        if json:
            print_json(entries)
        elif long:
            _print_long(entries)
        else:
            for entry in entries:
                print_line(_name(entry))


def _name(entry: Listed) -> str:
    return PurePosixPath(entry.path).name + ("/" if entry.state == "folder" else "")


def _print_long(entries: Sequence[Listed]) -> None:
    """Bytes a reader gets, bytes on the disk."""
    from sdfs.cli.output import number, print_table

    rows = [
        (entry.state, number(entry.logical_bytes), number(entry.stored_bytes), f"{_time(entry):%Y-%m-%d %H:%M}", _name(entry))
        for entry in entries
    ]
    print_table(rows, "<>><")


def _print_reasons(reasons: Sequence[Reason]) -> None:
    from sdfs.cli.output import number, print_table

    rows = [("files", "size", "stored", "state", "reason")]
    rows += [(number(r.files), number(r.logical_bytes), number(r.stored_bytes), r.state, r.reason or "no picture") for r in reasons]
    print_table(rows, ">>><")


def _time(entry: Listed) -> datetime:
    return datetime.fromtimestamp(entry.mtime_ns / 1e9).astimezone()
