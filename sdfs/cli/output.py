"""What commands print: data on stdout, everything else on stderr, progress on a terminal only.

Names, and all else that comes from files, may have characters that a terminal takes for commands: `printable` escapes them in messages,
and in data if that goes to a terminal. Data that goes elsewhere is exact.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from sdfs.cli import exit_codes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.progress import Progress


def complain(error: object) -> None:
    """One line on stderr, for a condition that is no bug."""
    from sdfs.system.escape import escape

    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    print(f"sdfs: {escape(text)}", file=sys.stderr)


def note(text: str) -> None:
    """For who looks on: on a terminal only, as progress is."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


@contextmanager
def about(path: str) -> Iterator[None]:
    """What is said of stored data names the file it is said of."""
    from sdfs.errors import DamagedError, EngineError, ModelError, StoreTooNew

    try:
        yield
    except (DamagedError, EngineError, ModelError, StoreTooNew) as error:
        raise type(error)(f"{path}: {error}") from error


class Complaints:
    """What could not be done, while the rest is."""

    def __init__(self) -> None:
        self._any = False

    def add(self, complaint: object) -> None:
        complain(complaint)
        self._any = True

    @contextmanager
    def of_one_file(self) -> Iterator[None]:
        """What is wrong with one file is told, and the rest is done; what is wrong with the store passes."""
        from sdfs.errors import DamagedError, StoreBusy, StoreFull, StoreTooNew, UserError

        try:
            yield
        except (StoreBusy, StoreFull, StoreTooNew):
            raise
        except (UserError, DamagedError) as error:
            self.add(error)

    def settle(self) -> None:
        """At the end: an exit status that tells if anything is missing."""
        if self._any:
            raise typer.Exit(exit_codes.INCOMPLETE)


def print_json(objects: Iterable[DataclassInstance]) -> None:
    json.dump([asdict(object_) for object_ in objects], sys.stdout, indent=2)
    print()


def number(value: int) -> str:
    return f"{value:,}"


def print_line(text: str) -> None:
    print(_shown(text))


def print_table(rows: Iterable[Sequence[str]], alignment: str) -> None:
    """`alignment`: "<" or ">" for each column but the last, which is as long as it is."""
    shown = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for *cells, last in shown:
        print(*(f"{cell:{side}{width}}" for cell, side, width in zip(cells, alignment, widths, strict=False)), last, sep="  ")


def _shown(text: str) -> str:
    from sdfs.system.escape import escape

    return escape(text) if sys.stdout.isatty() else text


def print_fields(title: str, fields: dict[str, Any]) -> None:
    """A title, and under it the fields that have a value."""
    shown = {name: value for name, value in fields.items() if value is not None}
    width = max(map(len, shown))
    print_line(title)
    for name, value in shown.items():
        print_line(f"    {name:<{width}}  {value}")


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        yield bars
