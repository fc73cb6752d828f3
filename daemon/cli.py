"""`sdfs-daemon`, also `sdfs watch`: watch folders, or tell what the watches do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from daemon import config
from sdfs.errors import SdfsError
from sdfs.system.logs import log_to_stderr
from sdfs.system.places import daemon_config

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.command()
def watch(
    folder: Annotated[Path | None, typer.Argument(help="The folder to watch; without it, those of the configuration.")] = None,
    store: Annotated[Path | None, typer.Argument(help="The store, or a mount of it.")] = None,
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="Where to, within the store.")] = "",
    originals: Annotated[str, typer.Option("--originals", metavar="trash|keep|delete", help="What becomes of files taken.")] = "trash",
    heic: Annotated[str, typer.Option("--heic", metavar="keep|jpeg", help="Store HEIC and AVIF as they come, or as JPEGs.")] = "keep",
    layout: Annotated[str, typer.Option("--layout", metavar="tree|date", help="Keep folders, or sort by the date taken.")] = "tree",
    all_files: Annotated[bool, typer.Option("--all-files", help="Take what is no picture, too.")] = False,
    polling: Annotated[bool, typer.Option("--polling", help="Look regularly instead of waiting for events: for network folders.")] = False,
    settle: Annotated[float, typer.Option("--settle", metavar="SECONDS", help="Without a change until a file is finished.")] = 10.0,
    rescan: Annotated[float, typer.Option("--rescan", metavar="SECONDS", help="Between scans of the whole folder.")] = 3600.0,
    config_file: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Default: ~/.config/sdfs/config.toml")] = None,
    status: Annotated[bool, typer.Option("--status", help="Tell what the watches do, and what they could not take.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="--status as JSON.")] = False,
) -> None:
    """Watch folders, and move the pictures that land in them into a store. Runs until Ctrl-C or SIGTERM."""
    if status:
        from daemon.status import tell

        tell(as_json=as_json)
        return
    from daemon.service import Service

    if folder is not None and store is None:
        raise typer.BadParameter("name the store, too", param_hint="STORE")
    named = folder is not None and config.make(
        folder=str(folder),
        store=str(store),
        to=to,
        originals=originals,
        heic=heic,
        layout=layout,
        all_files=all_files,
        polling=polling,
        settle_seconds=settle,
        rescan_seconds=rescan,
    )
    log_to_stderr("sdfs", "daemon")
    Service(lambda: [named] if named else config.load(config_file or daemon_config())).run()


def main() -> None:
    from sdfs.cli import exit_codes
    from sdfs.cli.output import complain

    try:
        app(prog_name="sdfs-daemon")
    except (SdfsError, OSError) as error:
        complain(error)
        sys.exit(exit_codes.of(error))
