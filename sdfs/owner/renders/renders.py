"""From a blob to what a reader gets: the engine behind the caches, and the checks on what it returns; or the payload of a raw blob.

`canonical`: the last render of a blob equalled the hash that its header records. Only then may the kernel keep pages of it over a
close, for only then is a later render known to be the same; should it differ all the same, who opened the file before is refused
(`sdfs.owner.tree.handle`), rather than given it mixed with pages that the kernel still has.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from typing import Any, Protocol

from sdfs.blob.container import KIND_LATENT, KIND_RAW, Preamble
from sdfs.blob.file import BlobFile
from sdfs.engine.interface import Engine
from sdfs.errors import DamagedError, SdfsError
from sdfs.owner.renders.cache import RenderCache
from sdfs.owner.renders.disk_cache import DiskCache
from sdfs.owner.renders.meters import Meters
from sdfs.owner.renders.raw_blobs import Checked
from sdfs.owner.store.store import Store

REMEMBERED = 1 << 16
_log = logging.getLogger(__name__)


class Readable(Protocol):
    """What a reader of a blob gets."""

    def read(self, size: int, offset: int) -> bytes: ...
    def copy_to(self, store: Store, target: int) -> None:
        """`target`: an empty file of the store."""


@dataclass(frozen=True)
class Render:
    data: bytes

    def read(self, size: int, offset: int) -> bytes:
        return self.data[offset : offset + size]

    def copy_to(self, store: Store, target: int) -> None:
        store.write(target, self.data)


class Renders:
    """Thread-safe; holds no lock while the engine works."""

    def __init__(self, engine: Engine, cache: RenderCache, disk: DiskCache | None = None) -> None:
        """`disk`: the second tier of the cache, which whoever made this closes."""
        self.cache = cache
        self.disk = disk
        self.meters = Meters()
        self._engine = engine
        self._checked = Checked()
        self._canonical: set[str] = set()
        self._failed: set[str] = set()

    def warm(self) -> None:
        """Have the model loaded, without waiting for it."""
        self._engine.warm()

    def is_canonical(self, key: str) -> bool:
        return key in self._canonical

    def get(self, blob: BlobFile, path: str | None) -> Readable:
        """Raises OSError, DamagedError, StoreTooNew, EngineError; the first failure of a blob is logged under `path`."""
        is_raw = blob.preamble.kind == KIND_RAW
        try:
            content = self._checked.check(blob.fd, *blob.raw_payload()) if is_raw else self._render(blob)
        except SdfsError as error:
            self.report(blob.key, path, error)
            raise
        self._failed.discard(blob.key)
        return content

    def get_ahead(self, blob: BlobFile) -> None:
        """Have a render in the cache before a reader asks for it. Not of a raw blob. Raises as `get` does."""
        if blob.key not in self.cache:
            self.cache.get(blob.key, lambda: self._load(blob, ahead=True)[0])

    def _render(self, blob: BlobFile) -> Render:
        key = blob.key
        began_at, decoded = time.perf_counter(), key not in self.cache

        def load() -> bytes:
            nonlocal decoded
            render, decoded = self._load(blob)
            return render

        render = self.cache.get(key, load, on_wait=lambda: self._engine.hurry(key))
        (self.meters.decoded_reads if decoded else self.meters.cached_reads).add(time.perf_counter() - began_at)
        return Render(render)

    def _load(self, blob: BlobFile, *, ahead: bool = False) -> tuple[bytes, bool]:
        """The render, and whether it had to be decoded."""
        content = blob.read()
        kept = self._from_disk(blob, content)
        return (self._decode(blob, content, ahead=ahead), True) if kept is None else (kept, False)

    def report(self, key: str, path: str | None, error: SdfsError) -> None:
        """Log that a file cannot be read: once, until it can."""
        if key not in self._failed and len(self._failed) < REMEMBERED:
            self._failed.add(key)
            _log.error("%s cannot be read: %s", path, error)

    def _decode(self, blob: BlobFile, content: bytes, *, ahead: bool = False) -> bytes:
        key, preamble, header = blob.key, blob.preamble, blob.header
        with self.meters.decodes.timing(_pixels(header), ahead=ahead):
            answer = self._engine.decode(key, content, ahead=ahead)
            if ahead and self.cache.is_awaited(key):  # by a reader who came before the engine knew the key
                self._engine.hurry(key)
            render = answer.result()
        if len(render) != preamble.rendered_size:
            raise DamagedError(f"render: want {preamble.rendered_size} bytes, have {len(render)}")
        if _is_recorded(render, preamble, header):
            self._note_canonical(key)
        elif preamble.kind != KIND_LATENT:
            raise DamagedError(f"content hash: want {header.get('original_sha256')}, have {hashlib.sha256(render).hexdigest()}")
        else:
            self._canonical.discard(key)
        if self.disk is not None:
            self.disk.put(_name(content), render)
        return render

    def _from_disk(self, blob: BlobFile, content: bytes) -> bytes | None:
        """Not one that differs from a canonical render, of which the kernel may still have pages."""
        key, preamble = blob.key, blob.preamble
        render = None if self.disk is None else self.disk.get(_name(content), preamble.rendered_size)
        if render is None:
            return None
        if _is_recorded(render, preamble, blob.header):
            self._note_canonical(key)
            return render
        return render if preamble.kind == KIND_LATENT and key not in self._canonical else None

    def _note_canonical(self, key: str) -> None:
        if len(self._canonical) < REMEMBERED:  # what is forgotten would be refused
            self._canonical.add(key)


def _name(content: bytes) -> str:
    """Of a blob's render in a folder that several owners share: by all its bytes, for its checksums keep nobody from making another one."""
    return hashlib.sha256(content).hexdigest()[:32]


def _is_recorded(render: bytes, preamble: Preamble, header: dict[str, Any]) -> bool:
    """Whether it has the hash, or begins with the part of it, that the header has."""
    recorded = header.get("render" if preamble.kind == KIND_LATENT else "original_sha256")
    return hashlib.sha256(render).hexdigest().startswith(str(recorded))


def _pixels(header: dict[str, Any]) -> int:
    width, height = header.get("width"), header.get("height")
    return width * height if isinstance(width, int) and isinstance(height, int) else 0
