from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def run(paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Files of a store.")]) -> None:
    """Write files to stdout, as readers see them."""
    from sdfs.cli.naming import each_place
    from sdfs.cli.output import about

    for access, place in each_place(paths):
        with about(place.path):
            access.read_to(place.path, sys.stdout.buffer)
