"""One engine process and the owner's end of its socket."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}  # glibc keeps what each of many threads has freed for itself: half as much again of all memory
EXIT_SECONDS = 5.0  # what a child gets to end after its socket closed, before it is killed


class Child:
    def __init__(self, command: Sequence[str]) -> None:
        """`command` gets the number of its socket as the last argument. Raises OSError where it cannot be started."""
        self.ready = False
        self.retired = False  # told to go: its end is no failure
        self.begun: set[int] = set()  # ids of the requests it works on
        self.figures: Mapping[str, Any] = {}  # where its model is, as it said last
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what a library prints must not mix into the owner's data
                    pass_fds=[theirs.fileno()],
                    cwd="/",  # keep no folder busy
                    env={
                        **_ENVIRONMENT,
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                    },  # the owner's modules
                    start_new_session=True,  # a terminal's Ctrl-C is for the owner
                )
        except OSError:
            self.socket.close()
            raise

    def retire(self) -> None:
        """End it now; it has nothing to lose. Its listening thread reaps it."""
        self.retired = True
        self.process.kill()

    def reap(self) -> str:
        """Wait for the end, which follows from its closed socket, and enforce it if need be; says how it ended."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # frees a thread that sends to it
        self.socket.close()
        try:
            self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        code = self.process.returncode
        return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
