from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdfs.access import Access


def run(
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Shrunk pictures of a store, and folders of them.")],
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="The model to use; the store's, if not given.")] = None,
    quality: Annotated[int | None, typer.Option("--quality", "-Q", min=0, max=100, help="The store's, if not given.")] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Use what readers get where the original is gone: it loses again.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Shrink pictures again, with another model or at another quality: from their originals, while these are in the trash."""
    from sdfs.access import Wish
    from sdfs.cli.naming import each_place
    from sdfs.cli.output import Complaints, progress
    from sdfs.errors import ModelError, SdfsError

    if model is not None:
        model = resolved(model)
    complaints = Complaints()
    wish = Wish(model, quality, accept_loss)
    with progress(quiet=quiet) as bars:
        for access, place in each_place(paths):
            for path in bars.track(list(_pictures(access, place.path)), description="shrinking"):
                try:
                    access.recompress(path, wish)
                except ModelError:  # the same for all
                    raise
                except SdfsError as error:
                    complaints.add(error)
    complaints.settle()


def resolved(model: str) -> str:
    """The model's id on this machine, for a store to record. Raises ModelMissing, ModelError."""
    from sdfs.models import resolve
    from sdfs.store import DEFAULT_MODEL

    return model if model == DEFAULT_MODEL else resolve(model).id


def _pictures(access: Access, path: str) -> Iterator[str]:
    for listed in access.list(path):
        if listed.state == "folder":
            yield from _pictures(access, listed.path)
        elif listed.state in ("latent", "exact"):
            yield listed.path
