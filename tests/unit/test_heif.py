"""sdfs.codec.pictures.formats.heif: HEIC and AVIF are recognised, and kept with the reason that a user understands."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.codec.pictures.formats import heif
from sdfs.codec.pictures.formats.heif import Turn, examine
from sdfs.codec.pictures.picture import find_marker, probe
from sdfs.errors import NotAPicture, PictureError, Unsuitable
from tests.support.heif_samples import (
    CASES,
    GAIN_MAP_XMP,
    ISO_GAIN_MAP,
    Part,
    avif,
    box,
    build,
    coded,
    exif,
    full,
    gain_map,
    heic,
    metadata,
    needs_cases,
    with_gain_map,
)
from tests.support.picture_samples import photo

PLAIN_HEIC = "a HEIC picture: `--heic jpeg` stores it as a JPEG"
PLAIN_AVIF = "an AVIF picture: `--heic jpeg` stores it as a JPEG"
REASONS = {
    "8-bit.heic": PLAIN_HEIC,
    "8-bit-444.heic": PLAIN_HEIC,
    "turned.heic": PLAIN_HEIC,
    "thumbnail.heic": PLAIN_HEIC,
    "gain-map.heic": PLAIN_HEIC,
    "grid.heic": PLAIN_HEIC,
    "8-bit.avif": PLAIN_AVIF,
    "10-bit.heic": "10 bits a sample",
    "10-bit.avif": "10 bits a sample",
    "alpha.heic": "an alpha plane",
    "alpha.avif": "an alpha plane",
    "two-images.heic": "several pictures",
    "motion.heic": "a motion photo",
    "sequence.avif": "an animation",
}
SAMPLES = {"heic": heic(), "avif": avif(), "gain map": with_gain_map(tone_map=True)}


def reason(data: bytes) -> str:
    with pytest.raises(Unsuitable) as raised:
        probe(data)
    return str(raised.value)


@pytest.mark.parametrize("brand", ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1", "miaf"])
def test_the_brands_of_heic(brand: str) -> None:
    assert picture_format(b"\0\0\0\x18ftyp" + brand.encode() + bytes(4)) == "heic"


@pytest.mark.parametrize("brand", ["avif", "avis"])
def test_the_brands_of_avif(brand: str) -> None:
    assert picture_format(b"\0\0\0\x18ftyp" + brand.encode() + bytes(4)) == "avif"


@pytest.mark.parametrize("head", [b"\0\0\0\x18ftypisom\0\0\0\0", b"\0\0\0\x14ftypqt  \0\0\0\0", b"\0\0\0\x18ftyp", b"ftypheic"])
def test_films_are_no_pictures(head: bytes) -> None:
    assert picture_format(head) is None


@needs_cases
@pytest.mark.parametrize("name", REASONS)
def test_each_case_has_its_reason(name: str) -> None:
    assert reason((CASES / name).read_bytes()) == REASONS[name]


@needs_cases
def test_one_that_is_cut_off_is_no_picture() -> None:
    with pytest.raises(NotAPicture, match="it is cut off"):
        probe((CASES / "truncated.heic").read_bytes())


@needs_cases
@pytest.mark.parametrize(
    "path", [path for kind in ("heic", "avif") for path in sorted(CASES.glob(f"poison-*.{kind}"))], ids=lambda path: path.name
)
def test_poison_is_refused_before_anything_is_decoded(path: Path) -> None:
    data = path.read_bytes()
    began_at = time.thread_time()
    with pytest.raises(PictureError):
        probe(data)
    assert time.thread_time() - began_at < 0.3


class TestWhatAJpegCanHold:
    def test_dimensions_that_are_no_whole_blocks(self) -> None:
        for size in ((201, 151), (97, 98)):
            still = examine(heic(photo().resize(size)))
            assert (still.name, still.width, still.height) == ("HEIC", *size)

    def test_grey(self) -> None:
        assert examine(heic(photo("L"))).grey
        assert examine(avif(photo("L"))).grey
        assert not examine(heic()).grey

    def test_tiles(self) -> None:
        still = examine(heic(photo().resize((400, 300)), tile_size=128))
        assert (still.width, still.height) == (400, 300)

    def test_metadata(self) -> None:
        still = examine(heic(exif=b"Exif\0\0" + exif(), xmp=b"<x:xmpmeta/>"))
        assert (still.exif, still.xmp) == (exif(), b"<x:xmpmeta/>")

    def test_turns_swap_the_sides(self) -> None:
        still = examine(build([coded("RGB", (192, 128), box(b"irot", b"\3"), box(b"imir", b"\1"))]))
        assert (still.turn, still.width, still.height) == (Turn(3, 1), 128, 192)

    def test_gain_maps(self) -> None:
        still = examine(with_gain_map(box(b"irot", b"\1"), tone_map=True))
        assert still.gain_map is not None
        assert (still.gain_map.width, still.gain_map.height) == (64, 96)
        assert (still.gain_map.xmp, still.gain_map.iso) == (GAIN_MAP_XMP, ISO_GAIN_MAP)


PICTURE = coded()
AUXILIARY = coded("L", (96, 64))
COLOURS = "colours that are neither sRGB nor Display P3"
CANNOT = {
    "a depth map": build([PICTURE, coded("L", (96, 64), full(b"auxC", b"urn:mpeg:hevc:2015:auxid:2\0"))], [(b"auxl", 2, (1,))]),
    "an alpha plane": heic(photo().convert("RGBA")),
    "an auxiliary picture": build([PICTURE, coded("L", (96, 64), full(b"auxC", b"urn:x\0"))], [(b"auxl", 2, (1,))]),
    "several pictures": build([PICTURE, coded("L", (96, 64))]),
    "a gain map": build([PICTURE, AUXILIARY, Part(b"tmap", b"\0" + ISO_GAIN_MAP)], [(b"dimg", 3, (1, 2))]),
    "a gain map of another picture": build([PICTURE, coded(), gain_map()], [(b"auxl", 3, (2,))]),
    "a gain map of colours, or turned": build([PICTURE, gain_map(box(b"irot", b"\1"))], [(b"auxl", 2, (1,))]),
    "an item 'iden'": build([PICTURE, Part(b"iden", b"")], [(b"dimg", 2, (1,))]),
    "a picture coded as 'jpeg'": build([Part(b"jpeg", b"\xff\xd8", PICTURE.properties)]),
    "HDR colours .PQ.": build([coded("RGB", (192, 128), box(b"colr", b"nclx" + struct.pack(">HHHB", 9, 16, 9, 128)))]),
    "HDR colours .HLG.": build([coded("RGB", (192, 128), box(b"colr", b"nclx" + struct.pack(">HHHB", 9, 18, 9, 128)))]),
    COLOURS: build([coded("RGB", (192, 128), box(b"colr", b"nclx" + struct.pack(">HHHB", 9, 1, 9, 128)))]),
    "pixels that are no squares": build([coded("RGB", (192, 128), box(b"pasp", struct.pack(">II", 4, 3)))]),
    "hides a part": build([coded("RGB", (192, 128), box(b"clap", struct.pack(">4I4i", 100, 1, 100, 1, 0, 1, 0, 1)))]),
    "a property 'udes'": build([coded("RGB", (192, 128), full(b"udes", bytes(4)))]),
    "a reference 'base'": build([PICTURE, PICTURE], [(b"base", 1, (2,))]),
    "metadata that a JPEG has no place for": build([PICTURE, Part(b"mime", b"{}", content_type=b"application/json")]),
    "EXIF data that do not begin like such": build([PICTURE, metadata(b"Exif", b"nonsense")]),
    "content credentials": heic() + box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + b"manifest"),
    "a box 'sefd'": heic() + box(b"sefd", b"SEFT"),
    "100 zeros behind the picture": heic() + bytes(100),
    "a side is shorter than 64": heic(photo().resize((100, 40))),
    "other dimensions in the coded picture": build(
        [
            Part(
                b"hvc1",
                PICTURE.data,
                [one for one in PICTURE.properties if b"ispe" not in one] + [full(b"ispe", struct.pack(">II", 80, 80))],
            )
        ]
    ),
    "more than 2,000 boxes": box(b"ftyp", b"heic" + bytes(4)) + box(b"free") * 3000,
}


@pytest.mark.parametrize("why", CANNOT)
def test_what_a_jpeg_cannot_hold(why: str) -> None:
    with pytest.raises(Unsuitable, match=why):
        probe(CANNOT[why])


def test_the_depth_of_tiles_counts() -> None:
    file = pillow_heif.from_bytes(mode="RGB;16", size=(256, 256), data=bytes(256 * 256 * 6))
    file.save(buffer := io.BytesIO(), bit_depth=10, tile_size=128)
    assert reason(buffer.getvalue()) == "10 bits a sample"


@pytest.mark.parametrize("kind", SAMPLES)
def test_every_beginning_of_one_is_cut_off(kind: str) -> None:
    data = SAMPLES[kind]
    for end in [*range(HEAD_BYTES, 1000), *range(1000, len(data), 997), len(data) - 1]:
        with pytest.raises(NotAPicture):
            probe(data[:end])


@pytest.mark.parametrize("rest", [b"\0", b"12345", b"\0\0\1\0free"])
def test_what_follows_must_be_boxes(rest: bytes) -> None:
    with pytest.raises(NotAPicture, match="it is cut off"):
        probe(heic() + rest)


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=200)
@given(st.data())
def test_whatever_the_bytes_nothing_else_is_raised(kind: str, data: st.DataObject) -> None:
    changed = bytearray(SAMPLES[kind])
    reach = changed.index(b"mdat") + 40
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, reach))
        changed[at : at + 1] = data.draw(st.binary(min_size=0, max_size=3))
    find_marker(bytes(changed))
    with suppress(NotAPicture, Unsuitable):
        probe(bytes(changed))


def many(count: int) -> dict[str, bytes]:
    """Files that say something so many times."""
    ids = struct.pack(">H", 1) * count
    overlapping = struct.pack(">HHH", 1, 0, count) + struct.pack(">II", 0, 1000) * count
    nothing = struct.pack(">HHH", 1, 0, 65_535) * (count // 4)
    return {
        "references": meta(box(b"iref", bytes(4) + box(b"dimg", struct.pack(">HH", 1, count) + ids))),
        "associations": meta(iprp=full(b"ipma", struct.pack(">I", count) + struct.pack(">HBB", 1, 1, 1) * count)),
        "extents that overlap": meta(iloc=full(b"iloc", struct.pack(">HH", 0x4400, 1) + overlapping)),
        "extents of nothing": meta(iloc=full(b"iloc", struct.pack(">HH", 0, count // 4) + nothing)),
        "items": meta(iinf=full(b"iinf", struct.pack(">H", count) + full(b"infe", struct.pack(">HH", 2, 0) + b"hvc1\0", 2) * count)),
        "boxes": box(b"ftyp", b"heic" + bytes(4)) + box(b"free") * count,
    }


def meta(further: bytes = b"", *, iprp: bytes = b"", iloc: bytes = b"", iinf: bytes = b"") -> bytes:
    """A HEIC of one item whose metadata are these boxes."""
    hvc1 = full(b"infe", struct.pack(">HH", 1, 0) + b"hvc1\0", 2)
    return box(b"ftyp", b"heic" + bytes(12)) + full(
        b"meta",
        full(b"hdlr", bytes(4) + b"pict" + bytes(13))
        + full(b"pitm", struct.pack(">H", 1))
        + (iloc or full(b"iloc", struct.pack(">HH", 0x4400, 0)))
        + (iinf or full(b"iinf", struct.pack(">H", 1) + hvc1))
        + box(b"iprp", box(b"ipco", full(b"ispe", struct.pack(">II", 64, 64))) + iprp)
        + further,
    )


@pytest.mark.parametrize("what", many(4))
def test_work_and_memory_are_linear_in_the_file(what: str) -> None:
    data = many(40_000)[what]
    tracemalloc.start()
    began_at = time.thread_time()
    with pytest.raises(PictureError):
        probe(data)
    took, peak = time.thread_time() - began_at, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 3  # with tracemalloc, which makes it several times slower
    assert peak < 40 * len(data)


def test_it_has_no_renders() -> None:
    assert find_marker(heic()) is None
    assert heif.recipes({}) == ({},)


def test_orientations_of_avif_are_the_containers() -> None:
    for orientation, turn in {3: Turn(2), 6: Turn(3), 8: Turn(1), 2: Turn(0, 1), 4: Turn(0, 0)}.items():
        tags = Image.Exif()
        tags[0x0112] = orientation
        assert examine(avif(exif=tags.tobytes())).turn == turn
