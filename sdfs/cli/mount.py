from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store.")],
    mountpoint: Annotated[Path, typer.Argument(metavar="MOUNTPOINT", help="An empty folder; made if it is not there.")],
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay in the foreground until it is unmounted.")] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("-o", help="Separated by commas: ro, nonempty, allow_other …; docs/CLI.md has them all.", metavar="OPTIONS"),
    ] = None,
) -> None:
    """Mount a store, in the background."""
    from sdfs.mount import run as mount

    mount(store, mountpoint, foreground=foreground, options=",".join(options or ()))
