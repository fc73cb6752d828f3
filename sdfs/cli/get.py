from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdfs.cli.output import Complaints
    from sdfs.control.answers import Listed
    from sdfs.control.requests import Access


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
    from sdfs.models.registry import resolve
    from sdfs.system.no_follow import open_folder

    if model is not None:
        model = resolve(model).id
    complaints = Complaints()
    for access, place in each_place(paths):
        output.mkdir(parents=True, exist_ok=True)
        top = os.path.realpath(output)
        folder = open_folder("/", PurePosixPath(top).parts[1:])
        try:
            _Copy(access, folder, top, model, complaints).copy(place.path, place.name)
        finally:
            os.close(folder)
    complaints.settle()


class _Copy:
    """Of files and folders into an open folder, `top` by its path. No link below that is followed, nor a name taken that is there."""

    def __init__(self, access: Access, folder: int, top: str, model: str | None, complaints: Complaints) -> None:
        self._access = access
        self._folder = folder
        self._top = top
        self._model = model
        self._complaints = complaints

    def copy(self, path: str, name: str) -> None:
        """A file or folder of the store, which is to be called `name`."""
        listing = self._access.list(path)
        if [PurePosixPath(listed.path) for listed in listing] == [PurePosixPath("/", path)]:  # a folder's never has the folder itself
            self._in_folder([], [(listing[0], name)])
            return
        waiting = [(path, [name])]
        while waiting:
            path, names = waiting.pop()
            with self._complaints.of_one_file():
                listing = self._access.list(path)
                entries = [(listed, PurePosixPath(listed.path).name) for listed in listing]
                self._in_folder(names, [(listed, name) for listed, name in entries if listed.state != "folder"])
                waiting += reversed([(listed.path, [*names, name]) for listed, name in entries if listed.state == "folder"])

    def _in_folder(self, names: list[str], entries: list[tuple[Listed, str]]) -> None:
        """Files into the folder that `names` lead to, which is made if it is not there."""
        from sdfs.errors import UserError
        from sdfs.system.no_follow import open_folder

        try:
            folder = open_folder(self._folder, names, on_missing=lambda name, depth: os.mkdir(name))
        except OSError as error:
            raise UserError(f"{self._shown(names)} cannot be made: {error.strerror}") from error
        try:
            for listed, name in entries:
                with self._complaints.of_one_file():
                    self._file(listed, folder, name, self._shown([*names, name]))
        finally:
            os.close(folder)

    def _shown(self, names: list[str]) -> str:
        return "/".join((self._top.rstrip("/"), *names))

    def _file(self, listed: Listed, folder: int, name: str, target: str) -> None:
        from sdfs.cli.output import about
        from sdfs.errors import SdfsError, UserError
        from sdfs.system.files import rename_noreplace
        from sdfs.system.no_follow import name_in

        if listed.state in ("symlink", "special"):
            self._complaints.add(f"{listed.path} is left out: it is no regular file")
            return
        made = name_in(folder, f".sdfs-{os.getpid()}.part")  # short: the target's own name may be as long as names can be
        try:
            if os.path.lexists(name_in(folder, name)):
                raise UserError(f"{target} exists already")
            with about(listed.path), open(made, "xb") as file:
                self._access.read_to(listed.path, file, self._model)
            os.utime(made, ns=(listed.mtime_ns, listed.mtime_ns))
            rename_noreplace(made, name_in(folder, name))
        except SdfsError as error:
            self._complaints.add(error)
        except FileExistsError:
            raise UserError(f"{target} exists already") from None
        except OSError as error:
            raise UserError(f"{target}: {error.strerror}") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made)
