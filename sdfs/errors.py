"""Every error SDFS raises on purpose.

The tree:

    SdfsError
    ├── UserError            a mistake or a condition the user can mend: one line on stderr, no traceback
    │   ├── NotAStore        the folder is no SDFS store
    │   ├── StoreBusy        another process owns the store
    │   ├── StoreFull        the store's disk has no room, or the user's quota
    │   ├── NameTaken        there is a file of that name
    │   ├── SourceChanged    a file changes while it is copied into the store
    │   ├── StoreTooNew      the store or a blob was made by a newer SDFS, or needs a feature this one lacks
    │   ├── ModelError       an autoencoder that cannot be used
    │   │   └── ModelMissing one that is not on this machine
    │   └── MountError       the mount could not be made or undone
    ├── PictureError         said of one picture while it is judged
    │   ├── NotAPicture      the bytes are no complete, decodable picture: the file stays as it is
    │   ├── Unsuitable       a picture that latents would harm or cannot hold: it is wrapped exactly
    │   ├── DoesNotFit       its render would not fit into the size it has to keep
    │   └── KnownRender      the bytes carry the marker of a blob: encode them with that blob at hand
    ├── DamagedError         stored data fails its checksums or its rules: EIO for that file
    └── EngineError          the engine process failed or is not to be had: EIO until it is back

`pack` and `parse` are the one way in which an error crosses a pipe: from the engine, from an owner to its clients, from a mount in the
background.
"""

from __future__ import annotations

MAX_MESSAGE = 4000  # characters that cross a pipe: however they are escaped, they stay far below its bounds


class SdfsError(Exception):
    """Root of all errors raised on purpose."""


class UserError(SdfsError):
    """A condition the user can mend; the message names what and how."""


class NotAStore(UserError):
    """The folder is no SDFS store."""


class StoreBusy(UserError):
    """Another process owns the store."""


class StoreFull(UserError):
    """The store's disk has no room, or the user's quota."""


class NameTaken(UserError):
    """There is a file of that name."""


class SourceChanged(UserError):
    """A file changes while it is copied into the store."""


class StoreTooNew(UserError):
    """Made by a newer SDFS, or needs a feature this one lacks; the message says want and have."""


class ModelError(UserError):
    """An autoencoder that cannot be used, and why."""


class ModelMissing(ModelError):
    """It is not on this machine: the message names the command that gets it."""


class MountError(UserError):
    """The mount could not be made or undone."""


class PictureError(SdfsError):
    """Said of one picture while it is judged."""


class NotAPicture(PictureError):
    """No complete, decodable picture: the file stays as it is."""


class Unsuitable(PictureError):
    """A picture that latents would harm or cannot hold: it is wrapped exactly. The message is the reason."""


class DoesNotFit(PictureError):
    """No render fits into the size it has to keep."""


class KnownRender(PictureError):
    """The bytes are a render, or one that was edited: the message is the id of its blob, which `encode` wants to see."""


class DamagedError(SdfsError):
    """Stored data fails its checksums or its rules."""


class EngineError(SdfsError):
    """The engine process failed or is not to be had."""


_KINDS = {name: kind for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, SdfsError)}


def pack(error: SdfsError) -> tuple[str, str]:
    """Pack an error as the name of its class, and its message."""
    return type(error).__name__, str(error)[:MAX_MESSAGE]


def parse(packed: object, *, unknown: type[SdfsError]) -> SdfsError:
    """Parse what `pack` made; a class that is none of ours becomes `unknown`. Raises ValueError where it is no such pair."""
    match packed:
        case [str(name), str(message)]:
            return _KINDS.get(name, unknown)(message)
    raise ValueError("no class and message of an error")
