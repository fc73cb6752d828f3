from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdfs.access import Access, Listed
    from sdfs.cli.output import Complaints


def run(
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Files and folders of a store.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to; made if it is not there.")] = Path(),
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Decode with this model, which shares its latents with the one that made them."),
    ] = None,
) -> None:
    """Copy files and folders out of a store, as readers see them.

    A name that is taken is left alone, and said so.
    """
    from sdfs.cli.naming import each_place
    from sdfs.cli.output import Complaints
    from sdfs.models import resolve

    if model is not None:
        model = resolve(model).id
    complaints = Complaints()
    for access, place in each_place(paths):
        output.mkdir(parents=True, exist_ok=True)
        if _is_folder(access, place.path):
            _get_folder(access, place.path, output / place.name, model, complaints)
        else:
            _get(access, access.list(place.path)[0], output / place.name, model, complaints)
    complaints.settle()


def _is_folder(access: Access, path: str) -> bool:
    """A folder's listing never has the folder itself, and a file's is the file."""
    return [PurePosixPath(listed.path) for listed in access.list(path)] != [PurePosixPath("/", path)]


def _get_folder(access: Access, path: str, target: Path, model: str | None, complaints: Complaints) -> None:
    target.mkdir(exist_ok=True)
    for listed in access.list(path):
        inner = target / PurePosixPath(listed.path).name
        if listed.state == "folder":
            _get_folder(access, listed.path, inner, model, complaints)
        else:
            _get(access, listed, inner, model, complaints)


def _get(access: Access, listed: Listed, target: Path, model: str | None, complaints: Complaints) -> None:
    from sdfs.cli.output import about
    from sdfs.errors import SdfsError, UserError

    if listed.state in ("symlink", "special"):
        complaints.add(f"{listed.path} is left out: it is no regular file")
        return
    made = target.with_name(f".sdfs-{os.getpid()}.part")  # short: the target's own name may be as long as names can be
    try:
        if os.path.lexists(target):
            raise UserError(f"{target} exists already")
        with about(listed.path), made.open("xb") as file:
            access.read_to(listed.path, file, model)
        os.utime(made, ns=(listed.mtime_ns, listed.mtime_ns))
        made.rename(target)
    except SdfsError as error:
        complaints.add(error)
    finally:
        made.unlink(missing_ok=True)
