"""What may be asked of the owner of a store: the one table of which server, client and the access within the process are made.

The methods of `Access` are the requests; their parameters and results, with the types, are what travels. `REQUESTS` is read off them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Protocol, get_args, get_origin, get_type_hints

from sdfs.control.answers import FileStatus, Listed, Reason, Statistics, StoreStatus, Trashed, Usage, Wish
from sdfs.settings import Heic
from sdfs.system.no_follow import is_path

VERSION = 1  # of the protocol; another one whenever a program of the last one would misunderstand it
MAX_DATA_BYTES = 1 << 20  # of a file that follow one line
Progress = Callable[[int, int], None]  # told what is done, and of how many
TreePath = Annotated[str, is_path]


class Access(Protocol):
    """The owner's services. Paths are those of the mount, with or without a leading slash. All raise UserError and its kin."""

    def add(self, source: Path, destination: str, sha256: str | None = None, heic: Heic = "keep") -> TreePath:
        """Copy a file, with times and permissions, to the new name `destination`; returns where it is, durable and queued.

        `sha256`: what its content must hash to (hexadecimal); if the store has that already, as `find` knows, nothing is copied, and it
        returns where that is. `heic`: "jpeg" has a HEIC or AVIF picture made a JPEG, with .jpg for its extension, and shrunk at once; one
        of which a JPEG cannot hold all, or that would not be smaller then, is copied. Raises NameTaken, StoreFull, SourceChanged.
        """

    def sync(self, progress: Progress) -> None:
        """Wait until nothing is pending, files that somebody keeps open aside; `progress(done, total)` is told of every change."""

    def settle(self, path: str, seconds: float) -> FileStatus:
        """Wait until a file is not pending, or there is a reason why it stays so; at most so long. What it is then."""

    def find(self, sha256: str, size: int) -> FileStatus | None:
        """A file that holds, or as a whole blob stands for, a content of this hash (hexadecimal) and size, as far as the owner knows.

        It knows what it found when it looked through the store, for which this waits, and what was added and shrunk since.
        """

    def check(self, source: Path) -> str | None:
        """Why a file that begins like a picture is no whole one; None where it is, or does not begin like one."""

    def hand_over(self) -> None:
        """Have the owner close the store soon, so that somebody else can mount it. Raises StoreBusy where it cannot."""

    def status(self) -> StoreStatus: ...

    def statistics(self) -> Statistics:
        """Cheap: the files are counted now and then only, which it waits for the first time. Raises StoreBusy where the owner ends."""

    def stat(self, path: str) -> FileStatus: ...

    def list(self, path: str) -> Sequence[Listed]:
        """The entries of a folder by name, or the one file."""

    def read_to(self, path: str, file: BinaryIO, model: str | None = None) -> None:
        """Write what a reader gets to `file`; `model`: decoded by it instead of the one that made the latents."""

    def recompress(self, path: str, wish: Wish) -> FileStatus:
        """Make another blob of a shrunk picture; what it is then."""

    def usage(self, path: str) -> Usage:
        """The sums over a folder, or of one file."""

    def reasons(self, path: str) -> Sequence[Reason]:
        """What keeps files from being latents, in a folder and all below it, or of one file."""

    def trashed(self) -> Sequence[Trashed]:
        """What was replaced and is kept, the oldest first."""

    def restore(self, name: str, folder: str | None) -> TreePath:
        """Put what was trashed, a name in the trash or the newest of a path, back where it was, or into `folder`; returns its path."""

    def empty_trash(self) -> None: ...

    def shutdown(self) -> None:
        """Unmount the store, which ends its owner."""


@dataclass(frozen=True)
class Request:
    """One method of `Access`."""

    name: str
    signature: inspect.Signature  # `self` included
    arguments: Mapping[str, Any]  # what is sent: the type of each
    progress: str | None  # the parameter that is told of progress
    data: str | None  # the parameter that is the file to which data goes
    result: Any  # its type, or that of its entries
    in_parts: bool  # the result is a list, which travels a few entries at a time

    @staticmethod
    def of(method: Callable[..., Any]) -> Request:
        """Read a request off a method of `Access`."""
        hints = get_type_hints(method, include_extras=True)
        result = hints.pop("return")
        streams = {hint: name for name, hint in hints.items() if hint in (Progress, BinaryIO)}
        arguments = {name: hint for name, hint in hints.items() if name not in streams.values()}
        in_parts = get_origin(result) is Sequence
        return Request(
            method.__name__,
            inspect.signature(method),
            arguments,
            streams.get(Progress),
            streams.get(BinaryIO),
            get_args(result)[0] if in_parts else result,
            in_parts,
        )


REQUESTS: Mapping[str, Request] = {
    name: Request.of(method) for name, method in vars(Access).items() if inspect.isfunction(method) and not name.startswith("_")
}
