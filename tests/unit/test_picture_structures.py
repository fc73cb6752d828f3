"""PNG, WebP and BMP as they come: opacity, palettes, interlacing, bytes behind the picture; and what stays exact, with its reason."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sdfs.codec.pictures import hidden
from sdfs.codec.pictures.formats import palette
from sdfs.codec.pictures.picture import find_marker, fit, pixels_of_render, probe, render
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable
from tests.support.picture_samples import ICC, MARKER, XMP, chunk, decode, photo, riff_chunk, save, smoothed, with_chunk, with_riff_chunk

RGB, GREY = np.asarray(photo()), np.asarray(photo("L"))
HEIGHT, WIDTH = GREY.shape
SOFT = np.tile(np.arange(50, 50 + WIDTH, dtype=np.uint8), (HEIGHT, 1))
OPAQUE = np.full_like(SOFT, 255)
DISC = np.where(np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT, WIDTH])[:, None, None] / 2)) < 70, 255, 0).astype(np.uint8)
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x, y, steps of both
BEHIND = b"what a phone appends " * 50 + bytes(500)


def with_alpha(alpha: np.ndarray, under: int | None = None) -> Image.Image:
    """A photo behind opacity; `under`: the level of what is fully transparent."""
    pixels = RGB if under is None else np.where(alpha[:, :, None] > 0, RGB, np.uint8(under))
    return Image.fromarray(np.dstack([pixels, alpha]))


def cut_out(format_: str, under: int, **options: object) -> bytes:
    return save(with_alpha(DISC, under), format_, **options)


def interlaced(samples: np.ndarray, colour: int) -> bytes:
    """By a writer of its own, because Pillow has none: rows are not filtered."""
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in PASSES for row in samples[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 8, colour, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(pixels: np.ndarray, depth: int, *, masks: bytes = b"", colours: bytes = b"", compression: int = 0, header: int = 40) -> bytes:
    """Bottom-up, of samples in the order of the file."""
    rows = pixels[::-1].reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    width = pixels.shape[1]
    info = struct.pack("<IiiHHIIiiII", header, width, len(pixels), 1, depth, compression, rows.size, 0, 0, len(colours) // 4, 0) + masks
    offset = 14 + len(info) + len(colours)
    return b"BM" + struct.pack("<IHHI", offset + rows.size, 0, 0, offset) + info + colours + rows.tobytes()


def bgrx(fourth: np.ndarray) -> np.ndarray:
    return np.dstack([RGB[:, :, ::-1], fourth])


MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
GREYS = b"".join(bytes([i, i, i, 0]) for i in range(256))
FILES: dict[str, Callable[[], bytes]] = {
    "png, opaque": lambda: save(photo("RGBA"), "PNG"),
    "png, soft": lambda: save(with_alpha(SOFT), "PNG"),
    "png, cut out, colours kept": lambda: save(with_alpha(DISC), "PNG"),
    "png, cut out, black": lambda: cut_out("PNG", 0),
    "png, cut out, white": lambda: cut_out("PNG", 255),
    "png, grey, soft": lambda: save(Image.fromarray(np.dstack([GREY, SOFT])), "PNG"),
    "png, a transparent colour": lambda: save(Image.fromarray(np.where(DISC[:, :, None] > 0, RGB, [1, 2, 3]).astype(np.uint8)), "PNG",
                                              transparency=(1, 2, 3)),
    "png, a transparent grey": lambda: save(Image.fromarray(np.where(DISC > 0, GREY, 7).astype(np.uint8)), "PNG", transparency=7),
    "png, interlaced": lambda: interlaced(RGB, 2),
    "png, interlaced, grey": lambda: interlaced(GREY, 0),
    "png, interlaced, soft": lambda: interlaced(np.dstack([RGB, SOFT]), 6),
    "png, a palette": lambda: save(photo().quantize(256), "PNG"),
    "png, a palette of greys": lambda: save(photo("L").quantize(99), "PNG"),
    "png, bytes behind": lambda: save(photo(), "PNG") + BEHIND,
    "png of macOS": lambda: with_chunk(save(photo("RGBA"), "PNG"), b"iDOT", bytes(28), before=b"IDAT"),
    "webp, soft": lambda: save(with_alpha(SOFT), "WEBP", quality=90),
    "webp, cut out": lambda: cut_out("WEBP", 0, quality=90),
    "webp, soft, with metadata": lambda: with_riff_chunk(save(with_alpha(SOFT), "WEBP", icc_profile=ICC, xmp=XMP), b"teSt", b"?"),
    "webp, lossless, soft": lambda: save(with_alpha(SOFT), "WEBP", lossless=True),
    "webp, lossless, cut out": lambda: cut_out("WEBP", 0, lossless=True),
    "webp, lossless, cut out, colours kept": lambda: save(with_alpha(DISC), "WEBP", lossless=True, exact=True),
    "webp, bytes behind": lambda: save(photo(), "WEBP", quality=90) + BEHIND + b"odd",
    "bmp, a palette": lambda: save(photo().quantize(256), "BMP"),
    "bmp, greys": lambda: bmp(GREY, 8, colours=GREYS),
    "bmp, inverted greys": lambda: bmp(255 - GREY, 8, colours=bytes(i for level in range(255, -1, -1) for i in (level, level, level, 0))),
    "bmp, 32 bits": lambda: bmp(bgrx(0 * SOFT), 32),
    "bmp, 32 bits, masks": lambda: bmp(bgrx(OPAQUE), 32, masks=MASKS, compression=3),
    "bmp, bytes behind": lambda: save(photo(), "BMP") + BEHIND,
}  # fmt: skip
WITH_PALETTE = [name for name in FILES if "palette" in name]
BMP_32 = [name for name in FILES if "32 bits" in name]
LOSSLESS = [name for name in FILES if not (name.startswith("webp") and "lossless" not in name) and name not in WITH_PALETTE]
IN_CHUNKS = [name for name in FILES if name.startswith("webp") and "lossless" not in name]


@cache
def file(name: str) -> bytes:
    return FILES[name]()


def rgba(data: bytes) -> np.ndarray:
    """(H, W, 4) as Pillow shows it."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def fitted(name: str) -> bytes:
    return render(smoothed(probe(file(name))), len(file(name)), MARKER)


