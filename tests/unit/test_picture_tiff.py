"""TIFF as it comes: strips and tiles, chunky and planar, compressed or not, classic and BigTIFF, either byte order."""

from __future__ import annotations

import dataclasses
import io
import struct
import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sdfs.codec.pictures.formats import tiff_directory
from sdfs.codec.pictures.picture import fit, probe, render
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable
from tests.support.picture_samples import ICC, MARKER, big_endian_tiff, photo, save, smoothed

RGB, GREY = np.asarray(photo()), np.asarray(photo("L"))
ALPHA = np.tile(np.arange(1, 198, dtype=np.uint8), (167, 1))
GEO = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 32632), True)]
NOISE = np.random.default_rng(0).integers(0, 256, RGB.shape, np.uint8)
COUNTS = {279, 325}
PLACES = {273, 324}


def tiff(pixels: np.ndarray = RGB, **options: Any) -> bytes:
    photometric = "minisblack" if pixels.ndim == 2 or pixels.shape[2] == 2 else "rgb"
    buffer = io.BytesIO()
    file = {name: options.pop(name) for name in ("byteorder", "bigtiff") if name in options}
    with tifffile.TiffWriter(buffer, **file) as writer:
        writer.write(pixels, **{"photometric": photometric, "metadata": None, "software": "tests", **options})
    return buffer.getvalue()


def clear(alpha: np.ndarray) -> np.ndarray:
    """Premultiplied."""
    return np.dstack([np.minimum(RGB, alpha[:, :, None]), alpha])


FILES: dict[str, Callable[[], bytes]] = {
    "one strip": tiff,
    "strips": lambda: tiff(rowsperstrip=16),
    "tiles": lambda: tiff(tile=(64, 80)),
    "planes": lambda: tiff(np.moveaxis(RGB, 2, 0), planarconfig="separate", rowsperstrip=50),
    "white is zero": lambda: tiff(GREY, photometric="miniswhite"),
    "opaque": lambda: tiff(np.dstack([RGB, np.full_like(ALPHA, 255)]), extrasamples=["assocalpha"]),
    "opacity": lambda: tiff(np.dstack([RGB, ALPHA]), extrasamples=["unassalpha"], rowsperstrip=16),
    "grey with opacity": lambda: tiff(np.dstack([GREY, ALPHA]), extrasamples=["unassalpha"]),
    "premultiplied": lambda: tiff(clear(ALPHA), extrasamples=["assocalpha"]),
    "BigTIFF": lambda: tiff(bigtiff=True, rowsperstrip=16),
    "big-endian BigTIFF": lambda: tiff(bigtiff=True, byteorder=">"),
    "geo tags": lambda: tiff(extratags=GEO),
    "a private tag and a profile": lambda: tiff(iccprofile=ICC, extratags=[(65000, "s", 0, "private", True)]),
    "LZW": lambda: tiff(compression="lzw"),
    "LZW of differences": lambda: tiff(compression="lzw", predictor=2, rowsperstrip=16),
    "LZW by libtiff": lambda: save(photo(), "TIFF", compression="tiff_lzw"),
    "LZW, planes": lambda: tiff(np.moveaxis(RGB, 2, 0), planarconfig="separate", compression="lzw", predictor=2, rowsperstrip=50),
    "LZW, opacity": lambda: tiff(np.dstack([RGB, ALPHA]), extrasamples=["unassalpha"], compression="lzw", predictor=2),
    "Deflate": lambda: tiff(compression="zlib", rowsperstrip=32),
    "Deflate of differences, big-endian": lambda: tiff(compression="zlib", predictor=2, rowsperstrip=32, byteorder=">"),
    "Deflate by libtiff": lambda: save(photo(), "TIFF", compression="tiff_adobe_deflate"),
    "Deflate, its older code": lambda: tiff(compression="deflate", predictor=2),
    "Deflate, tiles": lambda: tiff(compression="zlib", predictor=2, tile=(64, 64)),
    "Deflate, grey": lambda: tiff(GREY, compression="zlib", predictor=2),
    "Deflate, BigTIFF": lambda: tiff(compression="zlib", predictor=2, rowsperstrip=16, bigtiff=True),
    "PackBits": lambda: tiff(NOISE, compression="packbits", rowsperstrip=20),
}
UNCOMPRESSED = [name for name in FILES if not name.startswith(("LZW", "Deflate", "PackBits"))]


