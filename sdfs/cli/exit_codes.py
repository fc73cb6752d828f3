"""Every exit status of `sdfs`. Numbers are for scripts: they never change their meaning."""

from __future__ import annotations

from sdfs.errors import DamagedError, EngineError, MountError, NotAStore, SdfsError, StoreBusy, StoreFull, StoreTooNew, UserError

OK = 0  # done
BUG = 1  # an unexpected error, with a traceback: please report it
USAGE = 2  # the command line is wrong
NOT_A_STORE = 3  # the folder is no store, and the file is in none
BUSY = 4  # another process owns the store
TOO_NEW = 5  # the store, or a blob in it, was made by a newer SDFS
MOUNT = 6  # it could not be mounted or unmounted
DAMAGED = 7  # stored data fails its checksums
ENGINE = 8  # the engine process failed or does not start
NOT_FOUND = 9  # a file or folder that was named does not exist
SYSTEM = 10  # the operating system refused: no permission, no space left …
REFUSED = 11  # a condition to mend, of no kind above; the message says which
INCOMPLETE = 12  # some of the files named could not be done; one line on stderr for each
INTERRUPTED = 130  # Ctrl-C
READER_GONE = 141  # whoever read the output stopped doing so

# The first class that fits decides.
_OF_ERRORS: tuple[tuple[type[Exception], int], ...] = (
    (NotAStore, NOT_A_STORE),
    (StoreBusy, BUSY),
    (StoreTooNew, TOO_NEW),
    (StoreFull, SYSTEM),
    (MountError, MOUNT),
    (UserError, REFUSED),
    (DamagedError, DAMAGED),
    (EngineError, ENGINE),
    (SdfsError, BUG),
    (FileNotFoundError, NOT_FOUND),
    (OSError, SYSTEM),
)


def of(error: Exception) -> int:
    """The exit status that `error` ends the program with."""
    return next((code for class_, code in _OF_ERRORS if isinstance(error, class_)), BUG)