def is_seen(data: bytes) -> np.ndarray:
    return rgba(data)[:, :, 3] > 0


@pytest.mark.parametrize("name", FILES)
def test_pixels_and_opacity_are_as_coded(name: str) -> None:
    picture, shown = probe(file(name)), rgba(file(name))
    pixels = picture.pixels if picture.pixels.ndim == 3 else np.repeat(picture.pixels[:, :, None], 3, axis=2)
    seen = is_seen(file(name))
    assert np.array_equal(pixels[seen], shown[seen][:, :3])
    if picture.alpha is not None and name not in BMP_32:
        assert np.array_equal(picture.alpha, shown[:, :, 3])


@pytest.mark.parametrize("name", FILES)
def test_a_render_has_the_size_of_its_source_its_mode_and_its_opacity(name: str) -> None:
    rendered = fitted(name)
    assert len(rendered) == len(file(name))
    before, after = Image.open(io.BytesIO(file(name))), Image.open(io.BytesIO(rendered))
    assert (after.mode, after.size, after.info.get("interlace")) == (before.mode, before.size, before.info.get("interlace"))
    assert np.array_equal(rgba(rendered)[:, :, 3], rgba(file(name))[:, :, 3])
    assert rgba(rendered)[is_seen(rendered)] == pytest.approx(rgba(file(name))[is_seen(rendered)], abs=130)


