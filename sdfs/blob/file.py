"""A blob file that is open: what it says of itself, read when somebody asks. Everything may raise OSError, DamagedError and StoreTooNew."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from sdfs.blob import container
from sdfs.blob.container import PREAMBLE_BYTES, Preamble
from sdfs.system.files import opened, read_all


@dataclass(frozen=True)
class BlobFile:
    """Reads a blob through `fd`, which whoever opened it keeps open meanwhile. A blob's content never changes: its header is read once."""

    fd: int
    preamble: Preamble

    @staticmethod
    def of(fd: int) -> BlobFile | None:
        """Read the preamble of an open file; None: it is no blob."""
        head = os.pread(fd, PREAMBLE_BYTES, 0)
        return BlobFile(fd, Preamble.parse(head)) if container.is_blob(head) else None

    @staticmethod
    @contextlib.contextmanager
    def open(path: str) -> Iterator[BlobFile | None]:
        """Open `path` for as long as the context lasts; None: it is no blob."""
        with opened(path) as fd:
            yield BlobFile.of(fd)

    @property
    def header(self) -> dict[str, Any]:
        """Its checksum does not make its values what they should be: whoever made the blob may have written anything."""
        return self._header_and_key[0]

    @property
    def key(self) -> str:
        """Name the blob's content, but not its mode: 32 hex digits. The header has the checksums of the sections."""
        return self._header_and_key[1]

    @cached_property
    def _header_and_key(self) -> tuple[dict[str, Any], str]:
        encoded = os.pread(self.fd, self.preamble.header_length, PREAMBLE_BYTES)
        header = container.parse_header(self.preamble, encoded)
        named = b"%d %d " % (self.preamble.kind, self.preamble.rendered_size) + encoded
        return header, hashlib.sha256(named).hexdigest()[:32]

    def raw_payload(self) -> tuple[int, int]:
        """Tell where in a raw blob its file begins, and that file's CRC-32."""
        return container.raw_payload(self.preamble, self.header, os.fstat(self.fd).st_size)

    def check(self) -> None:
        """Read all of it, and compare it with its checksums."""
        container.check(partial(os.pread, self.fd), os.fstat(self.fd).st_size)

    def read(self) -> bytes:
        """Return the whole file."""
        return read_all(self.fd)
