"""The segments of a JPEG file, its frame header and its tables. Source: ITU-T T.81 (segments: annex B, scans: annex G)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sdfs.errors import NotAPicture, Unsuitable

SOF0, SOF1, SOF2, DHT, SOI, EOI, SOS, DQT, DRI = 0xC0, 0xC1, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD
APP0, APP1, APP2, APP11, APP14, APP15, COM = 0xE0, 0xE1, 0xE2, 0xEB, 0xEE, 0xEF, 0xFE
STRAY = 0x00  # what is no marker, where one should be: libjpeg warns and passes over it
FRAMES = frozenset(range(0xC0, 0xD0)) - {DHT, 0xC8, 0xCC}  # SOF0 … SOF15
CODING = frozenset({SOI, SOF0, SOF1, SOF2, DHT, DQT, DRI, SOS, EOI})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RSTn, SOI: markers without a length
# The raster index of each coefficient in the order of a scan: along the diagonals, back and forth (T.81, figure A.6).
_ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the first marker after entropy-coded data that is no restart
_FILL = re.compile(rb"\xff*(?=\xff)")  # fill bytes before a marker (T.81, B.1.1.2)
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MAX_SEGMENTS = 20_000  # a picture of 65,500 rows with a scan for each coefficient has fewer
_MAX_SCANS = 100  # libjpeg's own scripts have at most 10; each further one costs a pass over all coefficients


class Segment(NamedTuple):
    """One segment of a file, without fill bytes."""

    marker: int
    offset: int
    content: bytes  # from its 0xFF on; of a scan with its entropy-coded data

    @property
    def payload(self) -> bytes:
        """What follows marker and length."""
        return self.content[4:]

    @property
    def end(self) -> int:
        return self.offset + len(self.content)

    @property
    def is_descriptive(self) -> bool:
        """Whether it says something about the picture, and nothing of how it is coded."""
        return APP0 <= self.marker <= APP15 or self.marker == COM


class Component(NamedTuple):
    """A component as the frame header has it."""

    id: int
    horizontal: int
    vertical: int
    table: int


@dataclass(frozen=True)
class Frame:
    """A frame header."""

    progressive: bool
    height: int
    width: int
    components: tuple[Component, ...]
    sampling: tuple[tuple[int, int], ...]  # by how much each component is smaller than the picture, horizontally and vertically


def walk(data: bytes) -> tuple[list[Segment], int]:
    """All segments of the first picture from SOI to EOI, these included, and where it ends.

    Raises as `segments_from`, and NotAPicture where it is cut off.
    """
    segments = [Segment(SOI, 0, data[:2]), *segments_from(data, 2)]
    last = segments[-1]
    if last.marker != EOI:
        raise NotAPicture("the JPEG ends before its end-of-image marker")
    return segments, last.end


def walk_head(head: bytes) -> list[Segment]:
    """SOI and all segments of what comes before the first scan. Raises as `segments_from`."""
    return [Segment(SOI, 0, head[:2]), *segments_from(head, 2)]


def segments_from(data: bytes, at: int) -> Iterator[Segment]:
    """The segments from `at` on, up to EOI or the end of `data`. Fill bytes between them are passed over.

    Raises NotAPicture, and Unsuitable where there are too many to be worth a look.
    """
    count = 0
    while at < len(data):
        if (count := count + 1) > _MAX_SEGMENTS:
            raise Unsuitable(f"a JPEG of more than {_MAX_SEGMENTS:,} segments")
        fill = _FILL.match(data, at)
        at = fill.end() if fill else at
        if data[at] != 0xFF or at + 1 == len(data) or data[at + 1] == 0:
            found = _MARKER.search(data, at)
            if found is None:
                raise NotAPicture(f"byte {at} of the JPEG is no marker")
            yield Segment(STRAY, at, data[at : found.start()])
            at = found.start()
        marker = data[at + 1]
        if marker == EOI or marker in _ALONE:
            yield Segment(marker, at, data[at : at + 2])
            if marker == EOI:
                return
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            raise NotAPicture(f"segment {marker:#04x} at byte {at} of the JPEG is cut off")
        if marker == SOS:
            ended = _SCAN_END.search(data, end)
            if ended is None:
                raise NotAPicture("the JPEG ends within a scan")
            end = ended.start()
        yield Segment(marker, at, data[at:end])
        at = end


def find_frame(segments: Iterable[Segment]) -> Frame:
    """The frame header. Raises NotAPicture and Unsuitable (neither baseline nor progressive, not 8 bits, CMYK)."""
    frames = [segment for segment in segments if segment.marker in FRAMES]
    if not frames:
        raise NotAPicture("the JPEG has no frame header")
    marker, payload = frames[0].marker, frames[0].payload
    if len(frames) > 1 or marker not in (SOF0, SOF1, SOF2):
        raise Unsuitable(f"a JPEG of type SOF{marker - SOF0}, {len(frames)} frames: neither baseline nor progressive")
    if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
        raise NotAPicture("the frame header of the JPEG has a wrong length")
    precision, height, width, count = struct.unpack_from(">BHHB", payload)
    if precision != 8:
        raise Unsuitable(f"a JPEG of {precision} bits a sample")
    if count not in (1, 3):
        raise Unsuitable("a CMYK JPEG" if count == 4 else f"a JPEG of {count} components")
    if not height:
        raise Unsuitable("a JPEG whose height comes after its first scan")
    components = tuple(Component(payload[i], payload[i + 1] >> 4, payload[i + 1] & 15, payload[i + 2]) for i in range(6, len(payload), 3))
    if not all(1 <= component.horizontal <= 4 and 1 <= component.vertical <= 4 for component in components):
        raise NotAPicture("a sampling factor of the JPEG is none of 1…4")
    if len({component.id for component in components}) != count:
        raise Unsuitable("a JPEG with two components of the same id")
    widest, tallest = max(c.horizontal for c in components), max(c.vertical for c in components)
    if any(widest % c.horizontal or tallest % c.vertical for c in components):  # nor does libjpeg decode it
        raise Unsuitable("sampling factors " + ", ".join(f"{c.horizontal}×{c.vertical}" for c in components))
    return Frame(marker == SOF2, height, width, components, tuple((widest // c.horizontal, tallest // c.vertical) for c in components))


def check_scans(segments: Iterable[Segment], frame: Frame) -> None:
    """All coefficients of all components must have arrived at full precision (T.81, G.1.1.1): what lacks its last scans is truncated."""
    missing = {component.id: [True] * 64 for component in frame.components}
    scans = [segment.payload for segment in segments if segment.marker == SOS]
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


def quantisation_tables(segments: Iterable[Segment]) -> dict[int, list[int]]:
    """The 64 steps of each table, in raster order as Pillow wants them (T.81, B.2.4.1). Raises NotAPicture and Unsuitable."""
    tables: dict[int, list[int]] = {}
    for payload in (segment.payload for segment in segments if segment.marker == DQT):
        for at in range(0, len(payload), 65):
            wide, number = divmod(payload[at], 16)
            steps = payload[at + 1 : at + 65]
            if wide or len(steps) != 64:
                raise Unsuitable("16-bit quantisation tables") if wide == 1 else NotAPicture("a quantisation table of the JPEG is broken")
            table = [step for _, step in sorted(zip(_ZIGZAG, steps, strict=True))]
            if tables.setdefault(number, table) != table:
                raise Unsuitable("a JPEG that changes its quantisation between scans")
    return tables


def coarser(table: Segment, factor: float) -> Segment:
    """A DQT segment whose steps are larger by a factor, and at most 255."""
    steps = bytearray(table.content)
    for start in range(5, len(steps), 65):
        for at in range(start, start + 64):
            steps[at] = min(255, round(steps[at] * factor))
    return table._replace(content=bytes(steps))


def with_size(frame: Segment, height: int, width: int) -> Segment:
    """A frame header of other dimensions."""
    return frame._replace(content=frame.content[:5] + struct.pack(">HH", height, width) + frame.content[9:])
