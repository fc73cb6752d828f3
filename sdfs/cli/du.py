from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Folders or files of a store.")],
    json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """Tell how many bytes readers get, the store keeps, and the trash keeps besides."""
    from sdfs.cli.naming import each_place
    from sdfs.cli.output import number, print_json, print_table

    usages = [access.usage(place.path) for access, place in each_place(paths)]
    if json:
        print_json(usages)
        return
    rows = [("logical", "stored", "trash", "path")]
    rows += [(number(usage.logical_bytes), number(usage.stored_bytes), number(usage.trash_bytes), usage.path) for usage in usages]
    print_table(rows, ">>>")
