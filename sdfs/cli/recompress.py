from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdfs.cli.settings import EffortOption, MinMsSsimOption, MinPsnrOption, ModelOption, QualityOption

if TYPE_CHECKING:
    from sdfs.cli.output import Complaints
    from sdfs.control.requests import Access


def run(
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Shrunk pictures of a store, and folders of them.")],
    quality: QualityOption = None,
    model: ModelOption = None,
    effort: EffortOption = None,
    min_psnr: MinPsnrOption = None,
    min_ms_ssim: MinMsSsimOption = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Use what readers get where the original is gone: it loses again.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Shrink pictures again, with another model or at another quality: from their originals, while these are in the trash.

    What is not given is as the store has it.
    """
    from sdfs.cli.naming import each_place
    from sdfs.cli.output import Complaints, progress
    from sdfs.cli.settings import given
    from sdfs.control.answers import Wish
    from sdfs.errors import ModelError, SdfsError

    changes = given(quality=quality, model=model, effort=effort, min_psnr=min_psnr, min_ms_ssim=min_ms_ssim)
    complaints = Complaints()
    wish = Wish(changes, accept_loss)
    with progress(quiet=quiet) as bars:
        for access, place in each_place(paths):
            for path in bars.track(list(_pictures(access, place.path, complaints)), description="shrinking"):
                try:
                    access.recompress(path, wish)
                except ModelError:  # the same for all
                    raise
                except SdfsError as error:
                    complaints.add(error)
    complaints.settle()


def _pictures(access: Access, path: str, complaints: Complaints) -> Iterator[str]:
    listing, waiting = access.list(path), list[str]()
    while True:
        yield from (listed.path for listed in listing if listed.state in ("latent", "exact"))
        waiting += [listed.path for listed in reversed(listing) if listed.state == "folder"]
        if not waiting:
            return
        listing = []
        with complaints.of_one_file():
            listing = access.list(waiting.pop())
