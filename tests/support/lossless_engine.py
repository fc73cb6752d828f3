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
from sdfs.blob.container import KIND_LZ4, KIND_RAW
from sdfs.blob.signatures import picture_format
from sdfs.engine.interface import EngineStats
from sdfs.errors import NotAPicture, SdfsError
from sdfs.settings import EncodeSettings

PICTURE = b"\xff\xd8\xff" + b"picture " * 1000 + b"END"


class LosslessEngine:
    """A picture is whole if it ends with b"END"."""

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> Future[bytes]:
        future: Future[bytes] = Future()
        try:
            future.set_result(_encode(data))
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


def _encode(data: bytes) -> bytes:
    if not data.endswith(b"END"):
        raise NotAPicture("it has no end")
    digest = hashlib.sha256(data).hexdigest()
    header = {
        "format": picture_format(data[:16]),
        "width": 4,
        "height": 3,
        "original_size": len(data),
        "original_sha256": digest,
        "reason": "tests keep every picture",
    }
    return container.pack(KIND_LZ4, len(data), header, {"file": lz4.frame.compress(data)})


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
