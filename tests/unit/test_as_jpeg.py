"""sdfs.codec.pictures.as_jpeg: a HEIC or AVIF picture as a JPEG that holds all that the file held."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageOps

from sdfs.codec.pictures import as_jpeg
from sdfs.codec.pictures.picture import render
from sdfs.errors import NotAPicture, Unsuitable
from tests.support.heif_samples import (
    CASES,
    ISO_GAIN_MAP,
    Part,
    avif,
    box,
    build,
    coded,
    exif,
    gain_map,
    heic,
    metadata,
    needs_cases,
    with_gain_map,
)
from tests.support.picture_samples import ICC, MARKER, photo

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
CONVERTIBLE = ["8-bit.heic", "8-bit-444.heic", "turned.heic", "thumbnail.heic", "gain-map.heic", "grid.heic", "8-bit.avif"]
LEAST_PSNR = 42.0  # dB, of the JPEG to the decoded HEIC
LEAST_GAIN_MAP_PSNR = 38.0  # dB: the photo that stands in its place here is rougher than gain maps are
LOOKS_ALIKE = 25.0  # dB: of pictures that are coded otherwise. Turned otherwise, the photo gives less than 15
TURNS = {  # how containers say what EXIF data say by these numbers
    1: [],
    2: [box(b"imir", b"\1")],
    3: [box(b"irot", b"\2")],
    4: [box(b"imir", b"\0")],
    5: [box(b"irot", b"\1"), box(b"imir", b"\0")],
    6: [box(b"irot", b"\3")],
    7: [box(b"irot", b"\3"), box(b"imir", b"\0")],
    8: [box(b"irot", b"\1")],
}


def convert(data: bytes) -> bytes:
    """The JPEG: a render of the picture's own pixels."""
    picture, size = as_jpeg.convert(data)
    return render(picture, size, MARKER)


def decoded(data: bytes) -> np.ndarray:
    """As a viewer of such files shows it."""
    if b"ftypavif" in data[:16]:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image))
    return np.asarray(pillow_heif.open_heif(io.BytesIO(data)))


