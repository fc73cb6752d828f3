"""Wrap user bytes as a raw blob."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib

from sdfs.blob import container
from sdfs.blob.container import KIND_RAW, MAX_RENDERED_BYTES
from sdfs.owner.store.store import Staged, Store

_CHUNK_BYTES = 1 << 20


def wrap(store: Store, source: int, reason: str, mode: int) -> Staged:
    """A raw blob around the content of an open file, which nobody changes meanwhile; in staging, without attributes, not durable.

    `mode`: for the preamble. Raises OSError; EFBIG where the file is larger than a blob can be.
    """
    size = os.fstat(source).st_size
    if size > MAX_RENDERED_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    sha256, crc = hashlib.sha256(), 0
    for offset in range(0, size, _CHUNK_BYTES):
        chunk = os.pread(source, _CHUNK_BYTES, offset)
        sha256.update(chunk)
        crc = zlib.crc32(chunk, crc)
    header = {
        "format": None,
        "width": None,
        "height": None,
        "original_size": size,
        "original_sha256": sha256.hexdigest(),
        "reason": reason,
    }
    head = container.pack_head(KIND_RAW, size, header, [("file", size, crc)], mode)
    staged = store.stage(head)
    try:
        store.copy(source, staged.fd, target_offset=len(head))
    except BaseException:
        staged.discard()
        raise
    return staged
