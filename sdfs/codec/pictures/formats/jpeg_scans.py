"""Pixels ↔ the scans of a JPEG: libjpeg's work. Source: ITU-T T.81; for YCbCr, T.871.

What Pillow cannot write, components that are sampled in any other way than 4:4:4, 4:2:2 and 4:2:0, is written as a scan for each: a grey
picture's scan is just that (T.81, A.2.2).
"""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image

from sdfs.codec.pictures.formats.jpeg_segments import DHT, SOS, Frame, Segment, segments_from
from sdfs.codec.pictures.formats.shared import Pixels, check_decoded, decoding
from sdfs.errors import NotAPicture, Unsuitable

_INTERLEAVED = {((1, 1),) * 3: "4:4:4", ((2, 1), (1, 1), (1, 1)): "4:2:2", ((2, 2), (1, 1), (1, 1)): "4:2:0"}  # as Pillow calls them
_CHECKED = frozenset({(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)})  # of luma, chroma being (1, 1): what libjpeg-turbo's own API decodes


def decode(coded: bytes, frame: Frame) -> Pixels:
    """SOI … EOI to (H, W, 3) RGB or (H, W) grey. Raises NotAPicture."""
    with decoding("the JPEG"):
        pixels = imagecodecs.jpeg8_decode(coded)
    return check_decoded(pixels, frame.height, frame.width, len(frame.components))


def check_whole(coded: bytes, frame: Frame) -> None:
    """Raise NotAPicture where scans are damaged, Unsuitable where nobody can say.

    libjpeg conceals damage, and warns. libjxl, which has to reproduce every bit, refuses it; but it refuses structures, too, that are
    legal and rare. So a JPEG is whole if either has nothing against it.
    """
    try:
        imagecodecs.jpegxl_encode_jpeg(coded)
    except (imagecodecs.JpegxlError, ValueError):
        luma, *chroma = ((component.horizontal, component.vertical) for component in frame.components)
        if chroma and (luma not in _CHECKED or set(chroma) != {(1, 1)}):
            raise Unsuitable("a JPEG of rare sampling factors, which can be decoded, but not checked for damage") from None
        try:
            simplejpeg.decode_jpeg(coded, "GRAY", fastdct=True, fastupsample=True, strict=True)
        except ValueError as warning:
            raise NotAPicture(f"the JPEG does not decode cleanly: {str(warning).strip()}") from None


def encode(pixels: Pixels, frame: Frame, tables: list[list[int]], *, optimise: bool) -> bytes:
    """Code pixels as components of a frame: DHT, SOS, … up to EOI, which is not there.

    `tables`: the quantisation steps of each component, in raster order. Raises OSError where optimised scans do not fit into the 2 bytes
    a pixel that Pillow allots them.
    """
    options: dict[str, Any] = {"optimize": optimise, "progressive": frame.progressive}
    ids = [component.id for component in frame.components]
    factors = tuple((component.horizontal, component.vertical) for component in frame.components)
    if len(ids) == 1:
        return _scans(pixels, [tables[0]], ids, **options)
    if factors in _INTERLEAVED:
        while len(tables) > 1 and tables[-1] == tables[-2]:
            tables = tables[:-1]  # Pillow gives the last one to all components that are left
        return _scans(pixels, tables, ids, subsampling=_INTERLEAVED[factors], **options)
    components = np.moveaxis(np.asarray(Image.fromarray(pixels).convert("YCbCr")), 2, 0)
    planes = (_smaller(plane, *by) for plane, by in zip(components, frame.sampling, strict=True))
    return b"".join(_scans(plane, [table], [id_], **options) for plane, table, id_ in zip(planes, tables, ids, strict=True))


def _scans(pixels: Pixels, tables: list[list[int]], ids: list[int], **options: Any) -> bytes:
    """The tables and scans of what Pillow writes, for components of these ids."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", qtables=tables, **options)
    found = (segment for segment in segments_from(buffer.getvalue(), 2) if segment.marker in (DHT, SOS))
    return b"".join(_named(segment, ids) if segment.marker == SOS else segment.content for segment in found)


def _named(scan: Segment, ids: list[int]) -> bytes:
    """A scan whose components, 1, 2, … to libjpeg, have these ids."""
    content = bytearray(scan.content)
    for at in range(5, 5 + 2 * content[4], 2):
        content[at] = ids[content[at] - 1]
    return bytes(content)


def _smaller(plane: Pixels, horizontal: int, vertical: int) -> Pixels:
    """Means of so many pixels; at the right and lower edge the last ones are repeated."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % vertical), (0, -width % horizontal)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // vertical, vertical, padded.shape[1] // horizontal, horizontal)
    return np.rint(blocks.mean((1, 3), dtype=np.float32)).astype(np.uint8)
