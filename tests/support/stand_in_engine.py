"""An engine process whose codec does what its input says: run by test_engine.py as `python stand_in_engine.py FD`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from sdfs import errors
from sdfs.engine.service import prefer_for_oom, serve
from sdfs.settings import EncodeSettings


class Obedient:
    """Input: words, space-separated. Output: the input in capitals, after the words were obeyed.

    log FILE NAME: append NAME and a newline to FILE; sleep SECONDS; wait FILE: until it exists; die; die-once FILE: unless it exists,
    create it and die; raise CLASS; zero-divide; score: answer with the process's oom_score_adj; session: with its session id;
    nice: with the niceness of the thread.
    """

    def figures(self) -> dict[str, Any]:
        return {"device": "a stand-in", "dtype": "words", "device_bytes": 7}

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> bytes:
        return self.decode(data) + f" AT {settings}".encode()

    def convert(self, data: bytes, settings: EncodeSettings) -> bytes:
        return b"CONVERTED " + self.encode(data, settings)

    def check(self, data: bytes) -> None:
        self.decode(data)

    def decode(self, blob: bytes, *, model: str | None = None) -> bytes:
        words = iter(blob.decode().split())
        for word in words:
            if word == "log":
                with Path(next(words)).open("a") as file:
                    file.write(next(words) + "\n")
            elif word == "sleep":
                time.sleep(float(next(words)))
            elif word == "wait":
                path = Path(next(words))
                while not path.exists():
                    time.sleep(0.005)
            elif word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif word == "die-once":
                path = Path(next(words))
                if not path.exists():
                    path.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            elif word == "raise":
                raise getattr(errors, next(words))("as told")
            elif word == "zero-divide":
                _ = 1 // 0
            elif word == "score":
                return Path("/proc/self/oom_score_adj").read_bytes().strip()
            elif word == "session":
                return str(os.getsid(0)).encode()
            elif word == "nice":
                return str(os.nice(0)).encode()
        return blob.upper()


if __name__ == "__main__":
    sock = socket.socket(fileno=int(sys.argv[1]))
    prefer_for_oom()
    serve(sock, Obedient())
    os._exit(0)
