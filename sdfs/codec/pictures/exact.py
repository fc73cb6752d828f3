"""Files that keep every bit: JPEG XL of a JPEG, an LZ4 frame, or the bytes as they are."""

from __future__ import annotations

import lz4.frame

from sdfs.blob.container import KIND_JXL, KIND_LZ4, KIND_RAW
from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.codec.pictures.formats import jpegxl
from sdfs.errors import DamagedError


def wrap_exact(data: bytes) -> tuple[int, bytes]:
    """(kind, payload) from which `unwrap_exact` makes `data` again: JPEG XL of a JPEG, else an LZ4 frame, raw where neither is smaller."""
    payload = jpegxl.transcode(data) if picture_format(data[:HEAD_BYTES]) == "jpeg" else None
    if payload is not None and len(payload) < len(data):
        return KIND_JXL, payload
    payload = lz4.frame.compress(data, content_checksum=True)
    return (KIND_LZ4, payload) if len(payload) < len(data) else (KIND_RAW, data)


def unwrap_exact(kind: int, payload: bytes, size: int) -> bytes:
    """The `size` bytes that were wrapped. Raises DamagedError; the result takes no more than `size` bytes, whatever the payload claims."""
    if kind == KIND_JXL:
        data = jpegxl.restore(payload, size)
    elif kind == KIND_LZ4:
        data = _decompress(payload, size)
    elif kind == KIND_RAW:
        data = payload
    else:
        raise DamagedError(f"kind {kind} is no exact kind")
    if len(data) != size:
        raise DamagedError(f"exact payload of kind {kind}: want {size} bytes, have {len(data)}")
    return data


def _decompress(payload: bytes, size: int) -> bytes:
    frame = lz4.frame.LZ4FrameDecompressor()
    try:
        data: bytes = frame.decompress(payload, max_length=size + 1)
    except RuntimeError as error:
        raise DamagedError(f"LZ4 frame: {error}") from error
    if not frame.eof or frame.unused_data:
        raise DamagedError(f"LZ4 frame: does not end after {size} bytes")
    return data
