"""Picture files taken apart: what is a picture, what is none, and what a picture holds."""

from __future__ import annotations

import json
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sdfs.codec.pictures.formats.shared import MAX_PIXELS
from sdfs.codec.pictures.picture import probe
from sdfs.errors import NotAPicture, Unsuitable
from tests.support.picture_samples import (
    SUITABLE,
    chunk,
    decode,
    photo,
    save,
    segment,
    suitable,
    with_chunk,
    with_riff_chunk,
    with_segments,
)

JPEG, PNG, WEBP, BMP, TIFF = (suitable(name) for name in ("jpeg 4:2:0", "png", "webp", "bmp", "tiff"))
MAC_TIFF = suitable("tiff big-endian")


@pytest.mark.parametrize("name", SUITABLE)
def test_pixels_are_as_coded(name: str) -> None:
    """Not rotated by EXIF, not changed by a colour profile."""
    data = suitable(name)
    picture = probe(data)
    assert picture.format == name.split()[0]
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, decode(data))


@pytest.mark.parametrize("name", SUITABLE)
def test_a_recipe_is_small_json(name: str) -> None:
    assert len(json.dumps(probe(suitable(name)).recipe)) < 200


def test_metadata_of_uncompressed_formats_is_all_but_the_pixels() -> None:
    assert len(probe(TIFF).metadata) == len(TIFF) - probe(TIFF).pixels.size


def test_padding_of_an_earlier_render_is_no_metadata() -> None:
    padded = with_segments(JPEG, segment(0xE2, b"SDFS\0" + bytes([5]) + b"ident" + bytes(1000)), segment(0xE2, b"SDFS\0" + bytes(99)))
    assert probe(padded).metadata == probe(JPEG).metadata
    assert probe(with_chunk(PNG, b"sdFs", bytes(1000))).metadata == probe(PNG).metadata
    assert probe(with_riff_chunk(WEBP, b"sdFs", bytes(1000))).metadata == probe(WEBP).metadata


def test_a_segment_that_only_begins_like_padding_is_metadata() -> None:
    for other in (segment(0xE2, b"SDFS\0 that begins as a padding of 32 bytes would"), segment(0xFE, b"SDFS\0" + bytes(9))):
        assert other in probe(with_segments(JPEG, other)).metadata


def deep() -> Image.Image:
    """A picture of 16 bits a sample."""
    return Image.fromarray(np.asarray(photo("L")).astype(np.uint16) << 8)


