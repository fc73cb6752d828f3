from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder; made if it is not there.")],
    quality: Annotated[
        int | None, typer.Option("--quality", "-Q", min=0, max=100, help="How much of a picture is kept: 0 to 100; 35 if not given.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="The model that shrinks: `bundled`, or one that `sdfs model` lists.")
    ] = "bundled",
) -> None:
    """Make a folder a store.

    Pictures that it already holds are shrunk once it is mounted or synced.
    """
    from sdfs.cli.recompress import resolved
    from sdfs.store import DEFAULT_QUALITY, init

    init(store, quality=DEFAULT_QUALITY if quality is None else quality, model=resolved(model))
