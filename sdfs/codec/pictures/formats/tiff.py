"""TIFF and BigTIFF: one picture, RGB or grey at 8 bits a sample, with or without opacity, in strips or tiles, chunky or planar,
uncompressed or by LZW, Deflate or PackBits. Source: TIFF revision 6.0 (Adobe, 1992), technical note 3.

A render is the file bit for bit but for its strips or tiles: every other byte stands where it stood, so that private tags may point
wherever they want. Compressed again each begins where it began, if that works out; else they stand one behind the other. Their tags say
where and how long they are; what they leave of their old places is zeros.

Exact are files whose other bytes depend on the pixels, or which hold more than this picture: several directories, RAW files, content
credentials, and a value that means "no data" (GDAL). So are those of JPEG strips: they were lossy before, and a third generation of them
would need each writer's tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from sdfs.codec.pictures.formats import tiff_blocks, tiff_directory
from sdfs.codec.pictures.formats.shared import (
    MAX_LOSSLESS_PIXELS_PER_BYTE,
    Parts,
    Pixels,
    Recipe,
    Run,
    check_claims,
    check_dimensions,
    cut_runs,
    only,
    paste_runs,
)
from sdfs.codec.pictures.formats.tiff_blocks import COMPRESSIONS, DEFLATE, LZW, NONE, Layout
from sdfs.codec.pictures.formats.tiff_directory import Directory
from sdfs.errors import DoesNotFit, Unsuitable

_MAX_RUNS = 64  # blocks usually lie back to back, in one run
_MAX_GAP = 16  # zeros between blocks, so that each begins at an even offset
_MAX_SAMPLES = 4
_MOST_ROOM = 32  # bytes for each pixel: tiles may reach far beyond a small picture

_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PLANAR, _PREDICTOR = 254, 258, 259, 262, 266, 277, 284, 317
_SUB_DIRECTORIES, _EXTRA, _SAMPLE_FORMAT, _DEPTH, _NO_DATA, _DNG, _CREDENTIALS = 330, 338, 339, 32997, 42113, 50706, 52545
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3}  # samples, without opacity
_OTHER_COLOURS = {3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "CIELAB", 10: "CIELAB"}
_RAW_COLOURS = (32803, 34892)  # a mosaic, linear raw
_REDUCED = 1  # of _SUBFILE: the picture is a smaller version of another
_PREMULTIPLIED = 1  # of _EXTRA
_JPEG = (6, 7)  # of _COMPRESSION: the first was withdrawn
_UNSIGNED, _FLOAT = 1, 3  # of _SAMPLE_FORMAT


def read(data: bytes) -> Parts:
    directory = tiff_directory.parse(data)
    _check_kind(data, directory)
    layout, places = _blocks(data, directory)
    coded = sum(place.length for place in places)
    check_dimensions(layout.width, layout.height, coded, MAX_LOSSLESS_PIXELS_PER_BYTE)
    runs = _merge(data, places)
    if len(runs) > _MAX_RUNS:
        raise Unsuitable(f"a TIFF with its pixels in {len(runs)} places")
    _check_apart(runs, directory.structure)
    if 2 * coded < len(data):
        raise Unsuitable("a TIFF that holds more than its picture")
    if sum(run.length for run in runs) > _MOST_ROOM * layout.height * layout.width:
        raise Unsuitable("a TIFF with more room than its pixels need")
    pixels, alpha = _from_samples(tiff_blocks.decode(data, places, layout), directory.value(data, _PHOTOMETRIC))
    return Parts(pixels, {"runs": [list(run) for run in runs]}, cut_runs(data, runs)[1], alpha=alpha)


recipes = only


def write(pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    runs = [Run(*run) for run in recipe["runs"]]
    room = sum(run.length for run in runs)
    if size not in (None, len(metadata) + room):
        raise DoesNotFit(f"the TIFF has {len(metadata) + room} bytes, not {size}")
    if room > _MOST_ROOM * pixels.size:
        raise ValueError(f"{room} bytes are more than {pixels.shape} pixels need")
    original = paste_runs(bytes(room), metadata, runs)  # but for its pixels
    directory = tiff_directory.parse(original)
    layout, places = _blocks(original, directory)
    if (layout.height, layout.width) != pixels.shape[:2]:
        raise ValueError(f"the TIFF wants {layout.width}×{layout.height} pixels, has {pixels.shape}")
    image = bytearray(original)
    blocks, offsets = _fitted(_to_samples(pixels, original, directory), layout, places, runs, spare)
    if offsets is None:
        length = sum(map(len, blocks))
        if size is not None:
            raise DoesNotFit(f"a TIFF render of {length} bytes of pixels does not fit into {room}")
        offsets = list(itertools.accumulate(map(len, blocks[:-1]), initial=len(image)))
        image += bytes(length)
    for offset, block in zip(offsets, blocks, strict=True):
        image[offset : offset + len(block)] = block
    for tag, values in zip(tiff_blocks.place_tags(layout), (offsets, [len(block) for block in blocks]), strict=True):
        directory.put(image, tag, values)
    return bytes(image)


def find_marker(data: bytes) -> None:
    """A TIFF has no room for a marker."""


def _check_kind(data: bytes, directory: Directory) -> None:
    """Refuse what holds more than one picture, and what depends on the exact pixels."""
    tags = directory.tags
    reduced = bool(directory.value(data, _SUBFILE, 0) & _REDUCED)
    raw_colours = _PHOTOMETRIC in tags and directory.value(data, _PHOTOMETRIC) in _RAW_COLOURS
    if _DNG in tags or data[8:10] == b"CR" or raw_colours or (reduced and _SUB_DIRECTORIES in tags):
        raise Unsuitable("a RAW file")
    if directory.following or reduced or _SUB_DIRECTORIES in tags or directory.value(data, _DEPTH, 1) != 1:
        raise Unsuitable("a TIFF of several pictures")
    if _CREDENTIALS in tags:
        raise Unsuitable("content credentials are bound to the exact bytes")
    if _NO_DATA in tags:
        raise Unsuitable("a GeoTIFF one of whose values means that there is no data")
    if b"GDAL_STRUCTURAL_METADATA" in data[:64]:
        raise Unsuitable("a cloud-optimised GeoTIFF: its tiles have copies of their lengths and ends")


def _blocks(data: bytes, directory: Directory) -> tuple[Layout, list[Run]]:
    """How pixels are cut into strips or tiles, and where these lie. Raises NotAPicture and Unsuitable, if only for what it claims."""
    layout = _layout(data, directory)
    places = tiff_blocks.find(data, directory, layout)
    check_claims(*layout.coded_size, sum(place.length for place in places), MAX_LOSSLESS_PIXELS_PER_BYTE)
    return layout, places


def _layout(data: bytes, directory: Directory) -> Layout:
    """Raises NotAPicture, and Unsuitable where samples are other ones, or compressed otherwise, than latents can replace."""
    colours, channels = directory.value(data, _PHOTOMETRIC), directory.value(data, _SAMPLES, 1)
    if channels > _MAX_SAMPLES:
        raise Unsuitable(f"a TIFF of {channels} samples a pixel")
    compression = directory.value(data, _COMPRESSION, NONE)
    if compression in _JPEG:
        raise Unsuitable("JPEG in TIFF")
    formats = set(directory.values(data, _SAMPLE_FORMAT, channels)) or {_UNSIGNED}
    bits = max(directory.values(data, _BITS, channels), default=1)
    if formats != {_UNSIGNED}:
        raise Unsuitable("samples of floating point" if formats == {_FLOAT} else "samples that are not unsigned integers")
    if bits != 8:
        raise Unsuitable(f"{bits} bit{'s' if bits > 1 else ''} a sample")
    if colours not in _COLOURS:
        raise Unsuitable(_OTHER_COLOURS.get(colours, f"a TIFF of photometric interpretation {colours}"))
    if channels - _COLOURS[colours] not in (0, 1):
        raise Unsuitable(f"a TIFF of {channels} samples a pixel, photometric interpretation {colours}")
    predictor = directory.value(data, _PREDICTOR, 1)
    if compression not in COMPRESSIONS:
        raise Unsuitable(f"a TIFF of compression {compression}")
    if predictor not in ((1, 2) if compression == LZW or compression in DEFLATE else (1,)):
        raise Unsuitable(f"a TIFF of compression {compression}, predictor {predictor}")
    planar, fill = directory.value(data, _PLANAR, 1), directory.value(data, _FILL_ORDER, 1)
    if planar not in (1, 2) or fill != 1:
        raise Unsuitable(f"a TIFF of planar configuration {planar}, fill order {fill}")
    return tiff_blocks.parse_layout(
        data, directory, channels, planar=planar == 2 and channels > 1, compression=compression, differences=predictor == 2
    )


def _from_samples(samples: Pixels, photometric: int) -> tuple[Pixels, Pixels | None]:
    """Pixels, and opacity if there is any, of (H, W, samples)."""
    count = _COLOURS[photometric]
    colours = 255 - samples[:, :, :count] if photometric == _WHITE_IS_ZERO else samples[:, :, :count]
    alpha = np.ascontiguousarray(samples[:, :, count]) if samples.shape[2] > count else None
    return np.ascontiguousarray(colours[:, :, 0] if count == 1 else colours), alpha


def _to_samples(pixels: Pixels, data: bytes, directory: Directory) -> Pixels:
    """The inverse of `_from_samples`."""
    photometric = directory.value(data, _PHOTOMETRIC)
    count = _COLOURS[photometric]
    samples = pixels.reshape(*pixels.shape[:2], -1).copy()
    if samples.shape[2] > count and _PREMULTIPLIED in directory.values(data, _EXTRA, 1):
        samples[:, :, :count] = np.minimum(samples[:, :, :count], samples[:, :, count:])
    if photometric == _WHITE_IS_ZERO:
        samples[:, :, :count] = 255 - samples[:, :, :count]
    return samples


def _merge(data: bytes, places: Sequence[Run]) -> list[Run]:
    """Neighbours that lie back to back, but for a few zeros, as one run. Raises Unsuitable where they overlap."""
    runs: list[Run] = []
    for offset, length in sorted(places):
        end = sum(runs[-1]) if runs else -_MAX_GAP
        if offset < end:
            raise Unsuitable("a TIFF whose strips or tiles overlap")
        if offset - end < _MAX_GAP and not any(data[end:offset]):
            runs[-1] = Run(runs[-1].offset, offset + length - runs[-1].offset)
        else:
            runs.append(Run(offset, length))
    return runs


def _check_apart(runs: Sequence[Run], structure: Sequence[Run]) -> None:
    """No run may share a byte with the file's structure."""
    end_of_runs = end_of_structure = 0
    for (offset, length), is_run in sorted([(run, True) for run in runs] + [(region, False) for region in structure if region.length]):
        if offset < (end_of_structure if is_run else end_of_runs):
            raise Unsuitable("a TIFF with pixels over its own structure")
        if is_run:
            end_of_runs = offset + length
        else:
            end_of_structure = max(end_of_structure, offset + length)


