"""File bytes ↔ pixels + metadata: probing, rendering at an exact size, and exact wrapping of what is not rendered.

With its formats/ the only user of Pillow and imagecodecs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lz4.frame
import numpy as np
import numpy.typing as npt

from sdfs.container import KIND_JXL, KIND_LZ4, KIND_RAW
from sdfs.errors import DamagedError, NotAPicture
from sdfs.formats import bmp, jpeg, jpegxl, png, tiff, webp
from sdfs.formats.shared import MAX_MARKER_BYTES, MAX_PIXELS, Format
from sdfs.signatures import HEAD_BYTES, picture_format

__all__ = ["MAX_PIXELS", "Picture", "find_marker", "pixels_of_render", "probe", "render", "unwrap_exact", "wrap_exact"]

_FORMATS: dict[str, Format] = {"jpeg": jpeg, "png": png, "webp": webp, "bmp": bmp, "tiff": tiff}


@dataclass(frozen=True)
class Picture:
    """A picture file taken apart: pixels to be replaced, and all that a render takes from the file."""

    format: str  # 'jpeg' | 'png' | 'webp' | 'bmp' | 'tiff'
    pixels: npt.NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W) grey; as coded: neither rotated nor colour-managed
    recipe: dict[str, Any]  # JSON-able: how to render
    metadata: bytes  # everything of the file that is not pixels


def probe(data: bytes) -> Picture:
    """Take a picture file apart.

    Raises NotAPicture (no complete, decodable picture) and Unsuitable (the structure of a picture is whole, but not of the
    kind that a render can stand for), nothing else, whatever `data` is.
    """
    name = picture_format(data[:HEAD_BYTES])
    if name is None:
        raise NotAPicture("it begins like no JPEG, PNG, WebP, BMP or TIFF")
    return Picture(name, *_FORMATS[name].read(data))


def render(picture: Picture, size: int | None, marker: bytes) -> bytes:
    """The picture file again, from `picture.pixels`: exactly `size` bytes, or DoesNotFit; with None the format's natural size.

    `marker`, at most 64 bytes, is embedded where the format has room for it: see `find_marker`.
    """
    if len(marker) > MAX_MARKER_BYTES:
        raise ValueError(f"a marker of {len(marker)} bytes: at most {MAX_MARKER_BYTES}")
    return _FORMATS[picture.format].write(picture.pixels, picture.recipe, picture.metadata, size, marker)


def pixels_of_render(data: bytes) -> npt.NDArray[np.uint8]:
    """What a reader sees of what `render` made."""
    return jpeg.pixels_of_render(data) if picture_format(data[:HEAD_BYTES]) == "jpeg" else probe(data).pixels


def find_marker(data: bytes) -> bytes | None:
    """The marker of the render that `data` is or derives from, if it carries one."""
    name = picture_format(data[:HEAD_BYTES])
    return _FORMATS[name].find_marker(data) if name is not None else None


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
