"""The commands, in the order of `sdfs --help`, and how they end."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sdfs.cli import (
    add,
    cat,
    du,
    exit_codes,
    fsck,
    get,
    init,
    ls,
    model,
    mount,
    recompress,
    service,
    stat,
    stats,
    sync,
    trash,
    umount,
    watch,
)
from sdfs.cli.output import complain


class _Warnings(logging.Handler):
    """Tells what is odd in a store, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("sdfs.owner.store.") and record.levelno >= logging.WARNING:
            complain(record.getMessage())


class _Group(TyperGroup):
    """Gives every error its exit status. What is neither SdfsError nor OSError is a bug, or typer's own, and passes."""

    def invoke(self, ctx: Any) -> Any:
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names need not be decodable
        logging.getLogger("sdfs").addHandler(_Warnings())  # errors are told below; a mount sets up its own log
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it ends
            raise typer.Exit(exit_codes.READER_GONE) from None
        except Exception as error:
            code = exit_codes.of(error)
            if code == exit_codes.BUG:
                raise
            complain(error)
            raise typer.Exit(code) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.run)
app.command("mount")(mount.run)
app.command("umount")(umount.run)
app.command("add")(add.run)
app.command("get")(get.run)
app.command("cat")(cat.run)
app.command("ls")(ls.run)
app.command("stat")(stat.run)
app.command("stats")(stats.run)
app.command("sync")(sync.run)
app.command("watch", context_settings=watch.SETTINGS)(watch.run)
app.command("recompress")(recompress.run)
app.command("du")(du.run)
app.add_typer(trash.app, name="trash")
app.command("fsck")(fsck.run)
app.add_typer(model.app, name="model")
app.add_typer(service.app, name="service")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sdfs {version('sdfs-fuse')}")
        raise typer.Exit


@app.callback()
def sdfs(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """A filesystem that stores pictures as the latents of a neural autoencoder.

    Files are named by their path, in a mount or in the store's own folder.
    """
