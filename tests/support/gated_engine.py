"""An engine that a test holds up, and has fail."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from sdfs.settings import EncodeSettings
from tests.support.lossless_engine import LosslessEngine


class GatedEngine(LosslessEngine):
    """Encodes and decodes only what the test lets through, and counts."""

    def __init__(self) -> None:
        self.encoding, self.may_encode = threading.Event(), threading.Event()
        self.may_encode.set()
        self.failures: list[Exception] = []  # of the next encodes
        self.encodes = self.decodes = self.warmed = 0

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> Future[bytes]:
        self.encodes += 1
        self.encoding.set()
        assert self.may_encode.wait(10)
        if self.failures:
            future: Future[bytes] = Future()
            future.set_exception(self.failures.pop())
            return future
        return super().encode(data, settings)

    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]:
        self.decodes += 1
        return super().decode(key, blob)

    def warm(self) -> None:
        self.warmed += 1