@pytest.mark.parametrize("name", LOSSLESS)
def test_what_is_seen_of_a_render_are_its_pixels(name: str) -> None:
    picture = smoothed(probe(file(name)))
    rendered = render(picture, len(file(name)), MARKER)
    pixels = picture.pixels if picture.pixels.ndim == 3 else np.repeat(picture.pixels[:, :, None], 3, axis=2)
    assert np.array_equal(rgba(rendered)[is_seen(rendered)][:, :3], pixels[is_seen(rendered)])


@pytest.mark.parametrize("name", FILES)
def test_a_render_keeps_all_but_its_pixels(name: str) -> None:
    picture, again = probe(file(name)), probe(fitted(name))
    assert (again.format, again.metadata, again.behind) == (picture.format, picture.metadata, picture.behind)
    assert again.recipe == picture.recipe
    assert np.array_equal(again.alpha, picture.alpha) if picture.alpha is not None else again.alpha is None


@pytest.mark.parametrize("name", [name for name in FILES if "bytes behind" in name])
def test_what_lies_behind_the_picture_stands_at_its_offset(name: str) -> None:
    assert probe(file(name)).behind.startswith(BEHIND)
    assert fitted(name)[file(name).index(BEHIND) :] == file(name)[file(name).index(BEHIND) :]


def test_the_opacity_of_a_lossy_webp_stays_byte_for_byte() -> None:
    for name in ("webp, soft", "webp, cut out"):
        alph = file(name)[file(name).index(b"ALPH") : file(name).index(b"VP8 ")]
        assert alph in fitted(name)


def test_a_lossless_webp_still_says_that_it_has_opacity_where_all_is_opaque() -> None:
    data = bytearray(save(photo(), "WEBP", lossless=True))
    data[24] |= 1 << 4
    assert decode(bytes(data)).shape[2] == 4
    rendered = render(smoothed(probe(bytes(data))), len(data), MARKER)
    assert np.array_equal(decode(rendered)[:, :, 3], OPAQUE)


def test_apples_hint_to_decode_in_parts_is_left_out() -> None:
    assert b"iDOT" in file("png of macOS")
    assert b"iDOT" not in fitted("png of macOS")


def test_no_pixel_of_a_render_gets_the_transparent_colour_by_chance() -> None:
    picture = probe(save(photo(), "PNG", transparency=(1, 2, 3)))
    assert (picture.alpha == 255).all()
    pixels = picture.pixels.copy()
    pixels[5:50, 5:50] = (1, 2, 3)
    rendered = render(dataclasses.replace(picture, pixels=pixels), None, MARKER)
    assert (rgba(rendered)[:, :, 3] == 255).all()
    assert np.abs(decode(rendered).astype(int) - pixels).max() == 1


@pytest.mark.parametrize("name", WITH_PALETTE)
def test_a_render_with_a_palette_has_the_nearest_of_its_colours(name: str) -> None:
    picture = smoothed(probe(file(name)))
    rendered = render(picture, len(file(name)), MARKER)
    assert Image.open(io.BytesIO(rendered)).getpalette() == Image.open(io.BytesIO(file(name))).getpalette()
    seen = probe(rendered).pixels.astype(int)
    nearest = np.unique(seen.reshape(-1, seen.shape[2] if seen.ndim == 3 else 1), axis=0)
    wanted = picture.pixels.reshape(*picture.pixels.shape[:2], -1)[::9, ::9].astype(int)
    distances = np.linalg.norm(wanted[:, :, None] - nearest, axis=3).min(axis=2)
    excess = np.linalg.norm(wanted - seen.reshape(HEIGHT, WIDTH, -1)[::9, ::9], axis=2) - distances
    assert excess.mean() < 0.5
    assert excess.max() < 6  # levels: two bits of each are not looked at


def test_colours_of_a_palette_are_found_again() -> None:
    """Even where they are next to each other: a render of the very pixels is the very picture."""
    colours = 100 + np.stack(np.unravel_index(np.arange(200), (8, 8, 4)), axis=1).astype(np.uint8)
    indices = np.random.default_rng(1).integers(0, 200, (64, 64), np.uint8)
    assert np.array_equal(palette.nearest(palette.look_up(indices, colours), colours), indices)


