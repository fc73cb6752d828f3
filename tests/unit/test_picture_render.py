"""Renders: the input's format, dimensions, metadata and size, from other pixels."""

from __future__ import annotations

import dataclasses
import io
import struct
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sdfs.codec.pictures.picture import Picture, find_marker, fit, probe, render
from sdfs.errors import DoesNotFit
from tests.support.picture_samples import ICC, MARKER, SUITABLE, XMP, decode, exif, photo, save, segment, suitable, with_segments

PADDED = [name for name in SUITABLE if name.split()[0] in ("jpeg", "png", "webp")]
UNPADDED = [name for name in SUITABLE if name not in PADDED]
ALWAYS_KEEP_SIZE = [name for name in SUITABLE if not name.startswith("png")]


def smoothed(picture: Picture) -> Picture:
    """As latents leave a picture: a little smoother."""
    image = Image.fromarray(picture.pixels).filter(ImageFilter.GaussianBlur(0.7))
    return dataclasses.replace(picture, pixels=np.asarray(image))


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("name", ALWAYS_KEEP_SIZE)
def test_a_render_has_the_size_of_its_source(name: str) -> None:
    data = suitable(name)
    assert len(render(smoothed(probe(data)), len(data), MARKER)) == len(data)


@pytest.mark.parametrize("name", SUITABLE)
def test_a_render_decodes_to_about_its_pixels(name: str) -> None:
    data = suitable(name)
    picture = probe(data)
    rendered = render(picture, None, MARKER)
    assert Image.open(io.BytesIO(rendered)).mode == Image.open(io.BytesIO(data)).mode
    assert mean_difference(decode(rendered), picture.pixels) < (3 if name.startswith(("jpeg", "webp")) else 1e-9)


@pytest.mark.parametrize("name", SUITABLE)
def test_a_render_keeps_recipe_and_metadata(name: str) -> None:
    picture = probe(suitable(name))
    again = probe(render(picture, None, MARKER))
    assert (again.format, again.recipe, again.metadata) == (picture.format, picture.recipe, picture.metadata)


@pytest.mark.parametrize("name", UNPADDED)
def test_a_render_of_unchanged_pixels_is_the_uncompressed_file(name: str) -> None:
    assert render(probe(suitable(name)), len(suitable(name)), MARKER) == suitable(name)


@pytest.mark.parametrize("name", UNPADDED)
def test_uncompressed_files_have_one_size(name: str) -> None:
    with pytest.raises(DoesNotFit):
        render(probe(suitable(name)), len(suitable(name)) + 4, MARKER)


@pytest.mark.parametrize("name", PADDED)
def test_a_render_carries_its_marker(name: str) -> None:
    assert find_marker(render(probe(suitable(name)), None, MARKER)) == MARKER


@pytest.mark.parametrize("name", SUITABLE)
def test_a_source_carries_no_marker(name: str) -> None:
    assert find_marker(suitable(name)) is None


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff", suitable("jpeg 4:2:0")[:99], suitable("png")[:99], suitable("webp")[:99]])
def test_what_is_cut_off_carries_no_marker(data: bytes) -> None:
    assert find_marker(data) is None


def test_a_marker_of_more_than_64_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="65 bytes"):
        render(probe(suitable("png")), None, bytes(65))


@pytest.mark.parametrize("name", ["jpeg 4:2:0", "jpeg grey", "jpeg progressive", "png", "png grey", "png with metadata"])
@pytest.mark.parametrize("marker", [MARKER, b""], ids=["marker", "no marker"])
def test_any_size_from_the_natural_one_on_is_met_exactly(name: str, marker: bytes) -> None:
    picture = probe(suitable(name))
    natural = len(render(picture, None, marker))
    pixels = decode(render(picture, None, marker))
    for more in range(41):
        rendered = render(picture, natural + more, marker)
        assert len(rendered) == natural + more
        assert np.array_equal(decode(rendered), pixels)


@pytest.mark.parametrize("name", ["webp", "webp lossless", "webp with metadata"])
def test_webp_meets_any_even_size(name: str) -> None:
    picture = probe(suitable(name))
    natural = len(render(picture, None, b""))
    for more in range(0, 41, 2):
        rendered = render(picture, natural + more, b"")
        assert len(rendered) == natural + more
        assert mean_difference(decode(rendered), picture.pixels) < 3
        assert probe(rendered).metadata == picture.metadata


def test_webp_has_no_odd_sizes() -> None:
    with pytest.raises(DoesNotFit, match="even"):
        render(probe(suitable("webp")), len(suitable("webp")) + 1, MARKER)


@pytest.mark.parametrize("size", [65535, 65536, 65537, 65538, 65539, 65540, 131074, 131075, 200001])
def test_jpeg_padding_may_exceed_one_segment(size: int) -> None:
    picture = probe(suitable("jpeg 4:2:0"))
    bare = len(render(picture, None, b""))
    rendered = render(picture, bare + size, MARKER)
    assert len(rendered) == bare + size
    assert find_marker(rendered) == MARKER
    assert probe(rendered).metadata == picture.metadata


@pytest.mark.parametrize("name", ["jpeg 4:2:0", "jpeg 4:2:2", "jpeg 4:4:4", "jpeg progressive", "jpeg grey", "jpeg of a camera"])
def test_jpeg_is_quantised_and_sampled_as_its_source(name: str) -> None:
    source, rendered = (Image.open(io.BytesIO(data)) for data in (suitable(name), render(probe(suitable(name)), None, b"")))
    assert rendered.quantization == source.quantization
    assert rendered.layer == source.layer
    assert rendered.info.get("progressive") == source.info.get("progressive")