UNSUITABLE = {
    "a CMYK JPEG": save(photo("CMYK"), "JPEG"),
    "an RGB JPEG": save(photo(), "JPEG", keep_rgb=True),
    "an Adobe JPEG without transform": with_segments(JPEG, segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")),
    "a JPEG whose luma is 1.5 times its chroma": JPEG.replace(b"\x03\x01\x22\x00\x02\x11", b"\x03\x01\x32\x00\x02\x21", 1),
    "a JPEG with junk between segments": with_segments(JPEG, b"junk"),
    "a JPEG that lacks nothing but its end": JPEG[:-2],
    "a signed JPEG": with_segments(JPEG, segment(0xEB, b"JP\0\1\0\0\0\1")),
    "an arithmetically coded JPEG": JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1),
    "a JPEG with its height behind": JPEG.replace(struct.pack(">BHH", 8, 167, 197), struct.pack(">BHH", 8, 0, 197), 1),
    "a small JPEG": save(photo().resize((63, 200)), "JPEG"),
    "a PNG with alpha": save(photo("RGBA"), "PNG"),
    "a grey PNG with alpha": save(photo("LA"), "PNG"),
    "a PNG with a palette": save(photo("P"), "PNG"),
    "a PNG with two colours": save(photo("1"), "PNG"),
    "a PNG with 16 bits": save(deep(), "PNG"),
    "a PNG with a transparent colour": save(photo(), "PNG", transparency=(1, 2, 3)),
    "an animated PNG": save(photo(), "PNG", save_all=True, append_images=[photo().rotate(9)]),
    "a PNG with an unknown critical chunk": with_chunk(PNG, b"CrIt", b"", before=b"IDAT"),
    "a PNG with a chunk unsafe to copy": with_chunk(PNG, b"iDOT", bytes(28), before=b"IDAT"),
    "an interlaced PNG": PNG[:8] + chunk(b"IHDR", PNG[16:28] + b"\1") + PNG[33:],
    "a PNG with one byte behind": PNG + b"\0",
    "a WebP with alpha": save(photo("RGBA").rotate(9), "WEBP"),
    "a lossless WebP with alpha": save(photo("RGBA").rotate(9), "WEBP", lossless=True),
    "an animated WebP": save(photo(), "WEBP", save_all=True, append_images=[photo().rotate(9)]),
    "a signed WebP": with_riff_chunk(WEBP, b"C2PA", b"JUMB"),
    "a WebP with one byte behind": WEBP + b"\0",
    "a BMP with a palette": save(photo("P"), "BMP"),
    "a BMP with 32 bits": save(photo("RGBA"), "BMP"),
    "a BMP with more behind": BMP + b"behind",
    "a compressed TIFF": save(photo(), "TIFF", compression="tiff_lzw"),
    "a TIFF with alpha": save(photo("RGBA"), "TIFF"),
    "a CMYK TIFF": save(photo("CMYK"), "TIFF"),
    "a TIFF with 16 bits": save(deep(), "TIFF"),
    "a TIFF of several pictures": save(photo(), "TIFF", save_all=True, append_images=[photo()]),
    "a TIFF with pixels in its header": MAC_TIFF.replace(struct.pack(">HHII", 273, 4, 1, 8), struct.pack(">HHII", 273, 4, 1, 4)),
    "a TIFF with an unknown tag": save(photo(), "TIFF", tiffinfo={50000: "?"}),
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_unsuitable(name: str) -> None:
    with pytest.raises(Unsuitable):
        probe(UNSUITABLE[name])


def with_pixels(png: bytes, deflated: bytes) -> bytes:
    """A PNG of IHDR, one IDAT and IEND; padded so that its dimensions stay plausible."""
    return png[:33] + chunk(b"IDAT", deflated) + chunk(b"prVt", bytes(1000)) + png[-12:]


def _changed(data: bytes, at: int, to: bytes) -> bytes:
    return data[:at] + to + data[at + len(to) :]


BROKEN = {
    "nothing": b"",
    "text": b"no picture\n" * 99,
    "a GIF": save(photo("P"), "GIF"),
    "a JPEG that ends in its last scan": JPEG[:-9],
    "a JPEG cut off in a scan, with an end": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    "a JPEG with zeroed sectors": _changed(JPEG, len(JPEG) // 2, bytes(512)),
    "a progressive JPEG without its last scans": (lambda data: data[: data.rindex(b"\xff\xda")] + b"\xff\xd9")(
        suitable("jpeg progressive")
    ),
    "a JPEG without quantisation": JPEG.replace(segment(0xDB, JPEG[JPEG.index(b"\xff\xdb") + 4 :][:65]), b"", 1),
    "a PNG with a wrong checksum": PNG[:-20] + bytes([PNG[-20] ^ 1]) + PNG[-19:],
    "a PNG without its end": PNG[:-12],
    "a PNG that inflates to less": with_pixels(PNG, zlib.compress(bytes(167 * (1 + 3 * 197) - 1))),
    "a PNG that inflates to more": with_pixels(PNG, zlib.compress(bytes(167 * (1 + 3 * 197) + 1))),
    "a PNG with a wrong Adler-32": with_pixels(PNG, zlib.compress(bytes(167 * (1 + 3 * 197)))[:-1] + b"?"),
    "a PNG with bytes behind its pixels": with_pixels(PNG, zlib.compress(bytes(167 * (1 + 3 * 197))) + b"?"),
    "a PNG with its pixels in two places": with_chunk(with_chunk(PNG, b"tEXt", b"a\0b"), b"IDAT", b""),
    "a WebP cut off": WEBP[:-100],
    "a WebP without a picture": with_riff_chunk(WEBP[:12], b"EXIF", b"\0\0"),
    "an extended WebP without width": (lambda data: _changed(data, data.index(b"\x9d\x01\x2a") + 3, bytes(2)))(
        suitable("webp with metadata")
    ),
    "a WebP with another canvas": (lambda data: _changed(data, 24, b"\0"))(suitable("webp with metadata")),
    "a WebP with a broken header": _changed(WEBP, 23, b"\0"),
    "a BMP cut off": BMP[:-1],
    "a BMP cut off in its header": BMP[:30],
    "a TIFF cut off": MAC_TIFF[:-20],
    "a TIFF without its last strip": TIFF[:-1],
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_picture(name: str) -> None:
    with pytest.raises(NotAPicture):
        probe(BROKEN[name])


def test_a_picture_is_judged_by_content_alone() -> None:
    with pytest.raises(NotAPicture):
        probe(JPEG[2:])


BOMB_SIDES = struct.pack(">II", 30000, 30000)
BOMBS = {
    "PNG beyond the limit": PNG[:8] + chunk(b"IHDR", BOMB_SIDES + bytes([8, 2, 0, 0, 0])) + PNG[33:],
    "PNG within the limit": PNG[:8] + chunk(b"IHDR", struct.pack(">II", 15000, 15000) + bytes([8, 2, 0, 0, 0])) + PNG[33:],
    "JPEG": JPEG.replace(struct.pack(">BHH", 8, 167, 197), struct.pack(">BHH", 8, 65500, 3000), 1),
    "WebP": _changed(WEBP, 26, struct.pack("<HH", 16383, 15000)),
    "lossless WebP": _changed(suitable("webp lossless"), 21, struct.pack("<I", 16383 | 15000 << 14)),
    "BMP": _changed(BMP, 18, struct.pack("<ii", 20000, 12000)),
    "TIFF": MAC_TIFF.replace(struct.pack(">HHIH", 257, 3, 1, 80), struct.pack(">HHIH", 257, 3, 1, 65000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_is_allocated_for_dimensions_that_a_file_cannot_hold(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((NotAPicture, Unsuitable)):
        probe(BOMBS[name])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB


def test_more_than_the_limit_is_unsuitable_whatever_it_holds() -> None:
    width = MAX_PIXELS // 65000 + 1
    with pytest.raises(Unsuitable, match="megapixels"):
        probe(JPEG.replace(struct.pack(">BHH", 8, 167, 197), struct.pack(">BHH", 8, 65000, width), 1))


def test_fill_bytes_before_jpeg_markers_stay_where_they_were() -> None:
    filled = JPEG.replace(b"\xff\xdb", b"\xff\xff\xff\xdb")[:-2] + b"\xff\xff\xd9"
    assert np.array_equal(probe(filled).pixels, probe(JPEG).pixels)
    assert probe(filled).metadata == probe(JPEG).metadata.replace(b"\xff\xdb", b"\xff\xff\xff\xdb")


def test_bmp_rows_may_come_top_down() -> None:
    stride, height = -(-3 * 197 // 4) * 4, 167
    rows = [BMP[54 + i * stride : 54 + (i + 1) * stride] for i in range(height)]
    top_down = _changed(BMP[:54], 22, struct.pack("<i", -height)) + b"".join(reversed(rows))
    assert np.array_equal(probe(top_down).pixels, probe(BMP).pixels)
