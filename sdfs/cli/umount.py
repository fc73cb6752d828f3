from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    mountpoint: Annotated[Path, typer.Argument(metavar="MOUNTPOINT", help="Where the store is mounted.")],
    lazy: Annotated[bool, typer.Option("--lazy", help="Also while files are open: it goes when the last of them is closed.")] = False,
) -> None:
    """Unmount a store."""
    from sdfs.mount.mounting import unmount

    unmount(mountpoint, lazy=lazy)
