"""The daemon with an engine that keeps every picture losslessly: `python lossless_daemon.py CONFIG [SECONDS A PICTURE]`."""

from __future__ import annotations

import logging
import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from daemon import folder, service
from daemon.config import load
from daemon.folder import FolderWatch
from daemon.session import Session
from sdfs.owner.access import open_access
from sdfs.owner.owner import Owner
from sdfs.settings import EncodeSettings
from tests.support.lossless_engine import LosslessEngine


class SlowEngine(LosslessEngine):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._worker = ThreadPoolExecutor(1)

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> Future[bytes]:
        return self._worker.submit(self._encode, data, settings)

    def _encode(self, data: bytes, settings: EncodeSettings) -> bytes:
        time.sleep(self._seconds)
        return super().encode(data, settings).result()

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)


if __name__ == "__main__":
    folder.PAUSE_SECONDS = float(os.environ.get("SDFS_TEST_PAUSE", folder.PAUSE_SECONDS))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    engine = partial(SlowEngine, float(sys.argv[2])) if len(sys.argv) > 2 else LosslessEngine
    session = partial(Session, open_store=partial(open_access, become_owner=partial(Owner, engine=engine)))
    service.Service(lambda: load(Path(sys.argv[1])), watch=partial(FolderWatch, session=session)).run()
