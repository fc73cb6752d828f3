"""Errors on their way through the socket: as the names of their classes, and their messages."""

from __future__ import annotations

from sdfs.errors import (
    DamagedError,
    EngineError,
    ModelError,
    ModelMissing,
    NameTaken,
    SdfsError,
    SourceChanged,
    StoreBusy,
    StoreFull,
    StoreTooNew,
    UserError,
)

# The first class that fits decides.
_KINDS = (DamagedError, EngineError, ModelMissing, ModelError, NameTaken, SourceChanged, StoreBusy, StoreFull, StoreTooNew, UserError)
MAX_LINE_BYTES = 1 << 23  # of an answer
MAX_DATA_BYTES = 1 << 20  # that follow one line
PART_ENTRIES = 100  # of a list in one line
_ERRORS: dict[str, type[SdfsError]] = {kind.__name__: kind for kind in _KINDS}


def pack_error(error: SdfsError) -> tuple[str, str]:
    return next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), UserError.__name__), str(error)


def parse_error(name: str, message: str) -> SdfsError:
    return _ERRORS.get(name, UserError)(message)
