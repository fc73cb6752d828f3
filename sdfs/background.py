"""A service in a process of its own, without a terminal; and where the log goes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from sdfs import errors
from sdfs.errors import MountError, SdfsError
from sdfs.printable import printable

MAX_LOG_BYTES = 1 << 20
_log = logging.getLogger("sdfs.mount")

Serve = Callable[[Callable[[], None]], None]  # serves until it is ended; calls its argument once it is ready


def start(serve: Serve, what: str, log: Path) -> None:
    """Fork a process that serves and logs to the file `log`; returns once it is ready. Before any thread exists.

    Raises what `serve` raises before that, or MountError, which says `what` could not be mounted.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        if os.fork() == 0:  # no child of who asked, and no zombie at its end
            _run(serve, what, log, writing)
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        message = pipe.read()
    if not message:
        raise MountError(f"{what} could not be mounted: its process was killed")
    name, text = json.loads(message)
    if name:
        raise getattr(errors, name)(text)


def _run(serve: Serve, what: str, log: Path, pipe: int) -> NoReturn:
    """Tells through `pipe` how it went. Never returns into its parent's program."""
    told = False

    def tell(name: str, text: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(pipe, json.dumps([name, text]).encode())
            os.close(pipe)

    def ready() -> None:
        _leave_terminal(log)
        os.setsid()  # not before: an automounter lets processes of systemd's own group pass, and keeps all others waiting for the mount
        tell("", "")

    status = 1
    try:
        os.chdir("/")
        log_to_stderr()
        serve(ready)
        status = 0
    except SdfsError as error:
        _log.error("%s", error) if told else tell(type(error).__name__, str(error))
    except BaseException as error:
        _log.exception("the mount of %s failed", what)
        tell("MountError", f"{what} could not be mounted: {type(error).__name__}: {error}")
    finally:
        sys.stderr.flush()
        os._exit(status)


class _Formatter(logging.Formatter):
    """Names of files may have line ends, and commands to a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


def log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    logger = logging.getLogger("sdfs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _leave_terminal(path: Path) -> None:
    """Standard input from nowhere, output and errors (libfuse's, the engine's, and the log) to `path`."""
    log = _open_log(path)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)


def _open_log(path: Path) -> int:
    """Nowhere, where it cannot be written to: a read-only or full disk keeps nobody from mounting."""
    try:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > MAX_LOG_BYTES:
                path.rename(path.with_name(f"{path.name}.old"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        _log.warning("there will be no log: %s: %s", path, error.strerror)
        return os.open(os.devnull, os.O_WRONLY)