def shown(jpeg: bytes) -> np.ndarray:
    """As a viewer of JPEG shows it, who heeds EXIF data."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(ImageOps.exif_transpose(image))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


@needs_cases
@pytest.mark.parametrize("name", CONVERTIBLE)
def test_a_case_looks_as_it_did(name: str) -> None:
    data = (CASES / name).read_bytes()
    picture, _ = as_jpeg.convert(data)
    assert np.array_equal(picture.pixels, decoded(data))
    assert psnr(shown(convert(data)), picture.pixels) > LEAST_PSNR


@pytest.mark.parametrize("orientation", TURNS)
def test_a_heic_is_turned_once(orientation: int) -> None:
    """By its container; EXIF data and XMP say the same."""
    xmp = b'<x tiff:Orientation="%d"/>' % orientation
    parts = [coded("RGB", (192, 128), *TURNS[orientation]), metadata(b"Exif", exif(orientation)), metadata(b"mime", xmp)]
    assert_upright(convert(build(parts, [(b"cdsc", 2, (1,)), (b"cdsc", 3, (1,))])), photo().resize((192, 128)), orientation)


@pytest.mark.parametrize("orientation", TURNS)
def test_an_avif_is_turned_once(orientation: int) -> None:
    """Pillow has the container turn it, as EXIF data say."""
    xmp = b"<x><tiff:Orientation>%d</tiff:Orientation></x>" % orientation
    assert_upright(convert(avif(quality=90, exif=b"Exif\0\0" + exif(orientation), xmp=xmp)), photo(), orientation)


def assert_upright(jpeg: bytes, image: Image.Image, orientation: int) -> None:
    turned = image.copy()
    turned.getexif()[0x0112] = orientation
    assert psnr(shown(jpeg), np.asarray(ImageOps.exif_transpose(turned))) > LOOKS_ALIKE
    with Image.open(io.BytesIO(jpeg)) as result:
        assert result.getexif().get(0x0112, 1) == 1
        assert not any(b"Orientation%s%d" % (mark, number) in result.info["xmp"] for mark in (b">", b'="') for number in range(2, 9))


def test_what_exif_data_say_without_the_container_turns_nothing() -> None:
    """A viewer of HEIC does not heed them: the JPEG is to look as it did."""
    jpeg = convert(build([coded("RGB", (192, 128)), metadata(b"Exif", exif(6))]))
    assert psnr(shown(jpeg), np.asarray(photo().resize((192, 128)))) > LOOKS_ALIKE


class TestColours:
    def test_the_profile_is_the_same(self) -> None:
        with Image.open(io.BytesIO(convert(heic(icc_profile=ICC)))) as image:
            assert image.info["icc_profile"] == ICC

    def test_srgb_needs_none(self) -> None:
        with Image.open(io.BytesIO(convert(build([coded()])))) as image:
            assert "icc_profile" not in image.info

    def test_display_p3_gets_one(self) -> None:
        """Its green, the purest there is, is out of sRGB's reach; its greys are sRGB's."""
        nclx = box(b"colr", b"nclx" + struct.pack(">HHHB", 12, 13, 6, 128))
        with Image.open(io.BytesIO(convert(build([coded("RGB", (192, 128), nclx)])))) as image:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        colours = Image.new("RGB", (2, 1))
        colours.putdata([(0, 255, 0), (119, 119, 119)])
        lab = ImageCms.profileToProfile(colours, profile, ImageCms.createProfile("LAB"), outputMode="LAB")
        assert lab is not None
        (_, *green), (level, *grey) = (np.array(lab.getpixel((x, 0))).astype(int) - (0, 128, 128) for x in (0, 1))
        assert np.abs(np.array(green) - (-107, 103)).max() <= 2  # by the primaries, adapted to D50; sRGB's has (-79, 81)
        assert abs(level / 2.55 - 50) < 1  # 119 has L* = 50 in sRGB
        assert np.abs(grey).max() <= 1

    def test_grey_stays_grey(self) -> None:
        for data in (heic(photo("L")), avif(photo("L"))):
            with Image.open(io.BytesIO(convert(data))) as image:
                assert image.mode == "L"


class TestGainMaps:
    def maps(self, jpeg: bytes) -> tuple[bytes, bytes]:
        """The picture, and what lies behind it: as the index says."""
        at = jpeg.index(b"MPF\0") + 4
        first, second, offset = struct.unpack_from(">4xI8x4xII", jpeg, at + 50)
        assert (len(jpeg), first) == (first + second, at + offset)
        return jpeg[:first], jpeg[first:]

    def test_it_lies_behind_the_picture_and_is_turned_as_that(self) -> None:
        data = with_gain_map(box(b"irot", b"\3"))
        _, second = self.maps(convert(data))
        image = pillow_heif.open_heif(io.BytesIO(data))[0]
        [number] = image.info["aux"]["urn:com:apple:photo:2020:aux:hdrgainmap"]
        before = np.asarray(image.get_aux_image(number))
        assert before.shape == (96, 64)
        assert psnr(shown(second), before) > LEAST_GAIN_MAP_PSNR

    def test_its_xmp_is_kept_and_says_what_it_is(self) -> None:
        _, second = self.maps(convert(with_gain_map()))
        assert b'HDRGainMapVersion="131072" HDRGainMap:HDRGainMapHeadroom="3.5"' in second
        assert b'apdi:AuxiliaryImageType="urn:com:apple:photo:2020:aux:hdrgainmap"' in second

    def test_metadata_of_iso_21496_are_kept_on_both(self) -> None:
        picture, second = self.maps(convert(with_gain_map(tone_map=True)))
        assert b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0" in picture
        assert b"urn:iso:std:iso:ts:21496:-1\0" + ISO_GAIN_MAP in second

    def test_one_in_colours_of_its_own_stays(self) -> None:
        iso = b"\0" + ISO_GAIN_MAP[:4] + b"\0" + ISO_GAIN_MAP[5:]
        data = build([coded(), gain_map(), Part(b"tmap", iso)], [(b"auxl", 2, (1,)), (b"dimg", 3, (1, 2))])
        with pytest.raises(Unsuitable, match="a gain map in other colours than its picture's"):
            as_jpeg.convert(data)

    @needs_exiftool
    def test_exiftool_finds_it(self, tmp_path: Path) -> None:
        (path := tmp_path / "a.jpg").write_bytes(jpeg := convert(with_gain_map()))
        assert extracted(path, "MPImage2") == self.maps(jpeg)[1]


@needs_cases
@needs_exiftool
@pytest.mark.parametrize("name", CONVERTIBLE)
def test_exiftool_reads_the_same_of_a_case(name: str, tmp_path: Path) -> None:
    (path := tmp_path / "a.jpg").write_bytes(convert((CASES / name).read_bytes()))
    before, after = tags(CASES / name), tags(path)
    if "IFD0:Orientation" in before:
        assert after.pop("IFD0:Orientation") == "Horizontal (normal)"
        del before["IFD0:Orientation"]
    assert {group: value for group, value in before.items() if group in after} == before
    assert extracted(path, "ICC_Profile") == extracted(CASES / name, "ICC_Profile")


def tags(path: Path) -> dict[str, Any]:
    """What describes the picture, and not the file around it."""
    told = subprocess.run(["exiftool", "-json", "-G1", "-a", path], check=True, capture_output=True)
    return {name: value for name, value in json.loads(told.stdout)[0].items() if name.startswith(("IFD", "ExifIFD", "GPS", "ICC", "XMP"))}


def extracted(path: Path, tag: str) -> bytes:
    return subprocess.run(["exiftool", "-b", f"-{tag}", path], check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([metadata(b"Exif", b"MM\0*\xff\xff\xff\xff")], "EXIF data that cannot be read"),
        ([metadata(b"Exif", exif() + bytes(70_000))], "more than a segment of a JPEG holds"),
        ([metadata(b"mime", b" " * 70_000)], "more than a segment of a JPEG holds"),
    ],
)
def test_what_does_not_fit_stays_as_it_came(parts: list[Part], why: str) -> None:
    with pytest.raises(Unsuitable, match=why):
        as_jpeg.convert(build([coded(), *parts]))


def test_a_heic_with_a_hole_is_no_picture() -> None:
    data = heic()
    at = data.index(b"mdat") + 200
    with pytest.raises(NotAPicture, match="a hole of zeros"):
        as_jpeg.convert(data[:at] + bytes(100) + data[at + 100 :])


def test_an_avif_with_a_hole_stays_as_it_came() -> None:
    data = avif()
    at = data.index(b"mdat") + 200
    with pytest.raises(Unsuitable, match="a hole of zeros"):
        as_jpeg.convert(data[:at] + bytes(100) + data[at + 100 :])


def test_what_does_not_decode_stays_as_it_came() -> None:
    data = avif()
    at = data.index(b"mdat") + 16  # in the headers
    with pytest.raises(Unsuitable, match="an AVIF picture that does not decode"):
        as_jpeg.convert(data[:at] + bytes(30) + data[at + 30 :])


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(Unsuitable, match=r"pip install 'sdfs-fuse\[heic\]'"):
        as_jpeg.convert(heic())
