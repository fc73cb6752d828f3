"""JPEG: Huffman-coded, sequential or progressive, 8 bits, grey or YCbCr. Source: ITU-T T.81.

A file is split into its head, all that comes before the first scan; descriptive segments (APPn, COM) behind it; the scans, which a render
replaces; and whatever lies behind the picture. A render is

    the head, padding (APP2 segments), DHT, SOS, … as libjpeg writes them, the other segments, EOI, what lay behind the picture

So every segment of the head stands where it stood, and offsets from there (of maker notes, of MPF) still lead where they led. Huffman
tables and restart intervals of the head go, because the scans have others: where another segment follows, fill bytes take their place.

The padding is in APP2 segments of our own, beside those of ICC profiles and MPF, and not in comments: of several comments some programs
show the first and some the last (exiftool, Exiv2; Pillow, ImageMagick), and who edits them removes them all. What is in APP2, editors of
metadata keep, and programs that make another picture do not take along.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from sdfs.codec.pictures.formats import jpeg_scans
from sdfs.codec.pictures.formats.jpeg_segments import (
    APP2,
    APP11,
    APP14,
    CODING,
    DHT,
    DQT,
    DRI,
    EOI,
    FRAMES,
    SOF0,
    SOF1,
    SOS,
    STRAY,
    Frame,
    Segment,
    check_scans,
    coarser,
    find_frame,
    quantisation_tables,
    segments_from,
    walk,
    walk_head,
    with_size,
)
from sdfs.codec.pictures.formats.shared import Parts, Pixels, Recipe, check_dimensions, pack_marker, parse_marker
from sdfs.errors import DoesNotFit, NotAPicture, PictureError, Unsuitable

_END = struct.pack(">BB", 0xFF, EOI)
_PADDING_ID = b"SDFS\0"
_MIN_PADDING_BYTES = 4 + len(_PADDING_ID)  # marker, length, identifier
_MAX_PADDING_BYTES = 2 + 65535
_COARSER = (1.0, 1.3, 1.7, 2.4, 3.5)  # quantisation steps are larger by: the first by which a render fits


def read(data: bytes) -> Parts:
    try:
        segments, end = walk(data)
    except NotAPicture as broken:
        try:
            _read(data + _END, *walk(data + _END))
        except PictureError:
            raise broken from None
        raise Unsuitable("a JPEG without its end-of-image marker") from None
    return _read(data, segments, end)


def _read(data: bytes, segments: list[Segment], end: int) -> Parts:
    """The parts of a file whose first picture has these segments, and ends there."""
    frame = find_frame(segments)
    check_dimensions(frame.width, frame.height, end)
    _check_descriptions(segments, frame)
    check_scans(segments, frame)
    tables = quantisation_tables(segments)
    if missing := {component.table for component in frame.components} - tables.keys():
        raise NotAPicture(f"the JPEG lacks quantisation table {min(missing)}")
    if any(0 in tables[component.table] for component in frame.components):
        raise Unsuitable("a JPEG with a quantisation step of 0")
    coded = _coded(segments)
    jpeg_scans.check_whole(coded, frame)
    pixels = jpeg_scans.decode(coded, frame)
    first = next(i for i, segment in enumerate(segments) if segment.marker == SOS)
    head = _head(data, segments[:first])
    others = b"".join(segment.content for segment in segments[first:] if segment.is_descriptive)
    return Parts(pixels, {"head": len(head)}, head + others, data[end:])


def pixels_of_render(data: bytes) -> Pixels:
    """What a reader sees of what `write` made. For others it is not: it looks for no damage."""
    segments, _ = walk(data)
    return jpeg_scans.decode(_coded(segments), find_frame(segments))


def recipes(recipe: Recipe) -> Iterator[Recipe]:
    for factor in _COARSER:
        yield recipe if factor == 1 else recipe | {"coarser": factor}


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    head, others = metadata[: recipe["head"]], metadata[recipe["head"] :]
    segments = list(_rewritten(walk_head(head), pixels, recipe.get("coarser", 1)))
    head, frame, tables = _replaced(head, segments), find_frame(segments), quantisation_tables(segments)
    steps = [tables[component.table] for component in frame.components]
    for optimise in (True,) if frame.progressive else (False, True):  # progressive ones always are
        try:
            coded = jpeg_scans.encode(pixels, frame, steps, optimise=optimise)
        except OSError:
            continue
        bare = len(head) + len(coded) + len(others) + len(_END)
        room = (_MIN_PADDING_BYTES + 1 + len(marker) if marker else 0) if size is None else size - bare
        if room >= (0 if size is None else spare):
            return b"".join((head, _padding(room, marker), coded, others, _END))
    raise DoesNotFit(f"no JPEG render fits into {size} bytes, {len(head) + len(others)} of them metadata")


def find_marker(data: bytes) -> bytes | None:
    try:
        for segment in segments_from(data, 2):
            if segment.marker == SOS:
                return None
            if _has_padding_id(segment) and (marker := parse_marker(segment.payload[len(_PADDING_ID) :])) is not None:
                return marker
    except PictureError:
        pass
    return None


def dimensions(data: bytes) -> tuple[int, int]:
    """(width, height) as the frame header claims. Raises NotAPicture and Unsuitable (neither baseline nor progressive)."""
    for segment in segments_from(data, 2):
        if segment.marker in FRAMES:
            frame = find_frame([segment])
            return frame.width, frame.height
    raise NotAPicture("the JPEG has no frame header")


def _check_descriptions(segments: Iterable[Segment], frame: Frame) -> None:
    """Refuse what tells that bytes are signed, that the colours are not YCbCr, or what nobody knows."""
    if bytes(component.id for component in frame.components) == b"RGB":
        raise Unsuitable("an RGB JPEG")
    for segment in segments:
        marker, payload = segment.marker, segment.payload
        if marker == APP11 and payload.startswith(b"JP"):
            raise Unsuitable("JUMBF boxes (content credentials, JPEG XT) are bound to the exact bytes")
        if marker == APP14 and payload.startswith(b"Adobe") and len(frame.components) == 3 and payload[11:12] != b"\1":
            raise Unsuitable("an Adobe JPEG that is not YCbCr")
        if marker == STRAY:
            raise Unsuitable(f"{len(segment.content)} stray bytes between segments of the JPEG")
        if marker not in CODING and not segment.is_descriptive:
            raise Unsuitable(f"segment {marker:#04x} in a JPEG")


def _head(data: bytes, segments: Iterable[Segment]) -> bytes:
    """All that comes before the scans, each byte at its offset. Tables that a render does not keep become fill bytes if more follows.

    The frame header is left without dimensions, because the blob has them.
    """
    pieces, fill, at = [], b"", 0
    for segment in segments:
        fill += data[at : segment.offset]
        at = segment.end
        if segment.marker in (DHT, DRI):
            fill += b"\xff" * len(segment.content)
        elif not _is_padding(segment):
            pieces += [fill, (with_size(segment, 0, 0) if segment.marker in FRAMES else segment).content]
            fill = b""
    return b"".join(pieces)


def _rewritten(segments: Iterable[Segment], pixels: Pixels, factor: float) -> Iterator[Segment]:
    """The segments of a head as a render has them: with dimensions, baseline where it was another sequential one, quantised as asked."""
    for segment in segments:
        if segment.marker in FRAMES:
            sized = with_size(segment, *pixels.shape[:2])
            yield sized._replace(marker=SOF0, content=bytes([0xFF, SOF0]) + sized.content[2:]) if segment.marker == SOF1 else sized
        else:
            yield coarser(segment, factor) if segment.marker == DQT and factor != 1 else segment


def _replaced(head: bytes, segments: Iterable[Segment]) -> bytes:
    """The head with these segments in their places."""
    pieces, at = [], 0
    for segment in segments:
        pieces += [head[at : segment.offset], segment.content]
        at = segment.end
    return b"".join(pieces)


def _coded(segments: Iterable[Segment]) -> bytes:
    """SOI … EOI without descriptive segments: orientation, colour profiles and their parsers never come into play."""
    return b"".join(segment.content for segment in segments if not segment.is_descriptive)


def _padding(room: int, marker: bytes) -> bytes:
    """Exactly `room` bytes that no decoder minds: segments, the first with the marker; too few for one as fill bytes of the next marker."""
    paddings: list[bytes] = []
    while room >= _MIN_PADDING_BYTES:
        length = min(room, _MAX_PADDING_BYTES)
        if 0 < room - length < _MIN_PADDING_BYTES:
            length -= _MIN_PADDING_BYTES
        payload = _PADDING_ID + pack_marker(b"" if paddings else marker, length - _MIN_PADDING_BYTES)
        paddings.append(struct.pack(">BBH", 0xFF, APP2, length - 2) + payload)
        room -= length
    return b"".join(paddings) + b"\xff" * room


def _is_padding(segment: Segment) -> bool:
    """Whether a render put the segment there: a marker, or none, then nothing but zeros."""
    if not _has_padding_id(segment):
        return False
    padding = segment.payload[len(_PADDING_ID) :]
    return parse_marker(padding) is not None or not padding.strip(b"\0")


def _has_padding_id(segment: Segment) -> bool:
    return segment.marker == APP2 and segment.payload.startswith(_PADDING_ID)
