"""An engine for mount tests that need pictures to be swapped, but not the codec: it keeps every picture as an LZ4 blob.

Run as `python lossless_engine.py STORE MOUNTPOINT [OPTIONS]` it mounts a store with itself, in the foreground.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import lz4.frame

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, KIND_LZ4, KIND_RAW
from sdfs.blob.signatures import picture_format
from sdfs.engine.interface import EngineStats
from sdfs.errors import NotAPicture, SdfsError
from sdfs.settings import EncodeSettings

PICTURE = b"\xff\xd8\xff" + b"picture " * 1000 + b"END"


HEIC = b"\0\0\0\x18ftypheic" + PICTURE
DEEP_HEIC = HEIC.replace(b"picture", b"10 bits")
JPEG_OF_HEIC = b"\xff\xd8\xff" + HEIC


class LosslessEngine:
    """A picture is whole if it ends with b"END". A HEIC cannot be a JPEG if it has 10 bits; else its "latents" are the JPEG."""

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> Future[bytes]:
        return self._answer(data, data)

    def check(self, data: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        if data.endswith(b"END"):
            future.set_result(b"")
        else:
            future.set_exception(NotAPicture("it has no end"))
        return future

    def convert(self, data: bytes, settings: EncodeSettings) -> Future[bytes]:
        return self._answer(data, data if b"10 bits" in data else b"\xff\xd8\xff" + data)

    def _answer(self, original: bytes, render: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        try:
            future.set_result(_encode(original, render))
        except SdfsError as error:
            future.set_exception(error)
        return future

    def decode(self, key: str, blob: bytes, *, model: str | None = None, ahead: bool = False) -> Future[bytes]:
        future: Future[bytes] = Future()
        try:
            parsed = container.parse(blob)
            content = parsed.sections["file"]
            future.set_result(content if parsed.preamble.kind == KIND_RAW else lz4.frame.decompress(content))
        except SdfsError as error:
            future.set_exception(error)
        return future

    def hurry(self, key: str) -> None:
        pass

    def warm(self) -> None:
        pass

    def stats(self) -> EngineStats:
        return EngineStats("unloaded", None, 0, 0, 0, "a stand-in", "bytes", 0)

    def close(self) -> None:
        pass


def _encode(original: bytes, render: bytes) -> bytes:
    if not original.endswith(b"END"):
        raise NotAPicture("it has no end")
    header = {
        "format": picture_format(render[:16]),
        "width": 4,
        "height": 3,
        "original_size": len(original),
        "original_sha256": hashlib.sha256(original).hexdigest(),
        "reason": "tests keep every picture",
    }
    if render is original:
        return container.pack(KIND_LZ4, len(render), header, {"file": lz4.frame.compress(render)})
    header |= {"render": hashlib.sha256(render).hexdigest()[:16], "weights": "", "quality": 50, "latents_crc32": 0}
    return container.pack(KIND_LATENT, len(render), header, {"file": lz4.frame.compress(render)})


if __name__ == "__main__":
    from sdfs.mount.mounting import run
    from sdfs.owner.owner import Owner

    run(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        foreground=True,
        options="".join(sys.argv[3:]),
        become_owner=partial(Owner, engine=LosslessEngine),
    )
