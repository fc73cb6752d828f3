"""Picture files for the tests: photos that scikit-image and scikit-learn ship, in all suitable formats and variants."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import sklearn.datasets
from PIL import Image, ImageCms, ImageFilter, PngImagePlugin

from sdfs.codec.pictures.picture import Picture

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.datasets.__file__).parent / "images"
MARKER = bytes(range(1, 33))
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@cache
def photo(mode: str = "RGB") -> Image.Image:
    """A detailed piece of a photo with odd sides."""
    return Image.open(SKIMAGE / "rocket.jpg").convert(mode).crop((150, 130, 347, 297))


def save(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def smoothed(picture: Picture) -> Picture:
    """As latents leave a picture: a little smoother."""
    image = Image.fromarray(picture.pixels).filter(ImageFilter.GaussianBlur(0.7))
    return dataclasses.replace(picture, pixels=np.asarray(image))


def decode(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.load()
    return np.asarray(image)


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6  # Orientation: to be shown rotated
    tags[0x010F] = "a camera maker"
    return tags


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload


def chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def riff_chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2)


def with_chunk(png: bytes, name: bytes, payload: bytes, before: bytes = b"IEND") -> bytes:
    """A PNG with one more chunk, before the first of type `before`."""
    at = png.index(before) - 4
    return png[:at] + chunk(name, payload) + png[at:]


def with_riff_chunk(webp: bytes, name: bytes, payload: bytes) -> bytes:
    """A WebP with one more chunk, at its end."""
    body = webp[8:] + riff_chunk(name, payload)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments, after its JFIF segment."""
    at = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:at] + b"".join(segments) + jpeg[at:]


def _jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return save(photo(mode), "JPEG", **options)


def _rich_jpeg() -> bytes:
    with_thumbnail = segment(0xE1, exif().tobytes() + _jpeg()[:500])
    return with_segments(
        _jpeg(), with_thumbnail, segment(0xE1, XMP), segment(0xE2, b"ICC_PROFILE\0\1\1" + ICC), segment(0xFE, b"a comment")
    )


def _rich_png() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a rocket")
    text.add_itxt("Comment", "gr\u00fcn", zip=True)
    png = save(photo(), "PNG", pnginfo=text, dpi=(300, 300), icc_profile=ICC, exif=exif())
    return with_chunk(with_chunk(png, b"prVt", b"private"), b"tEXt", b"Late\0after the picture")


SUITABLE: dict[str, Callable[[], bytes]] = {
    "jpeg 4:2:0": lambda: _jpeg(subsampling="4:2:0"),
    "jpeg 4:2:2": lambda: _jpeg(subsampling="4:2:2"),
    "jpeg 4:4:4": lambda: _jpeg(subsampling="4:4:4", quality=90),
    "jpeg progressive": lambda: _jpeg(progressive=True),
    "jpeg progressive 4:4:4": lambda: _jpeg(progressive=True, subsampling="4:4:4", quality=97),
    "jpeg optimised": lambda: _jpeg(optimize=True),
    "jpeg grey": lambda: _jpeg("L"),
    "jpeg grey progressive": lambda: _jpeg("L", progressive=True),
    "jpeg with restarts": lambda: _jpeg(restart_marker_rows=1),
    "jpeg of a camera": (SKLEARN / "china.jpg").read_bytes,
    "jpeg with metadata": _rich_jpeg,
    "jpeg of Adobe, YCbCr": lambda: with_segments(_jpeg(), segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")),
    "png": lambda: save(photo(), "PNG"),
    "png grey": lambda: save(photo("L"), "PNG"),
    "png with metadata": _rich_png,
    "png of a camera": (SKIMAGE / "chelsea.png").read_bytes,
    "webp": lambda: save(photo(), "WEBP", quality=80),
    "webp lossless": lambda: save(photo(), "WEBP", lossless=True),
    "webp with metadata": lambda: with_riff_chunk(save(photo(), "WEBP", icc_profile=ICC, exif=exif(), xmp=XMP), b"teSt", b"odd"),
    "webp lossless with metadata": lambda: save(photo(), "WEBP", lossless=True, icc_profile=ICC, exif=exif()),
    "bmp": lambda: save(photo(), "BMP"),
    "tiff": lambda: save(photo(), "TIFF"),
    "tiff grey": lambda: save(photo("L"), "TIFF"),
    "tiff with metadata": lambda: save(photo(), "TIFF", dpi=(300, 300), icc_profile=ICC, description="a rocket", software="none"),
    "tiff of many strips": lambda: save(photo(), "TIFF", strip_size=4096),
    "tiff big-endian": lambda: big_endian_tiff(),
}


def big_endian_tiff() -> bytes:
    """A grey 64×80 TIFF as a Macintosh would write it."""
    pixels = np.asarray(photo("L"))[:80, :64].tobytes()
    tags = [
        (256, 3, 64),
        (257, 3, 80),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 80),
        (279, 4, len(pixels)),
    ]
    entries = b"".join(
        struct.pack(">HHI", tag, type_, 1) + struct.pack(">I" if type_ == 4 else ">Hxx", value) for tag, type_, value in tags
    )
    return b"MM\0*" + struct.pack(">I", 8 + len(pixels)) + pixels + struct.pack(">H", len(tags)) + entries + bytes(4)


@cache
def suitable(name: str) -> bytes:
    return SUITABLE[name]()