def test_hidden_pixels_of_one_colour_are_filled_from_what_is_seen_and_get_it_back() -> None:
    data = file("png, cut out, white")
    picture = probe(data)
    corner = picture.pixels[:9, :9]
    assert corner.std(axis=(0, 1)).max() < 9
    assert not (corner == 255).any()
    assert (rgba(fitted("png, cut out, white"))[DISC == 0] == [255, 255, 255, 0]).all()


def test_hidden_pixels_of_several_colours_are_pixels_like_others() -> None:
    picture = probe(file("png, cut out, colours kept"))
    assert np.array_equal(picture.pixels, RGB)
    assert "hidden" not in picture.recipe


def test_what_nobody_sees_is_no_difference() -> None:
    source = probe(file("png, cut out, black"))
    other = dataclasses.replace(source, pixels=np.where(DISC[:, :, None] > 0, source.pixels, 255 - source.pixels))
    seen = pixels_of_render(render(other, None, MARKER), source)
    assert np.array_equal(seen, source.pixels)


def test_filled_pixels_are_a_mean_of_the_nearest_that_are_seen() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    alpha = np.zeros((8, 8), np.uint8)
    pixels[0, :2], alpha[0, :2] = (100, 110), 1
    pixels[7, 7], alpha[7, 7] = 200, 1
    filled = hidden.fill(pixels, alpha)
    assert (filled[1, 0], filled[3, 3], filled[7, 4], filled[0, 1]) == (105, 105, 200, 110)


def test_a_graphic_of_unchanged_pixels_fits_its_size() -> None:
    random = np.random.default_rng(0)
    letters = random.integers(0, 2, (20, 12, 8, 1)).astype(np.uint8).repeat(3, axis=3) * 200
    page = np.vstack([np.hstack([letters[random.integers(20)] for _ in range(50)]) for _ in range(30)])
    data = save(Image.fromarray(page), "PNG")
    assert np.array_equal(decode(fit(probe(data), len(data), MARKER)[1]), page)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("png", "webp"))])
def test_a_render_carries_its_marker(name: str) -> None:
    assert find_marker(render(probe(file(name)), None, MARKER)) == MARKER


def rgb_png() -> bytes:
    return save(photo(), "PNG")


def png_of(samples: np.ndarray) -> bytes:
    return bytes(imagecodecs.png_encode(samples, level=6))


def with_wrong_checksum() -> bytes:
    data = bytearray(with_chunk(rgb_png(), b"tEXt", b"Title\0a rocket"))
    data[data.index(b"a rocket")] ^= 1
    return bytes(data)


def with_more_rows() -> bytes:
    return rgb_png().replace(struct.pack(">II", WIDTH, HEIGHT), struct.pack(">II", WIDTH, HEIGHT - 1), 1)


