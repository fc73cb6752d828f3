from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store.")],
    mountpoint: Annotated[Path, typer.Argument(metavar="MOUNTPOINT", help="An empty folder; made if it is not there.")],
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay in the foreground until it is unmounted.")] = False,
    cache_size: Annotated[
        int | None, typer.Option(metavar="BYTES", min=0, help="Of decoded pictures in memory: 256 MiB if not given.")
    ] = None,
    ram: Annotated[int | None, typer.Option(metavar="BYTES", min=0, help="What the engine may take: 4 GiB if not given.")] = None,
    vram: Annotated[int | None, typer.Option(metavar="BYTES", min=0, help="Of a GPU's memory: all of it if not given.")] = None,
    disk_cache: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep what was decoded in a folder of yours, too.")] = None,
    disk_cache_size: Annotated[int | None, typer.Option(metavar="BYTES", min=0, help="At most so much of it: 4 GiB if not given.")] = None,
    read_ahead: Annotated[
        int | None, typer.Option(metavar="PICTURES", min=0, max=64, help="Of a folder that is read in order; 4 if not given, 0 for none.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Tell Prometheus what the mount does.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("-o", help="Separated by commas: ro, nonempty, allow_other …; docs/CLI.md has them all.", metavar="OPTIONS"),
    ] = None,
) -> None:
    """Mount a store, in the background."""
    from sdfs.mount.mounting import run as mount

    chosen = [*(options or ())]
    if disk_cache is not None:
        if "," in str(disk_cache.absolute()):
            raise typer.BadParameter(f"--disk-cache {disk_cache}: the folder's path must have no comma")
        chosen.append(f"disk_cache={disk_cache.absolute()}")
    values = {
        "cache_size": cache_size,
        "ram": ram,
        "vram": vram,
        "disk_cache_size": disk_cache_size,
        "read_ahead": read_ahead,
        "metrics": metrics,
    }
    chosen += [f"{name}={value}" for name, value in values.items() if value is not None]
    mount(store, mountpoint, foreground=foreground, options=",".join(chosen))
