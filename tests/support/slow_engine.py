"""A lossless engine that takes its time, for mount tests of those who wait.

Run as `python slow_engine.py SECONDS STORE MOUNTPOINT [OPTIONS]` it mounts a store with itself, in the foreground. It decodes four pictures
at once, each in so many seconds, and not before the file `held` beside the store is gone. Each adds a line to the file `decodes` beside
the store as it begins.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from sdfs.mount.mounting import run
from sdfs.owner.owner import Owner
from tests.support.lossless_engine import LosslessEngine


class SlowEngine(LosslessEngine):
    def __init__(self, seconds: float, folder: Path) -> None:
        self._seconds = seconds
        self._held = folder / "held"
        self._decodes = folder / "decodes"
        self._threads = ThreadPoolExecutor(4)
        self._closed = False

    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]:
        return self._threads.submit(self._decode, key, blob)

    def _decode(self, key: str, blob: bytes) -> bytes:
        with self._decodes.open("a") as file:
            file.write(f"{key}\n")
        time.sleep(self._seconds)
        while self._held.exists() and not self._closed:
            time.sleep(0.01)
        return super().decode(key, blob).result()

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(cancel_futures=True)


if __name__ == "__main__":
    seconds, store, mountpoint, *options = sys.argv[1:]
    engine = partial(SlowEngine, float(seconds), Path(store).parent)
    run(Path(store), Path(mountpoint), foreground=True, options="".join(options), become_owner=partial(Owner, engine=engine))