def with_header_checksum(png: bytes) -> bytes:
    return png[:8] + chunk(b"IHDR", png[16:29]) + png[33:]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "16 bits": (lambda: png_of(RGB.astype(np.uint16) * 257), "16 bits a sample"),
    "16 bits with opacity": (lambda: png_of(np.dstack([RGB, SOFT]).astype(np.uint16) * 257), "16 bits a sample"),
    "1 bit": (lambda: save(photo("1"), "PNG"), "1 bit a sample"),
    "16 colours": (lambda: save(photo().quantize(16), "PNG", bits=4), "a palette of at most 16 colours"),
    "a palette with transparency": (lambda: save(photo().quantize(256), "PNG", transparency=bytes(9)), "a palette with transparency"),
    "animated": (lambda: save(photo(), "PNG", save_all=True, append_images=[photo().rotate(9)]), "an animated PNG"),
    "content credentials": (lambda: with_chunk(rgb_png(), b"caBX", b"JUMB"), "content credentials"),
    "bound to its pixels": (lambda: with_chunk(rgb_png(), b"prVT", b"?"), "bound to its coded pixels"),
    "a wrong checksum": (with_wrong_checksum, "wrong checksum"),
    "more data than pixels": (lambda: with_header_checksum(with_more_rows()), "more data than its pixels need"),
    "many chunks": (lambda: rgb_png()[:33] + chunk(b"teXt", b"") * 100_000 + rgb_png()[33:], "100,000 chunks"),
    "flat": (lambda: save(Image.new("RGB", (900, 900)), "PNG"), "pixels in"),
    "an animated WebP": (lambda: save(photo(), "WEBP", save_all=True, append_images=[photo().rotate(9)]), "an animated WebP"),
    "two opacities": (lambda: with_second_opacity(), "more than one opacity"),
    "a WebP of many chunks": (lambda: many_riff_chunks(), "10,000 chunks"),
    "a BMP with opacity": (lambda: bmp(bgrx(SOFT), 32), "32 bits with alpha"),
    "a BMP with a mask of opacity": (lambda: bmp(bgrx(SOFT), 32, masks=MASKS + b"\0\0\0\xff", compression=3, header=56), "alpha"),
    "a BMP with other masks": (lambda: bmp(bgrx(OPAQUE), 32, masks=MASKS[::-1], compression=3), "masks are unusual"),
    "a BMP of 16 bits": (lambda: bmp(GREY[:, : WIDTH // 2 * 2].reshape(HEIGHT, -1, 2), 16), "16 bits a pixel"),
    "a BMP of run lengths": (lambda: bmp(GREY, 8, colours=GREYS, compression=1), "run lengths"),
    "a BMP of OS/2": (lambda: bmp(GREY, 8, header=12), "header of 12 bytes"),
    "a BMP of few colours": (lambda: bmp(GREY % 4, 8, colours=GREYS[:16]), "a palette of 4 colours"),
}  # fmt: skip


def with_second_opacity() -> bytes:
    data = file("webp, soft")
    alph = data[data.index(b"ALPH") : data.index(b"VP8 ")]
    body = data[8:].replace(alph, alph + alph)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def many_riff_chunks() -> bytes:
    body = save(photo(), "WEBP")[8:] + riff_chunk(b"teSt", b"") * 10_001
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("name", REFUSED)
def test_unsuitable(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(Unsuitable, match=reason):
        probe(make())


@pytest.mark.parametrize("colours", [b"", GREYS[:1000]], ids=["an index beyond", "cut off"])
def test_a_broken_palette_makes_no_picture(colours: bytes) -> None:
    data = bytearray(bmp(GREY, 8, colours=GREYS[:800]))
    if not colours:
        data[46:50] = struct.pack("<I", 100)
    else:
        data[46:50] = struct.pack("<I", 255)
    with pytest.raises(NotAPicture):
        probe(bytes(data))


def test_the_metadata_of_another_bmp_allocate_nothing() -> None:
    picture = probe(file("bmp, greys"))
    with pytest.raises(ValueError, match="197×167"):
        render(dataclasses.replace(picture, pixels=picture.pixels[1:]), None, MARKER)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(list(FILES)), st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3)
)
def test_mutated_files_raise_nothing_else(name: str, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(file(name))
    for at, to in changes:
        at %= len(data) if at % 2 else 200
        data[at : at + len(to)] = to
    find_marker(bytes(data))
    with suppress(NotAPicture, Unsuitable, DoesNotFit):
        picture = probe(bytes(data))
        assert len(render(picture, len(data), MARKER)) == len(data)


@pytest.mark.parametrize("name", [name for name in FILES if "bytes behind" not in name])
def test_every_truncation_is_no_picture(name: str) -> None:
    data = file(name)
    for end in {*range(0, 200, 7), *range(0, len(data), len(data) // 20), *range(len(data) - 20, len(data))}:
        with pytest.raises(NotAPicture):
            probe(data[:end])