def _fitted(
    samples: Pixels, layout: Layout, places: Sequence[Run], runs: Sequence[Run], spare: int
) -> tuple[list[bytes], list[int] | None]:
    """The blocks, compressed as hard as they must be, and their offsets within the runs, if they fit."""
    for harder in (False, True) if layout.compression in DEFLATE else (False,):
        blocks = tiff_blocks.encode(samples, layout, harder=harder)
        lengths = [len(block) for block in blocks]
        share = spare / sum(lengths)
        larger = (length + math.ceil(share * length) for length in lengths)
        wanted = [min(pair) for pair in zip(larger, map(layout.most_bytes_of, layout.blocks()), strict=True)]
        if _place(wanted, places, runs) is not None:
            return blocks, _place(lengths, places, runs)
    return blocks, None


def _place(lengths: Sequence[int], places: Sequence[Run], runs: Sequence[Run]) -> list[int] | None:
    """Offsets of blocks within the runs: as before if that works out, else one behind the other. What fits, fits shorter, too."""
    before = [place.offset for place in places]
    order = sorted(range(len(places)), key=before.__getitem__)
    return _packed(lengths, order, runs, before) or _packed(lengths, order, runs, [0] * len(before))


def _packed(lengths: Sequence[int], order: Iterable[int], runs: Iterable[Run], earliest: Sequence[int]) -> list[int] | None:
    """Offsets in this order, none before its earliest; None if they do not fit."""
    offsets, rest = [0] * len(lengths), iter(runs)
    at = end = 0
    for i in order:
        at = max(at, earliest[i])
        while at + lengths[i] > end:
            run = next(rest, None)
            if run is None:
                return None
            at, end = max(run.offset, earliest[i]), run.offset + run.length
        offsets[i] = at
        at += lengths[i]
    return offsets
