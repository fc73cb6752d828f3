"""Runs commands of `sdfs`, each in a fork of this process, which has everything imported: in milliseconds, and as any user.

Reads a line of JSON a command: {"arguments": [...], "user": uid, "environment": {...}, "folder": where it runs}; answers with one:
{"status": exit status, or null where it had to be killed, "stderr": ..., "seconds": ...}. A user who may not read this program's files can
run it all the same.

With the engine of `tests.support.lossless_engine`, which here takes any picture for whole, and decodes latents to zeros.
"""

from __future__ import annotations

import codecs
import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import sdfs
from sdfs.blob.container import KIND_LATENT, Preamble
from sdfs.engine import client
from sdfs.errors import DamagedError
from sdfs.owner import access, owner
from sdfs.owner.store.store import init
from tests.support.lossless_engine import LosslessEngine

MOST_BYTES = 1 << 24
SECONDS = 30.0  # after which a command hangs
_USED = ("sdfs.cli", "sdfs.owner.tree", "sdfs.control", "sdfs.owner.store.fsck", "sdfs.models", "sdfs.mount.mounting", "sdfs.system.escape")


class Engine(LosslessEngine):
    def encode(self, data: bytes, settings: Any, *, reference: bytes | None = None) -> Future[bytes]:
        return super().encode(data + b"END", settings, reference=reference)

    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]:
        future: Future[bytes] = Future()
        if (preamble := Preamble.parse(blob)).rendered_size > MOST_BYTES:
            future.set_exception(DamagedError("this engine makes no pictures of that size"))
        elif preamble.kind != KIND_LATENT:
            return super().decode(key, blob, model=model, ahead=ahead)
        else:
            future.set_result(bytes(preamble.rendered_size))
        return future


def main() -> None:
    owner.ChildEngine = client.Engine = lambda memory=None: Engine()  # type: ignore[assignment, misc]
    access._HANDOVER_SECONDS = 0.5  # no test has an owner that is about to answer
    for module in pkgutil.walk_packages(sdfs.__path__, "sdfs."):
        if module.name.startswith(_USED):
            importlib.import_module(module.name)
    for late in ("unicode_escape", "utf-16", "idna", "latin-1"):
        codecs.lookup(late)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        init(store)
        for command in (["ls", "-l", str(store)], ["sync", str(store)], ["fsck", str(store)], ["nonsense"]):
            run({"arguments": command, "user": os.geteuid(), "environment": {}, "folder": folder}, in_this_process=True)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


def run(asked: dict[str, Any], *, in_this_process: bool = False) -> dict[str, Any]:
    with tempfile.TemporaryFile() as told:
        began_at = time.monotonic()
        if in_this_process:
            kept = [os.dup(number) for number in (1, 2)]
            for number in (1, 2):
                os.dup2(told.fileno(), number)
            status: int | None = _command(asked["arguments"])
            for number, fd in zip((1, 2), kept, strict=True):
                os.dup2(fd, number)
        else:
            if (child := os.fork()) == 0:
                _become(asked, told.fileno())
                os._exit(_command(asked["arguments"]))
            status = _wait(child, began_at + SECONDS)
        told.seek(0)
        return {"status": status, "stderr": told.read().decode(errors="replace"), "seconds": time.monotonic() - began_at}


def _become(asked: dict[str, Any], told: int) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nothing, 0), (nothing, 1), (told, 2)):
        os.dup2(source, target)
    os.environ.update(asked["environment"])
    if os.geteuid() != asked["user"]:
        os.setgroups([])
        os.setgid(asked["user"])
        os.setuid(asked["user"])
    os.chdir(asked["folder"])


def _command(arguments: list[str]) -> int:
    import traceback

    from sdfs.cli.app import app

    status = 0
    try:
        app(arguments, standalone_mode=True)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _wait(child: int, end: float) -> int | None:
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    main()
