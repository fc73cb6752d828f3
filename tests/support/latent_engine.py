"""An engine whose pictures become latents, without the codec; a test says what they are rendered as."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT
from sdfs.settings import EncodeSettings
from tests.support.lossless_engine import PICTURE, LosslessEngine

RENDERS = {letter: PICTURE.replace(b"picture", letter.encode() * 7) for letter in "AB"}


class LatentEngine(LosslessEngine):
    """Its pictures become latents, whose headers have the hash of `RENDERS["A"]`; it decodes them to `renders`."""

    def __init__(self) -> None:
        self.decodes = 0
        self.renders = "A"

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> Future[bytes]:
        header = {
            "render": hashlib.sha256(RENDERS["A"]).hexdigest()[:16],
            "original_sha256": hashlib.sha256(data).hexdigest(),
            "weights": "",
            "quality": 50,
            "latents_crc32": 0,
        }
        future: Future[bytes] = Future()
        future.set_result(container.pack(KIND_LATENT, len(data), header, {"file": b"latents"}))
        return future

    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]:
        self.decodes += 1
        future: Future[bytes] = Future()
        future.set_result(RENDERS[self.renders])
        return future
