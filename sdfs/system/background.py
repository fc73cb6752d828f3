"""A service in a process of its own, without a terminal."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from sdfs import errors
from sdfs.errors import MountError, SdfsError, UserError
from sdfs.system.logs import log_to_stderr

_log = logging.getLogger(__name__)

Serve = Callable[[Callable[[], None]], None]  # serves until it is ended; calls its argument once it is ready
OpenLog = Callable[[], int]  # raises OSError, UserError


def start(serve: Serve, what: str, open_log: OpenLog) -> None:
    """Fork a process that serves, and logs to what `open_log` opens; returns once it is ready. Before any thread exists.

    Raises what `serve` raises before that, or MountError, which says `what` could not be mounted.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        if os.fork() == 0:  # no child of who asked, and no zombie at its end
            _run(serve, what, open_log, writing)
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        message = pipe.read()
    if not message:
        raise MountError(f"{what} could not be mounted: its process was killed")
    name, text = json.loads(message)
    if name:
        raise errors.parse([name, text], unknown=MountError)


def _run(serve: Serve, what: str, open_log: OpenLog, pipe: int) -> NoReturn:
    """Tells through `pipe` how it went. Never returns into its parent's program."""
    told = False

    def tell(name: str, text: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(pipe, json.dumps([name, text]).encode())
            os.close(pipe)

    def ready() -> None:
        _leave_terminal(open_log)
        os.setsid()  # not before: an automounter lets processes of systemd's own group pass, and keeps all others waiting for the mount
        tell("", "")

    status = 1
    try:
        os.chdir("/")
        log_to_stderr("sdfs")
        serve(ready)
        status = 0
    except SdfsError as error:
        _log.error("%s", error) if told else tell(*errors.pack(error))
    except BaseException as error:
        if told or not isinstance(error, OSError):
            _log.exception("the mount of %s failed", what)
        tell("MountError", f"{what} could not be mounted: {error if isinstance(error, OSError) else f'{type(error).__name__}: {error}'}")
    finally:
        sys.stderr.flush()
        os._exit(status)


def _leave_terminal(open_log: OpenLog) -> None:
    """Standard input from nowhere, output and errors (libfuse's, the engine's, and the log) to the log.

    Or nowhere, where that cannot be written to: a read-only or full disk keeps nobody from mounting.
    """
    try:
        log = open_log()
    except (OSError, UserError) as error:
        _log.warning("there will be no log: %s", error)
        log = os.open(os.devnull, os.O_WRONLY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    log_to_stderr("sdfs")  # it was the journal, maybe
