"""HEIC and AVIF files for the tests: pictures that pillow-heif and Pillow code, in containers of theirs or of our own."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from sdfs.codec.pictures.formats.heif_boxes import boxes, parse_meta
from tests.support.picture_samples import photo

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "pictures"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases, with a file of each kind")
GAIN_MAP_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/" HDRGainMap:HDRGainMapVersion="131072" HDRGainMap:HDRGainMapHeadroom="3.5"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
ISO_GAIN_MAP = struct.pack(">HHB", 0, 0, 0x40) + struct.pack(">14I", 0, 1, 5, 2, 0, 1, 5, 2, 1, 1, 1, 64, 1, 64)


def heic(image: Image.Image | None = None, **options: Any) -> bytes:
    """As pillow-heif writes it."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(photo() if image is None else image).save(buffer, **{"quality": 80, **options})
    return buffer.getvalue()


def avif(image: Image.Image | None = None, **options: Any) -> bytes:
    """As Pillow writes it."""
    buffer = io.BytesIO()
    (photo() if image is None else image).save(buffer, "AVIF", speed=10, **options)
    return buffer.getvalue()


def exif(orientation: int = 1) -> bytes:
    """EXIF data from their byte order mark on."""
    data = Image.Exif()
    data[0x0112], data[0x010F], data[0x0110] = orientation, "A maker", "A camera"
    data.get_ifd(0x8769)[0x9003] = "2024:05:11 09:30:00"
    return data.tobytes().removeprefix(b"Exif\0\0")


def box(type_: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(payload)) + type_ + payload


def full(type_: bytes, payload: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(type_, struct.pack(">I", version << 24 | flags) + payload)


@dataclass
class Part:
    """An item of a file: properties are whole boxes."""

    type: bytes
    data: bytes
    properties: list[bytes] = field(default_factory=list)
    content_type: bytes = b""


@cache
def _coded(mode: str, size: tuple[int, int]) -> tuple[bytes, tuple[bytes, ...]]:
    data = heic(photo(mode).resize(size))
    meta = parse_meta(next(one for one in boxes(memoryview(data)) if one.type == b"meta"), memoryview(data))
    item = meta.items[meta.primary]
    return item.data, tuple(box(one.type, bytes(one.payload)) for one in item.properties if one.type in (b"hvcC", b"ispe"))


def coded(mode: str = "RGB", size: tuple[int, int] = (192, 128), *further: bytes) -> Part:
    """A coded picture with `further` properties."""
    data, properties = _coded(mode, size)
    return Part(b"hvc1", data, [*properties, *further])


def metadata(type_: bytes, data: bytes) -> Part:
    """EXIF data from their byte order mark on, or XMP."""
    return Part(b"Exif", bytes(4) + data) if type_ == b"Exif" else Part(b"mime", data, content_type=b"application/rdf+xml")


def gain_map(*further: bytes) -> Part:
    return coded("L", (96, 64), full(b"auxC", b"urn:com:apple:photo:2020:aux:hdrgainmap\0"), *further)


def build(parts: Sequence[Part], references: Sequence[tuple[bytes, int, tuple[int, ...]]] = (), groups: bytes = b"") -> bytes:
    """A HEIC of items 1, 2, …, of which the first is the picture."""
    entries = [
        full(b"infe", struct.pack(">HH", n, 0) + part.type + b"\0" + (part.content_type + b"\0" if part.content_type else b""), 2)
        for n, part in enumerate(parts, 1)
    ]
    listed = [one for part in parts for one in part.properties]
    associations = b"".join(
        struct.pack(">HB", n, len(part.properties)) + bytes(listed.index(one) + 1 for one in part.properties)
        for n, part in enumerate(parts, 1)
    )
    properties = box(b"ipco", b"".join(listed)) + full(b"ipma", struct.pack(">I", len(parts)) + associations)
    linked = b"".join(box(type_, struct.pack(f">HH{len(to)}H", source, len(to), *to)) for type_, source, to in references)
    head = box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def meta(first: int) -> bytes:
        locations, at = b"", first
        for n, part in enumerate(parts, 1):
            locations += struct.pack(">HHHII", n, 0, 1, at, len(part.data))
            at += len(part.data)
        return full(
            b"meta",
            full(b"hdlr", bytes(4) + b"pict" + bytes(13))
            + full(b"pitm", struct.pack(">H", 1))
            + full(b"iloc", struct.pack(">HH", 0x4400, len(parts)) + locations)
            + full(b"iinf", struct.pack(">H", len(parts)) + b"".join(entries))
            + (full(b"iref", linked) if linked else b"")
            + box(b"iprp", properties)
            + (box(b"grpl", groups) if groups else b""),
        )

    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", b"".join(part.data for part in parts))


def with_gain_map(*properties: bytes, tone_map: bool = False) -> bytes:
    """As iPhones write it: EXIF data, XMP of the picture and of the gain map; `tone_map`: metadata of ISO 21496-1 besides."""
    parts = [
        coded("RGB", (192, 128), *properties),
        gain_map(*properties),
        metadata(b"Exif", exif(6)),
        metadata(b"mime", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"),
        metadata(b"mime", GAIN_MAP_XMP),
    ]
    references = [(b"auxl", 2, (1,)), (b"cdsc", 3, (1,)), (b"cdsc", 4, (1,)), (b"cdsc", 5, (2,))]
    if not tone_map:
        return build(parts, references)
    group = full(b"altr", struct.pack(">IIII", 100, 2, 6, 1))
    return build([*parts, Part(b"tmap", b"\0" + ISO_GAIN_MAP)], [*references, (b"dimg", 6, (1, 2))], group)
