from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from sdfs.control.requests import Access


def run(store: Annotated[Path, typer.Argument(metavar="STORE", help="The store, or a mount of it.")]) -> None:
    """Wait until nothing is pending."""
    from sdfs.cli.naming import store_of
    from sdfs.cli.output import progress
    from sdfs.owner.access import open_access

    with open_access(store_of(store)) as access, progress() as bars:
        shrink(access, bars)


def shrink(access: Access, bars: Progress) -> None:
    """Wait until nothing is pending, and show how far that is."""
    task = bars.add_task("shrinking", total=None)
    access.sync(lambda done, total: bars.update(task, completed=done, total=total))
