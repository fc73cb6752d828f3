"""JPEG: Huffman-coded baseline or progressive, 8 bits, grey or YCbCr. Source: ITU-T T.81 (segments: annex B, scans: annex G).

A file is split into its descriptive segments (APPn, COM) with the quantisation tables (DQT), which come back byte-exact, and the
coded picture, which a render replaces. A render is

    SOI, APPn and COM segments of the source, padding (APP2 segments), DQT … EOI as libjpeg writes them

The padding is in APP2 segments of our own, beside those of ICC profiles and MPF, and not in comments: of several comments some programs
show the first and some the last (exiftool, Exiv2; Pillow, ImageMagick), and who edits them removes them all. What is in APP2, editors of
metadata keep, and programs that make another picture do not take along.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import imagecodecs
from PIL import Image

from sdfs.codec.pictures.formats.shared import Parts, Pixels, Recipe, check_decoded, check_dimensions, decoding, pack_marker, parse_marker
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable

_SOF0, _SOF2, _DHT, _SOI, _EOI, _SOS, _DQT, _DRI = 0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD
_APP0, _APP2, _APP11, _APP14, _APP15, _COM = 0xE0, 0xE2, 0xEB, 0xEE, 0xEF, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}  # SOF0 … SOF15
_CODING = frozenset({_SOI, _SOF0, _SOF2, _DHT, _DQT, _DRI, _SOS, _EOI})
_OUT_OF_PLACE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # stuffing, TEM, RSTn, SOI: not between segments
# The raster index of each coefficient in the order of a scan: along the diagonals, back and forth (T.81, figure A.6).
_ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the first marker after entropy-coded data that is no restart
_PADDING_ID = b"SDFS\0"
_MIN_PADDING_BYTES = 4 + len(_PADDING_ID)  # marker, length, identifier
_MAX_PADDING_BYTES = 2 + 65535
_MAX_SCANS = 100  # libjpeg's own scripts have at most 10; each further one costs a pass over all coefficients
_SUBSAMPLINGS = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}  # of chroma, as Pillow calls them
# Quantisation coarser by, Huffman tables optimised (progressive ones always are): tried in this order until a render fits.
_ATTEMPTS = ((1.0, False), (1.0, True), (1.3, True), (1.7, True), (2.4, True), (3.5, True))


class _Segment(NamedTuple):
    marker: int
    offset: int
    content: bytes  # from its 0xFF on; of a scan with its entropy-coded data

    @property
    def payload(self) -> bytes:
        """What follows marker and length."""
        return self.content[4:]


class _Component(NamedTuple):
    id: int
    horizontal: int
    vertical: int
    table: int


@dataclass(frozen=True)
class _Frame:
    progressive: bool
    height: int
    width: int
    components: tuple[_Component, ...]


def read(data: bytes) -> Parts:
    segments, end = _walk(data)
    if end != len(data):
        raise Unsuitable(f"{len(data) - end} bytes after the end of the JPEG")
    frame = _find_frame(segments)
    check_dimensions(frame.width, frame.height, len(data))
    _check_descriptions(segments, frame)
    _check_scans(segments, frame)
    recipe: Recipe = {
        "progressive": frame.progressive,
        "subsampling": _subsampling(frame),
        "tables": [component.table for component in frame.components],
    }
    if missing := set(recipe["tables"]) - _quantisation_tables(segments).keys():
        raise NotAPicture(f"the JPEG lacks quantisation table {min(missing)}")
    coded = _coded(segments)
    with decoding("the JPEG"):
        imagecodecs.jpegxl_encode_jpeg(coded)  # libjpeg conceals damaged scans; libjxl, which has to reproduce every bit of them, refuses
    pixels = _decode(coded, frame)
    kept = (segment for segment in segments if segment.marker == _DQT or _is_descriptive(segment.marker))
    return Parts(pixels, recipe, b"".join(segment.content for segment in kept if not _is_padding(segment)))


def pixels_of_render(data: bytes) -> Pixels:
    """What a reader sees of what `write` made. For others it is not: it looks for no damage."""
    segments, _ = _walk(data)
    return _decode(_coded(segments), _find_frame(segments))


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes) -> bytes:
    segments = list(_segments(metadata, 0))
    tables = _quantisation_tables(segments)
    head = struct.pack(">BB", 0xFF, _SOI) + b"".join(segment.content for segment in segments if segment.marker != _DQT)
    for coarser, optimise in _ATTEMPTS[1:] if recipe["progressive"] else _ATTEMPTS:
        scaled = [[min(255, round(step * coarser)) for step in tables[number]] for number in recipe["tables"]]
        try:
            coded = _encode(pixels, recipe, scaled, optimise=optimise)
        except OSError:
            continue  # optimised scans must fit into the 2 bytes a pixel that Pillow allots them
        if size is None:
            return head + _padding(_MIN_PADDING_BYTES + 1 + len(marker) if marker else 0, marker) + coded
        if (room := size - len(head) - len(coded)) >= 0:
            return head + _padding(room, marker) + coded
    raise DoesNotFit(f"no JPEG render fits into {size} bytes, {len(head)} of them metadata")


def find_marker(data: bytes) -> bytes | None:
    try:
        for segment in _segments(data, 2):
            if segment.marker == _SOS:
                return None
            if segment.marker == _APP2 and segment.payload.startswith(_PADDING_ID):
                marker = parse_marker(segment.payload[len(_PADDING_ID) :])
                if marker is not None:
                    return marker
    except NotAPicture:
        pass
    return None


def dimensions(data: bytes) -> tuple[int, int]:
    """(width, height) as the frame header claims. Raises NotAPicture and Unsuitable (neither baseline nor progressive)."""
    for segment in _segments(data, 2):
        if segment.marker in _FRAMES:
            frame = _find_frame([segment])
            return frame.width, frame.height
    raise NotAPicture("the JPEG has no frame header")


def _walk(data: bytes) -> tuple[list[_Segment], int]:
    """All segments of the (first) picture from SOI to EOI, these included, and where it ends."""
    segments = [_Segment(_SOI, 0, data[:2]), *_segments(data, 2)]
    last = segments[-1]
    if last.marker != _EOI:
        raise NotAPicture("the JPEG ends before its end-of-image marker")
    return segments, last.offset + 2


def _segments(data: bytes, at: int) -> Iterator[_Segment]:
    """The segments from `at` on, up to EOI or the end of `data`. Fill bytes between them are passed over (T.81, B.1.1.2)."""
    while at < len(data):
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if data[at] != 0xFF or at + 1 == len(data):
            raise NotAPicture(f"byte {at} of the JPEG is no marker")
        marker = data[at + 1]
        if marker == _EOI:
            yield _Segment(marker, at, data[at : at + 2])
            return
        if marker in _OUT_OF_PLACE:
            raise NotAPicture(f"marker {marker:#04x} at byte {at} of the JPEG is out of place")
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            raise NotAPicture(f"segment {marker:#04x} at byte {at} of the JPEG is cut off")
        if marker == _SOS:
            found = _SCAN_END.search(data, end)
            if found is None:
                raise NotAPicture("the JPEG ends within a scan")
            end = found.start()
        yield _Segment(marker, at, data[at:end])
        at = end


def _find_frame(segments: Iterable[_Segment]) -> _Frame:
    frames = [segment for segment in segments if segment.marker in _FRAMES]
    if not frames:
        raise NotAPicture("the JPEG has no frame header")
    marker, payload = frames[0].marker, frames[0].payload
    if len(frames) > 1 or marker not in (_SOF0, _SOF2):
        raise Unsuitable(f"a JPEG of type SOF{marker - _SOF0}, {len(frames)} frames: neither baseline nor progressive")
    if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
        raise NotAPicture("the frame header of the JPEG has a wrong length")
    precision, height, width, count = struct.unpack_from(">BHHB", payload)
    if precision != 8 or count not in (1, 3):
        raise Unsuitable(f"a JPEG of {count} components of {precision} bits")
    if not height:
        raise Unsuitable("a JPEG whose height comes after its first scan")
    components = tuple(_Component(payload[i], payload[i + 1] >> 4, payload[i + 1] & 15, payload[i + 2]) for i in range(6, len(payload), 3))
    if not all(1 <= component.horizontal <= 4 and 1 <= component.vertical <= 4 for component in components):
        raise NotAPicture("a sampling factor of the JPEG is none of 1…4")
    if len({component.id for component in components}) != count:
        raise NotAPicture("two components of the JPEG have the same id")
    return _Frame(marker == _SOF2, height, width, components)


def _check_descriptions(segments: Iterable[_Segment], frame: _Frame) -> None:
    """Refuse what tells that there is more than one picture, that bytes are signed, or that the colours are not YCbCr."""
    if bytes(component.id for component in frame.components) == b"RGB":
        raise Unsuitable("an RGB JPEG")
    for marker, payload in ((segment.marker, segment.payload) for segment in segments):
        if marker == _APP2 and payload.startswith(b"MPF\0"):
            raise Unsuitable("several pictures in one JPEG (MPF)")
        if marker == _APP11 and payload.startswith(b"JP"):
            raise Unsuitable("JUMBF boxes (content credentials, JPEG XT) are bound to the exact bytes")
        if marker == _APP14 and payload.startswith(b"Adobe") and len(frame.components) == 3 and payload[11:12] != b"\1":
            raise Unsuitable("an Adobe JPEG that is not YCbCr")
        if marker not in _CODING and not _is_descriptive(marker):
            raise Unsuitable(f"segment {marker:#04x} in a JPEG")


def _check_scans(segments: Iterable[_Segment], frame: _Frame) -> None:
    """All coefficients of all components must have arrived at full precision (T.81, G.1.1.1): what lacks its last scans is truncated."""
    missing = {component.id: [True] * 64 for component in frame.components}
    scans = [segment.payload for segment in segments if segment.marker == _SOS]
    if len(scans) > _MAX_SCANS:
        raise Unsuitable(f"a JPEG of {len(scans)} scans")
    for payload in scans:
        count = payload[0] if payload else 0
        if len(payload) < 4 + 2 * count:
            raise NotAPicture("a scan header of the JPEG is cut off")
        first, last, approximation = payload[1 + 2 * count : 4 + 2 * count] if frame.progressive else (0, 63, 0)
        for i in range(count):
            coefficients = missing.get(payload[1 + 2 * i])
            if coefficients is None or not first <= last < 64:
                raise NotAPicture("a scan header of the JPEG names what its frame lacks")
            coefficients[first : last + 1] = [bool(approximation & 15)] * (last + 1 - first)
    if any(any(coefficients) for coefficients in missing.values()):
        raise NotAPicture("the JPEG lacks some of its scans")


def _subsampling(frame: _Frame) -> str:
    """The chroma subsampling as Pillow calls it; of grey, where the factors have no effect, 4:4:4."""
    if len(frame.components) == 1:
        return "4:4:4"
    (_, luma_h, luma_v, _), (_, h, v, _), (_, other_h, other_v, _) = frame.components
    found = _SUBSAMPLINGS.get((luma_h // h, luma_v // v))
    if found is None or (h, v) != (other_h, other_v) or luma_h % h or luma_v % v:
        raise Unsuitable("sampling factors " + ", ".join(f"{c.horizontal}×{c.vertical}" for c in frame.components))
    return found


def _quantisation_tables(segments: Iterable[_Segment]) -> dict[int, list[int]]:
    """The 64 steps of each table, in raster order as Pillow wants them (T.81, B.2.4.1)."""
    tables: dict[int, list[int]] = {}
    for payload in (segment.payload for segment in segments if segment.marker == _DQT):
        at = 0
        while at < len(payload):
            wide, number = divmod(payload[at], 16)
            steps = payload[at + 1 : at + 65]
            if wide or len(steps) != 64:
                raise Unsuitable("16-bit quantisation tables") if wide == 1 else NotAPicture("a quantisation table of the JPEG is broken")
            table = [step for _, step in sorted(zip(_ZIGZAG, steps, strict=True))]
            if tables.setdefault(number, table) != table:
                raise Unsuitable("a JPEG that changes its quantisation between scans")
            at += 65
    return tables


def _coded(segments: Iterable[_Segment]) -> bytes:
    """SOI … EOI without descriptive segments: orientation, colour profiles and their parsers never come into play."""
    return b"".join(segment.content for segment in segments if not _is_descriptive(segment.marker))


def _decode(coded: bytes, frame: _Frame) -> Pixels:
    with decoding("the JPEG"):
        pixels = imagecodecs.jpeg8_decode(coded)
    return check_decoded(pixels, frame.height, frame.width, len(frame.components))


def _encode(pixels: Pixels, recipe: Recipe, tables: list[list[int]], *, optimise: bool) -> bytes:
    """Code `pixels`: DQT … EOI, without SOI and the JFIF segment that libjpeg puts before."""
    while len(tables) > 1 and tables[-1] == tables[-2]:
        tables = tables[:-1]  # Pillow gives the last one to all components that are left
    buffer = io.BytesIO()
    options = {"qtables": tables, "subsampling": recipe["subsampling"], "progressive": recipe["progressive"]}
    Image.fromarray(pixels).save(buffer, "JPEG", optimize=optimise, **options)
    segments = _segments(buffer.getvalue(), 2)
    return b"".join(segment.content for segment in segments if not _is_descriptive(segment.marker))


def _padding(room: int, marker: bytes) -> bytes:
    """Exactly `room` bytes that no decoder minds: segments, the first with the marker; too few for one as fill bytes of the next marker."""
    paddings: list[bytes] = []
    while room >= _MIN_PADDING_BYTES:
        length = min(room, _MAX_PADDING_BYTES)
        if 0 < room - length < _MIN_PADDING_BYTES:
            length -= _MIN_PADDING_BYTES
        payload = _PADDING_ID + pack_marker(b"" if paddings else marker, length - _MIN_PADDING_BYTES)
        paddings.append(struct.pack(">BBH", 0xFF, _APP2, length - 2) + payload)
        room -= length
    return b"".join(paddings) + b"\xff" * room


def _is_padding(segment: _Segment) -> bool:
    """Whether a render put the segment there: a marker, or none, then nothing but zeros."""
    if segment.marker != _APP2 or not segment.payload.startswith(_PADDING_ID):
        return False
    padding = segment.payload[len(_PADDING_ID) :]
    return parse_marker(padding) is not None or not padding.strip(b"\0")


def _is_descriptive(marker: int) -> bool:
    return _APP0 <= marker <= _APP15 or marker == _COM
