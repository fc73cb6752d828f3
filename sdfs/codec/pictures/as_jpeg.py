"""A HEIC or AVIF picture as the JPEG that a phone would have written in its place.

    SOI, JFIF, EXIF data, XMP, ICC profile, [the index of what lies behind the picture: MPF], tables and scans, EOI, [the gain map: a JPEG]

The container turns the pixels, so that EXIF data and XMP say afterwards that they stand upright: what they said was for information only
(ISO/IEC 23008-12, annex A). An Apple gain map becomes a second JPEG, as iPhones write it in JPEGs (CIPA DC-007, and Apple's XMP in it; and
segments of ISO 21496-1 where the HEIC has such metadata). The container's thumbnail is left out: it is the picture, smaller.

Latents are made of the pixels of the HEIC; the JPEG says what a render of them looks like, and how large it is.
"""

from __future__ import annotations

import functools
import io
import re
import struct
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from sdfs.codec.pictures.formats import heif, jpeg
from sdfs.codec.pictures.formats.heif import GainMap, Still
from sdfs.codec.pictures.formats.jpeg_segments import APP1, APP2
from sdfs.codec.pictures.formats.shared import Pixels
from sdfs.codec.pictures.picture import Picture
from sdfs.errors import Unsuitable

QUALITY = 95  # libjpeg's, and no subsampling
GAIN_MAP_QUALITY = 85  # 50 dB for an iPhone's, which is smooth, in half the bytes of 95
_MAX_SIDE = 65_500  # of what libjpeg writes
_MAX_PAYLOAD = 65_533  # bytes of a segment
_EXIF, _XMP, _ICC, _MPF = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"MPF\0"
_ORIENTATION, _SHORT = 0x0112, 3  # EXIF: a tag, a type
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*)[2-8]")
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_PRIMARY_PICTURE = 0x030000  # MPF: attributes of the first
_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
_MIRRORS = {0: Image.Transpose.FLIP_TOP_BOTTOM, 1: Image.Transpose.FLIP_LEFT_RIGHT}
_P3_PRIMARIES = (0.680, 0.320, 1.0, 0.265, 0.690, 1.0, 0.150, 0.060, 1.0)  # SMPTE EG 432-1: x, y, Y of red, green, blue
_D65 = (0.3127, 0.3290, 1.0)
_CURVE_POINTS = 1024
_GAIN_MAP_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/" HDRGainMap:HDRGainMapVersion="65536"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
_AUXILIARY = b' xmlns:apdi="http://ns.apple.com/pixeldatainfo/1.0/" apdi:AuxiliaryImageType="urn:com:apple:photo:2020:aux:hdrgainmap"'


def convert(data: bytes) -> tuple[Picture, int]:
    """The picture, to be rendered as a JPEG, and the size in bytes of that JPEG.

    Raises NotAPicture (broken, cut off) and Unsuitable: it has what a JPEG cannot hold, or cannot be decoded, or not here.
    """
    still = heif.examine(data)
    if max(still.width, still.height) > _MAX_SIDE:
        raise Unsuitable(f"{still.width}×{still.height} pixels: a JPEG has at most {_MAX_SIDE} a side")
    pixels, gain_map = _decode_avif(data, still) if still.name == "AVIF" else _decode_heic(data, still)
    behind = b"" if still.gain_map is None or gain_map is None else _gain_map_jpeg(still.gain_map, gain_map)
    whole = _jpeg(pixels, _descriptions(still), len(behind)) + behind
    return replace(Picture("jpeg", *jpeg.read(whole)), pixels=pixels), len(whole)


def _decode_heic(data: bytes, still: Still) -> tuple[Pixels, Pixels | None]:
    """The pixels as they are shown, and those of the gain map."""
    try:
        import pillow_heif
    except ImportError:
        raise Unsuitable("pillow-heif, which reads HEIC pictures, is not installed: pip install 'sdfs-fuse[heic]'") from None
    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        image = file[file.primary_index]
        pixels = np.asarray(image)
        gain_map = None if still.gain_map is None else np.asarray(image.get_aux_image(still.gain_map.item))
    except Exception as error:  # whatever libheif and its decoders say
        raise Unsuitable(f"a HEIC picture that does not decode: {error}") from error
    if gain_map is not None and still.gain_map is not None:
        gain_map = _checked(gain_map, still.gain_map, grey=True)
    return _checked(pixels, still, grey=still.grey), gain_map


def _decode_avif(data: bytes, still: Still) -> tuple[Pixels, None]:
    """The pixels as they are shown. Pillow gives them as they are coded."""
    try:
        with Image.open(io.BytesIO(data), formats=["AVIF"]) as image:
            turned: Image.Image = image
            if still.turn.quarters:
                turned = turned.transpose(_TURNS[still.turn.quarters])
            if still.turn.mirror is not None:
                turned = turned.transpose(_MIRRORS[still.turn.mirror])
            pixels = np.asarray(turned)
    except Exception as error:  # whatever libavif and its decoders say
        raise Unsuitable(f"an AVIF picture that does not decode: {error}") from error
    return _checked(pixels, still, grey=still.grey), None