@cache
def file(name: str) -> bytes:
    return FILES[name]()


def stored(data: bytes) -> np.ndarray:
    """(H, W, samples) as the file has them."""
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages[0]
        samples = page.asarray()
        if page.planarconfig == 2:
            samples = np.moveaxis(samples, 0, 2)
        return 255 - samples if page.photometric == 0 else samples


def tags(data: bytes) -> dict[int, tuple[object, int]]:
    """The value of each tag, and where it is."""
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        return {tag.code: (tag.value, tag.valueoffset) for tag in opened.pages[0].tags.values()}


def expected(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    return pixels if alpha is None else np.dstack([pixels, alpha])


@pytest.mark.parametrize("name", FILES)
def test_pixels_and_opacity_are_as_coded(name: str) -> None:
    picture = probe(file(name))
    assert np.array_equal(expected(picture.pixels, picture.alpha), stored(file(name)))


@pytest.mark.parametrize("name", FILES)
def test_a_render_has_the_size_of_its_source_and_new_pixels(name: str) -> None:
    picture = smoothed(probe(file(name)))
    _, rendered = fit(picture, len(file(name)), MARKER)
    assert len(rendered) == len(file(name))
    pixels = np.minimum(picture.pixels, picture.alpha[:, :, None]) if name == "premultiplied" else picture.pixels
    assert np.array_equal(stored(rendered), expected(pixels, picture.alpha))
    if "BigTIFF" not in name:  # Pillow knows too little of it
        with Image.open(io.BytesIO(rendered)) as again, Image.open(io.BytesIO(file(name))) as source:
            again.load()
            assert again.mode == source.mode


@pytest.mark.parametrize("name", FILES)
def test_a_render_keeps_each_tag_but_those_of_lengths_and_offsets_where_it_was(name: str) -> None:
    before, after = tags(file(name)), tags(fit(smoothed(probe(file(name))), len(file(name)), MARKER)[1])
    assert before.keys() == after.keys()
    for code in before.keys() - COUNTS - PLACES:
        assert after[code] == before[code]


@pytest.mark.parametrize("name", UNCOMPRESSED)
def test_a_render_of_unchanged_pixels_is_the_file(name: str) -> None:
    if name != "tiles":  # what tiles have beyond the picture becomes a copy of its edge
        assert render(probe(file(name)), len(file(name)), MARKER) == file(name)


def test_compressed_blocks_stay_where_they_were_while_they_fit_there() -> None:
    data = file("Deflate")
    picture = smoothed(probe(data))
    rendered = render(picture, len(data), MARKER)
    before, after = tags(data), tags(rendered)
    assert after[273][0] == before[273][0]
    assert sum(after[279][0]) < sum(before[279][0])
    for offset, old, new in zip(before[273][0], before[279][0], after[279][0], strict=True):
        assert not any(rendered[offset + new : offset + old])


def half(noisy: slice) -> np.ndarray:
    pixels = np.full((160, 160, 3), 90, np.uint8)
    pixels[noisy] = np.random.default_rng(0).integers(0, 256, (80, 160, 3))
    return pixels


def test_compressed_blocks_move_where_one_outgrows_its_place() -> None:
    data = tiff(half(slice(80)), compression="zlib", rowsperstrip=16)
    picture = dataclasses.replace(probe(data), pixels=half(slice(80, 160)))
    rendered = render(picture, len(data), MARKER)
    assert len(rendered) == len(data)
    assert tags(rendered)[273][0] != tags(data)[273][0]
    assert np.array_equal(stored(rendered), picture.pixels)


@pytest.mark.parametrize("name", ["LZW", "Deflate, tiles", "Deflate, BigTIFF"])
def test_pixels_that_do_not_fit_are_refused_or_make_a_longer_file(name: str) -> None:
    picture = dataclasses.replace(probe(file(name)), pixels=NOISE)
    with pytest.raises(DoesNotFit):
        render(picture, len(file(name)), MARKER)
    longer = render(picture, None, MARKER)
    assert np.array_equal(stored(longer), NOISE)
    assert tags(longer)[256] == tags(file(name))[256]


def test_a_render_leaves_bytes_to_spare_where_another_machine_may_need_them() -> None:
    picture = probe(file("Deflate"))
    size = len(file("Deflate"))
    taken = sum(tags(render(picture, size, MARKER))[279][0])
    room = sum(tags(file("Deflate"))[279][0])
    assert render(picture, size, MARKER, spare=room - taken - 50)
    with pytest.raises(DoesNotFit):
        render(picture, size, MARKER, spare=room - taken + 100)


def test_packed_bits_need_no_more_than_their_worst_case() -> None:
    data = tiff(NOISE, compression="packbits")
    assert len(render(probe(data), len(data), MARKER, spare=5000)) == len(data)


def test_what_a_private_tag_points_to_stays_where_it_was() -> None:
    behind = b"whatever a maker keeps there"
    data = tiff(compression="zlib", extratags=[(65000, "I", 1, 0xABCDEF, True)])
    data = data.replace(struct.pack("<I", 0xABCDEF), struct.pack("<I", len(data))) + behind
    rendered = render(smoothed(probe(data)), len(data), MARKER)
    assert rendered[tags(rendered)[65000][0] :] == behind


def test_strips_may_lie_in_any_order() -> None:
    data = bytearray(tiff(RGB[:160], rowsperstrip=80))
    (first, second), at = tags(bytes(data))[273]
    data[at : at + 8] = struct.pack("<II", second, first)
    assert np.array_equal(probe(bytes(data)).pixels, np.roll(RGB[:160], 80, axis=0))
    assert render(probe(bytes(data)), len(data), MARKER) == data


def test_a_length_that_its_tag_cannot_hold_does_not_fit() -> None:
    data = big_endian_tiff().replace(struct.pack(">HHII", 279, 4, 1, 5120), struct.pack(">HHIHxx", 279, 3, 1, 5120))
    directory = tiff_directory.parse(data)
    with pytest.raises(DoesNotFit, match="279"):
        directory.put(bytearray(data), 279, [65536])


def with_tag(data: bytes, tag: int, kind: int, value: int) -> bytes:
    """Where its tag of the same length was."""
    at = tiff_directory.parse(data).tags[65000].region.offset - 8
    return data[:at] + struct.pack("<HHII", tag, kind, 1, value) + data[at + 12 :]


PRIVATE = [(65000, "I", 1, 0, True)]
SIXTEEN = RGB.astype(np.uint16) * 257
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "16 bits": (lambda: tiff(SIXTEEN), "16 bits a sample"),
    "16 bits, compressed": (lambda: tiff(SIXTEEN, compression="zlib", predictor=2), "16 bits a sample"),
    "1 bit": (lambda: save(photo("1"), "TIFF", compression="group4"), "1 bit a sample"),
    "floats": (lambda: tiff(GREY.astype(np.float32)), "floating point"),
    "signed": (lambda: tiff(GREY.astype(np.int8)), "not unsigned"),
    "a palette": (lambda: save(photo("P"), "TIFF"), "a palette"),
    "CMYK": (lambda: save(photo("CMYK"), "TIFF"), "CMYK"),
    "CIELAB": (lambda: save(photo("LAB"), "TIFF"), "CIELAB"),
    "JPEG": (lambda: tiff(compression="jpeg"), "JPEG in TIFF"),
    "Zstandard": (lambda: tiff(compression="zstd"), "compression 50000"),
    "five samples": (lambda: tiff(np.dstack([RGB, ALPHA, ALPHA]), extrasamples=[0, 0]), "5 samples"),
    "two pages": (lambda: save(photo(), "TIFF", save_all=True, append_images=[photo()]), "several pictures"),
    "a smaller version": (lambda: tiff(subfiletype=1), "several pictures"),
    "a volume": (lambda: with_tag(tiff(extratags=PRIVATE), 32997, 4, 9), "several pictures"),
    "sub-directories": (lambda: with_tag(tiff(extratags=PRIVATE), 330, 4, 8), "several pictures"),
    "DNG": (lambda: with_tag(tiff(extratags=PRIVATE), 50706, 1, 1), "a RAW file"),
    "a preview with sub-directories": (lambda: with_tag(tiff(subfiletype=1, extratags=PRIVATE), 330, 4, 8), "a RAW file"),
    "a mosaic": (lambda: tiff(GREY, photometric=32803, extratags=[(33421, "H", 2, (2, 2), True)]), "a RAW file"),
    "content credentials": (lambda: with_tag(tiff(extratags=PRIVATE), 52545, 7, 1), "content credentials"),
    "no data": (lambda: tiff(extratags=[(42113, "s", 0, "0", True)]), "no data"),
    "mostly something else": (lambda: tiff() + bytes(2 * RGB.size), "holds more than its picture"),
    "small": (lambda: tiff(RGB[:63]), "shorter than 64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsuitable(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(Unsuitable, match=reason):
        probe(make())


def test_a_recipe_or_metadata_of_another_picture_allocate_nothing() -> None:
    picture = probe(file("Deflate"))
    with pytest.raises(ValueError, match="more than"):
        render(dataclasses.replace(picture, recipe={"runs": [[300, 1 << 50]]}), None, MARKER)
    with pytest.raises(ValueError, match="197×167"):
        render(dataclasses.replace(picture, pixels=picture.pixels[1:]), None, MARKER)


def test_a_strip_that_holds_too_little_is_no_picture() -> None:
    data = bytearray(file("Deflate"))
    (offsets, _), (counts, _) = tags(bytes(data))[273], tags(bytes(data))[279]
    data[offsets[1] : offsets[1] + counts[1]] = bytes(counts[1])
    with pytest.raises(NotAPicture):
        probe(bytes(data))


def directory(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    return struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in sorted(entries)) + struct.pack("<I", following)


def plain(width: int, height: int, count: int, offsets: int, counts: int, compression: int = 1) -> list[tuple[int, int, int, int]]:
    known = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    return [*known, (273, 4, count, offsets), (277, 3, 1, 1), (278, 4, 1, -(-height // count)), (279, 4, count, counts)]


def poison(entries: list[tuple[int, int, int, int]], size: int, following: int = 0) -> bytes:
    return (b"II*\0" + struct.pack("<I", 8) + directory(entries, following)).ljust(size, b"\1")


TILES = [(322, 4, 1, 32768), (323, 4, 1, 32768), (324, 4, 1, 400), (325, 4, 1, 10_000)]
POISON = {
    "tags that claim the whole file": poison(
        [*plain(100, 100, 1, 60_000, 10_000), *[(1000 + i, 4, 24_000, 8) for i in range(4000)]], 100_000
    ),
    "more tags than anybody writes": poison([(1000 + i, 1, 1, 0) for i in range(40_000)], 500_000),
    "strips that are all the same": poison(plain(6000, 100, 100, 200, 600), 200)
    + struct.pack("<200I", *[1000] * 100, *[6000] * 100)
    + bytes(99_000),
    "a directory that follows itself": poison(plain(100, 100, 1, 200, 10_000), 11_000, following=8),
    "tiles of a gigapixel": poison([*plain(100, 100, 1, 400, 10_000), *TILES], 11_000),
    "more strips than rows": poison(plain(64, 64, 10_000, 400, 40_400), 90_000),
}


@pytest.mark.parametrize("name", POISON)
def test_nothing_is_allocated_because_a_tag_claims_it(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((Unsuitable, NotAPicture)):
            probe(POISON[name])
        assert tracemalloc.get_traced_memory()[1] < 4_000_000 + 20 * len(POISON[name])
    finally:
        tracemalloc.stop()
