"""The strips or tiles of a TIFF: where they lie, what is in them, and how they are compressed. Source: TIFF revision 6.0, 3, 9, 13 to 15.

Both are called blocks here. A strip is as wide as the picture; a tile may reach beyond it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import imagecodecs
import numpy as np

from sdfs.codec.pictures.formats.shared import Pixels, Run, decoding
from sdfs.codec.pictures.formats.tiff_directory import Directory
from sdfs.errors import NotAPicture, Unsuitable

NONE, LZW, DEFLATE, PACKBITS = 1, 5, (8, 32946), 32773  # both codes of Deflate mean the same
COMPRESSIONS = (NONE, LZW, *DEFLATE, PACKBITS)
WIDTH, HEIGHT, STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_COUNTS = 256, 257, 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
_MAX_BLOCKS = 1 << 17
_HARDER = 10  # libdeflate's level: 5 % less than zlib's 6, and 4 % less than its 9 as fast


class _Block(NamedTuple):
    plane: int
    top: int
    left: int
    rows: int  # that are coded


@dataclass(frozen=True)
class Layout:
    """How the samples of a picture are cut into blocks and compressed."""

    height: int
    width: int
    planes: int  # one, or one a sample
    samples: int  # of a pixel in a plane
    block_height: int
    block_width: int
    tiled: bool
    compression: int
    differences: bool  # horizontal ones are compressed, not samples

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height of what all blocks of a plane hold."""
        height = -(-self.height // self.block_height) * self.block_height if self.tiled else self.height
        return -(-self.width // self.block_width) * self.block_width, height

    @property
    def count(self) -> int:
        """Of blocks."""
        return self.planes * -(-self.height // self.block_height) * -(-self.width // self.block_width)

    def blocks(self) -> Iterator[_Block]:
        """In the order of the file's tags."""
        for plane in range(self.planes):
            for top in range(0, self.height, self.block_height):
                for left in range(0, self.width, self.block_width):
                    yield _Block(plane, top, left, self.block_height if self.tiled else min(self.block_height, self.height - top))

    def bytes_of(self, block: _Block) -> int:
        return block.rows * self.block_width * self.samples

    def most_bytes_of(self, block: _Block) -> int:
        """What it may take compressed, whatever its samples are."""
        raw, row = self.bytes_of(block), self.block_width * self.samples
        if self.compression == NONE:
            return raw
        if self.compression == PACKBITS:
            return block.rows * (row + -(-row // 128))
        return 2 * raw + 64  # LZW: 12 bits a byte and two codes more; Deflate: less


def parse_layout(data: bytes, directory: Directory, channels: int, *, planar: bool, compression: int, differences: bool) -> Layout:
    """Raises NotAPicture and Unsuitable."""
    width, height = directory.value(data, WIDTH), directory.value(data, HEIGHT)
    tiled = TILE_WIDTH in directory.tags
    if tiled:
        block_width, block_height = directory.value(data, TILE_WIDTH), directory.value(data, TILE_HEIGHT)
    else:
        block_width, block_height = width, min(directory.value(data, ROWS_PER_STRIP, height), height)
    if not (width and height and block_width and block_height):
        raise NotAPicture(f"the TIFF claims {width}×{height} pixels in blocks of {block_width}×{block_height}")
    planes, samples = (channels, 1) if planar else (1, channels)
    return Layout(height, width, planes, samples, block_height, block_width, tiled, compression, differences)


def find(data: bytes, directory: Directory, layout: Layout) -> list[Run]:
    """Where each block lies. Raises NotAPicture and Unsuitable."""
    if layout.count > _MAX_BLOCKS:
        raise Unsuitable(f"a TIFF of {layout.count} strips or tiles")
    offsets, counts = (directory.values(data, tag, layout.count) for tag in place_tags(layout))
    if not len(offsets) == len(counts) == layout.count:
        raise NotAPicture(f"the TIFF has {len(offsets)} offsets and {len(counts)} lengths of {layout.count} strips or tiles")
    runs = [Run(offset, count) for offset, count in zip(offsets, counts, strict=True)]
    if any(run.offset + run.length > len(data) for run in runs):
        raise NotAPicture("the TIFF ends before all of its pixels")
    if not all(run.length for run in runs):
        raise Unsuitable("a TIFF that leaves strips or tiles out")
    return runs


def place_tags(layout: Layout) -> tuple[int, int]:
    """The tags that say where blocks lie, and how long they are."""
    return (TILE_OFFSETS, TILE_COUNTS) if layout.tiled else (STRIP_OFFSETS, STRIP_COUNTS)


def decode(data: bytes, places: Sequence[Run], layout: Layout) -> Pixels:
    """(height, width, all samples). Raises NotAPicture and Unsuitable."""
    planes = np.empty((layout.planes, layout.height, layout.width, layout.samples), np.uint8)
    for block, (offset, length) in zip(layout.blocks(), places, strict=True):
        raw = _decompress(data[offset : offset + length], layout.compression, layout.bytes_of(block))
        samples = np.frombuffer(raw, np.uint8).reshape(block.rows, layout.block_width, layout.samples)
        if layout.differences:
            samples = imagecodecs.delta_decode(samples, axis=1)
        shown = planes[block.plane, block.top : block.top + block.rows, block.left : block.left + layout.block_width]
        shown[:] = samples[: shown.shape[0], : shown.shape[1]]
    return np.moveaxis(planes[..., 0], 0, 2) if layout.planes > 1 else planes[0]


def encode(samples: Pixels, layout: Layout, *, harder: bool) -> list[bytes]:
    """The blocks again. What a tile has beyond the picture repeats its edge. `harder`: at five times the cost, and only Deflate."""
    planes = np.moveaxis(samples, 2, 0)[..., None] if layout.planes > 1 else samples[None]
    encoded = []
    for block in layout.blocks():
        part = planes[block.plane, block.top : block.top + block.rows, block.left : block.left + layout.block_width]
        beyond = ((0, block.rows - part.shape[0]), (0, layout.block_width - part.shape[1]), (0, 0))
        padded = np.ascontiguousarray(np.pad(part, beyond, "edge"))
        raw = imagecodecs.delta_encode(padded, axis=1) if layout.differences else padded
        encoded.append(_compress(raw.tobytes(), layout, harder=harder))
    return encoded


def _decompress(coded: bytes, compression: int, size: int) -> bytes:
    """`size` bytes; never more are made."""
    with decoding("a strip or tile of the TIFF"):
        if compression == NONE:
            raw = coded
        elif compression == LZW:
            raw = bytes(imagecodecs.lzw_decode(coded, out=size + 1))
        elif compression == PACKBITS:
            raw = bytes(imagecodecs.packbits_decode(coded, out=size + 1))
        else:
            raw = zlib.decompressobj().decompress(coded, size + 1)
    if len(raw) > size:
        raise Unsuitable("a TIFF whose strips or tiles hold more than its pixels")
    if len(raw) < size:
        raise NotAPicture(f"a strip or tile of the TIFF holds {len(raw)} of {size} bytes")
    return raw


def _compress(raw: bytes, layout: Layout, *, harder: bool) -> bytes:
    if layout.compression == NONE:
        return raw
    if layout.compression == LZW:
        return bytes(imagecodecs.lzw_encode(raw))
    if layout.compression == PACKBITS:
        row = layout.block_width * layout.samples  # rows are packed one by one: TIFF 6.0, 9
        return b"".join(bytes(imagecodecs.packbits_encode(raw[at : at + row])) for at in range(0, len(raw), row))
    return bytes(imagecodecs.deflate_encode(raw, _HARDER)) if harder else zlib.compress(raw)