def _checked(pixels: npt.NDArray[Any], claimed: Still | GainMap, *, grey: bool) -> Pixels:
    shape = (claimed.height, claimed.width) if grey else (claimed.height, claimed.width, 3)
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise Unsuitable(f"want {shape} uint8 pixels, the decoder has {pixels.shape} {pixels.dtype}")
    return np.ascontiguousarray(pixels)


def _jpeg(pixels: Pixels, descriptions: bytes, behind: int = 0, quality: int = QUALITY) -> bytes:
    """A JPEG, with an index of itself and of so many bytes behind it, if there are any."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    coded = buffer.getvalue()
    first = 4 + int.from_bytes(coded[4:6], "big")  # behind JFIF's segment
    before, after = coded[:first] + descriptions, coded[first:]
    if not behind:
        return before + after
    end = len(before) + len(_index(0, 0, 0)) + len(after)
    return before + _index(end, behind, end - len(before) - _INDEX_MARK) + after


_INDEX_MARK = 4 + len(_MPF)  # where in the segment the index begins; its offsets count from there


def _index(first: int, second: int, offset: int) -> bytes:
    """MPF's segment, of two pictures: their sizes, and where the second begins (CIPA DC-007, 5.2)."""
    tags = struct.pack(">HHI4sHHIIHHII", 0xB000, 7, 4, b"0100", 0xB001, 4, 1, 2, 0xB002, 7, 32, 8 + 2 + 3 * 12 + 4)
    entries = struct.pack(">IIIHHIIIHH", _PRIMARY_PICTURE, first, 0, 0, 0, 0, second, offset, 0, 0)
    return _segment(APP2, _MPF + b"MM\0*" + struct.pack(">IH", 8, 3) + tags + bytes(4) + entries)


def _segment(marker: int, payload: bytes) -> bytes:
    if len(payload) > _MAX_PAYLOAD:
        raise Unsuitable(f"{len(payload)} bytes of metadata, more than a segment of a JPEG holds")
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _descriptions(still: Still) -> bytes:
    """The segments that describe the picture."""
    segments = b"" if still.exif is None else _segment(APP1, _EXIF + _upright(still.exif))
    if still.xmp is not None:
        segments += _segment(APP1, _XMP + _XMP_ORIENTATION.sub(rb"\g<1>1", still.xmp))
    profile = still.icc if still.icc is not None else _display_p3() if still.colours.primaries == heif.P3 else b""
    room = _MAX_PAYLOAD - len(_ICC) - 2
    pieces = [profile[at : at + room] for at in range(0, len(profile), room)]
    if len(pieces) > 255:
        raise Unsuitable(f"an ICC profile of {len(profile)} bytes, more than a JPEG holds")
    segments += b"".join(_segment(APP2, _ICC + bytes([number, len(pieces)]) + piece) for number, piece in enumerate(pieces, start=1))
    if still.gain_map is not None and still.gain_map.iso:
        segments += _segment(APP2, _ISO_GAIN_MAP + bytes(4))  # the least version that a reader must know, and the writer's
    return segments


def _upright(exif: bytes) -> bytes:
    """EXIF data by which the pixels need not be turned any more."""
    order = "<" if exif.startswith(b"II") else ">"
    changed = bytearray(exif)
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            if struct.unpack_from(order + "HHI", exif, entry) == (_ORIENTATION, _SHORT, 1):
                struct.pack_into(order + "H", changed, entry + 8, 1)
    except struct.error:
        raise Unsuitable("EXIF data that cannot be read") from None
    return bytes(changed)


def _gain_map_jpeg(gain_map: GainMap, pixels: Pixels) -> bytes:
    xmp = gain_map.xmp or _GAIN_MAP_XMP
    if b"AuxiliaryImageType" not in xmp:
        xmp = xmp.replace(b"<rdf:Description", b"<rdf:Description" + _AUXILIARY, 1)
    iso = _segment(APP2, _ISO_GAIN_MAP + gain_map.iso) if gain_map.iso else b""
    return _jpeg(pixels, _segment(APP1, _XMP + xmp) + iso, quality=GAIN_MAP_QUALITY)


@functools.cache
def _display_p3() -> bytes:
    """An ICC profile of Display P3."""
    levels = np.linspace(0, 1, _CURVE_POINTS)
    curve = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    return bytes(imagecodecs.cms_profile("rgb", whitepoint=_D65, primaries=_P3_PRIMARIES, transferfunction=curve.astype(np.float32)))