def test_jpeg_segments_come_back_in_order_before_the_tables() -> None:
    data = suitable("jpeg with metadata")
    described = data[: data.index(b"\xff\xdb", data.index(b"a comment"))]
    assert render(probe(data), len(data), MARKER).startswith(described)
    for part in (b"JFIF", XMP, ICC, b"a comment"):
        assert part in described


COMMENTED = {
    "a comment": with_segments(suitable("jpeg with metadata"), segment(0xFE, b"another")),
    "a comment before Exif": with_segments(suitable("jpeg grey"), segment(0xFE, b"first of all"), segment(0xE1, exif().tobytes())),
    "none": suitable("jpeg of a camera"),
}


@pytest.mark.parametrize("name", COMMENTED)
def test_jpeg_has_the_comments_of_its_source_and_no_other(name: str) -> None:
    """Programs show one comment, some the first and some the last; a comment of ours would hide the user's."""
    data = COMMENTED[name]
    rendered = render(probe(data), len(data) + 150_000, MARKER)
    assert comments(rendered) == comments(data)
    shown, wanted = (Image.open(io.BytesIO(file)).info.get("comment") for file in (rendered, data))
    assert shown == wanted


def comments(jpeg: bytes) -> list[bytes]:
    found, at = [], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == 0xFE:
            found.append(jpeg[at + 4 : end])
        at = end
    return found


def test_what_is_made_of_a_jpeg_render_takes_no_padding_along() -> None:
    rendered = render(probe(suitable("jpeg of a camera")), 1_000_000, MARKER)
    with Image.open(io.BytesIO(rendered)) as picture:
        assert b"SDFS" not in save(picture.resize((64, 64)), "JPEG")


@pytest.mark.parametrize("at", ["first", "last"])
def test_a_jpeg_marker_is_found_wherever_an_editor_put_it(at: str) -> None:
    data = suitable("jpeg with metadata")
    rendered = render(probe(data), len(data) + 1000, MARKER)
    start = rendered.index(b"\xff\xe2", rendered.index(b"SDFS\0") - 4)
    end = start + 2 + int.from_bytes(rendered[start + 2 : start + 4], "big")
    rest = rendered[:start] + rendered[end:]
    place = 2 if at == "first" else rest.index(b"\xff\xda")
    moved = rest[:place] + rendered[start:end] + rest[place:]
    assert find_marker(moved) == MARKER
    assert probe(moved).metadata == probe(data).metadata


def test_jpeg_is_quantised_coarser_where_it_would_not_fit() -> None:
    picture = probe(suitable("jpeg 4:4:4"))
    size = len(render(picture, None, b"")) * 6 // 10
    fitted, rendered = fit(picture, size, MARKER)
    assert len(rendered) == size
    assert rendered == render(fitted, size, MARKER)
    assert Image.open(io.BytesIO(rendered)).quantization[0][0] > Image.open(io.BytesIO(suitable("jpeg 4:4:4"))).quantization[0][0]


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg_of_noise_at_full_quality_renders_or_does_not_fit(options: dict[str, bool]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    data = save(Image.fromarray(noise // 2), "JPEG", quality=95, subsampling="4:4:4", **options)
    picture = dataclasses.replace(probe(data), pixels=noise)
    with suppress(DoesNotFit):
        assert len(render(picture, len(data), MARKER)) == len(data)


@pytest.mark.parametrize("name", PADDED)
def test_a_render_far_too_large_does_not_fit(name: str) -> None:
    picture = probe(suitable(name))
    with pytest.raises(DoesNotFit):
        render(picture, len(picture.metadata) + 300, MARKER)


def test_png_is_compressed_harder_where_it_would_not_fit() -> None:
    flat = Image.fromarray(np.tile(np.asarray(photo())[:24, :24], (10, 10, 1)))
    picture = probe(save(flat, "PNG"))
    natural = len(render(picture, None, MARKER))
    rendered = render(picture, natural // 2, MARKER)
    assert len(rendered) == natural // 2
    assert np.array_equal(decode(rendered), picture.pixels)


def test_png_chunks_keep_their_places_around_the_pixels() -> None:
    data = suitable("png with metadata")
    rendered = render(probe(data), None, MARKER)
    before, after = data[: data.index(b"IDAT") - 4], data[data.index(b"prVt") - 4 : -12]
    assert rendered.startswith(before)
    assert after in rendered[rendered.index(b"IDAT") :]


def test_webp_chunks_keep_their_order() -> None:
    rendered = render(probe(suitable("webp with metadata")), len(suitable("webp with metadata")), MARKER)
    places = [rendered.index(name) for name in (b"VP8X", b"ICCP", b"VP8 ", b"EXIF", b"XMP ", b"teSt")]
    assert places == sorted(places)


def test_a_render_comes_back_as_a_source_without_its_padding() -> None:
    """A copy of a render, edited by a tool that keeps segments, does not pile up paddings."""
    data = with_segments(suitable("jpeg 4:2:0"), segment(0xFE, bytes(5000)))
    once = render(probe(data), 30000, MARKER)
    twice = render(probe(once), 30000, MARKER[::-1])
    assert find_marker(twice) == MARKER[::-1]
    assert twice.count(b"SDFS\0") == once.count(b"SDFS\0") == 1


def test_unused_bytes_of_bmp_rows_become_zero() -> None:
    data = bytearray(suitable("bmp"))
    stride = -(-3 * 197 // 4) * 4
    data[54 + 3 * 197] = 1
    assert render(probe(bytes(data)), len(data), MARKER) == suitable("bmp")
    assert struct.unpack_from("<I", data, 34)[0] == stride * 167
