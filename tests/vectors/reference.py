"""The reference decoder of docs/FORMAT.md: latent blob to quantised latents in whole numbers and plain Python.

It shares no code with SDFS, only the preset dictionaries, and favours clearness over speed: a 96 x 80 picture takes seconds.
Fixed-point units are in the names: `_12` means multiples of 2^-12. Grids are lists of channels, each a list of rows.
"""

from __future__ import annotations

import json
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from sdfs.container import HEADER_DICTIONARY
from sdfs.metadata import dictionary

Grid = list[list[list[int]]]
Places = Callable[[int, int], bool]  # of a row and a column
CHANNELS, LOW, SLICE, CLASSES = 256, 32, 64, 46
FIRST_SCALE_4 = -48  # of class 1: a mean that is wrong is put right by a symbol, which class 0 has not


class Weights:
    """The integers of a safetensors weights file: prior.* and entropy.*."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        table = json.loads(data[8 : 8 + length])
        self._values: dict[str, tuple[list[int], list[int]]] = {}
        for name, entry in table.items():
            if name.startswith(("prior.", "entropy.")):
                assert entry["dtype"] == "I32", name
                start, stop = (8 + length + offset for offset in entry["data_offsets"])
                self._values[name] = (entry["shape"], list(struct.unpack(f"<{(stop - start) // 4}i", data[start:stop])))
        reach, frequencies = self._values["entropy.reach"][1], self._values["entropy.frequencies"][1]
        self.tables: list[tuple[int, list[int]]] = [(0, [])]
        at = 0
        for index in range(1, CLASSES):
            size = 2 * reach[index] + 2
            self.tables.append((reach[index], [0, *accumulate(frequencies[at : at + size])]))
            at += size

    def row(self, name: str, index: int) -> list[int]:
        (_, width), flat = self._values[f"prior.{name}"]
        return flat[index * width : (index + 1) * width]

    def layer(self, name: str) -> tuple[list[list[list[list[int]]]], list[int]]:
        """Weights [out][in][y][x] and biases [out]."""
        (outs, ins, height, width), flat = self._values[f"prior.{name}.weight"]
        numbers = iter(flat)
        kernel = [[[[next(numbers) for _ in range(width)] for _ in range(height)] for _ in range(ins)] for _ in range(outs)]
        bias = self._values.get(f"prior.{name}.bias", ([outs], [0] * outs))[1]
        return kernel, bias


def convolve(x: Grid, layer: tuple[list[list[list[list[int]]]], list[int]], bias_shift: int) -> Grid:
    """Same-size convolution, zeros outside."""
    kernel, bias = layer
    height, width, reach = len(x[0]), len(x[0][0]), len(kernel[0][0]) // 2
    out = []
    for weights, offset in zip(kernel, bias, strict=True):
        plane = [[offset << bias_shift] * width for _ in range(height)]
        for source, taps in zip(x, weights, strict=True):
            for dy, row in enumerate(taps, -reach):
                for dx, weight in enumerate(row, -reach):
                    if not weight:
                        continue
                    for i in range(max(0, -dy), min(height, height - dy)):
                        target, line = plane[i], source[i + dy]
                        for j in range(max(0, -dx), min(width, width - dx)):
                            target[j] += weight * line[j + dx]
        out.append(plane)
    return out


def apply(function: Any, *grids: Grid) -> Grid:
    return [[[function(*v) for v in zip(*rows, strict=True)] for rows in zip(*planes, strict=True)] for planes in zip(*grids, strict=True)]


def activate(x_20: Grid) -> Grid:
    return apply(lambda v: min(max((v + 2048) >> 12, 0), 128 << 8), x_20)


def magnitude_8(y_4: Grid) -> Grid:
    def one(y: int) -> int:
        a_4 = 2 * min(abs(y), 2048 << 4) + 16
        exponent = a_4.bit_length() - 4  # 2^(exponent - 1) <= a < 2^exponent
        return 256 * (exponent - 2) + ((64 * a_4 + (1 << exponent)) >> (exponent + 1))

    return apply(one, y_4)


def shuffle(x: Grid) -> Grid:
    """Pixel shuffle by 2: channel 4c + 2i + j goes to row 2y + i, column 2x + j of channel c."""
    height, width = len(x[0]), len(x[0][0])
    return [
        [[x[4 * c + 2 * (r % 2) + s % 2][r // 2][s // 2] for s in range(2 * width)] for r in range(2 * height)] for c in range(len(x) // 4)
    ]


def corners(r: int, s: int) -> bool:
    return r % 2 == 0 and s % 2 == 0


def centres(r: int, s: int) -> bool:
    return r % 2 == 1 and s % 2 == 1


def far(places: Places) -> Places:
    """These of the corners."""
    return lambda r, s: corners(r, s) and places(r // 2, s // 2)


def even(r: int, s: int) -> bool:
    return (r + s) % 2 == 0


def odd(r: int, s: int) -> bool:
    return (r + s) % 2 == 1


BESIDE = ((-1, 0), (1, 0), (0, -1), (0, 1))
DIAGONALS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
FAR_BESIDE, FAR_DIAGONALS = (tuple((2 * dy, 2 * dx) for dy, dx in steps) for steps in (BESIDE, DIAGONALS))


def keep(x: Grid, places: Places) -> Grid:
    return [[[v if places(r, s) else 0 for s, v in enumerate(row)] for r, row in enumerate(plane)] for plane in x]


def around(x: Grid, steps: tuple[tuple[int, int], ...]) -> Grid:
    height, width = len(x[0]), len(x[0][0])

    def moved(dy: int, dx: int) -> Grid:
        return [
            [[p[r + dy][s + dx] if 0 <= r + dy < height and 0 <= s + dx < width else 0 for s in range(width)] for r in range(height)]
            for p in x
        ]

    return [plane for dy, dx in steps for plane in moved(dy, dx)]


class Ans:
    """constriction's stack coder: 64-bit state, 32-bit words, 24-bit probabilities."""

    def __init__(self, words: list[int]) -> None:
        self.words, self.state = list(words), 0
        self._refill()

    def _refill(self) -> None:
        while self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def decode(self, cumulative: list[int]) -> int:
        slot = self.state & (1 << 24) - 1
        symbol = bisect_right(cumulative, slot) - 1
        self.state = (self.state >> 24) * (cumulative[symbol + 1] - cumulative[symbol]) + slot - cumulative[symbol]
        self._refill()
        return symbol


def leb128(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 128:
            return value, at


class SliceDecoder:
    """One slice: hyperlatents, then the seven passes."""

    def __init__(self, weights: Weights, data: bytes, rows: int, columns: int, quality: int) -> None:
        count, at = leb128(data, 0)
        words = data[at + count :]
        assert words[-1:] != b"\0"
        self.ans = Ans([number for (number,) in struct.iter_unpack("<I", words + bytes(-len(words) % 4))])
        self.escapes, self.at = data[at : at + count], 0
        self.weights, self.quality, self.rows, self.columns = weights, quality, rows, columns
        self.gain_4 = weights.row("gains", quality)

    def read(self, classes: list[int]) -> list[int]:
        symbols = [0] * len(classes)
        for position in sorted(range(len(classes)), key=lambda p: classes[p]):
            if classes[position]:
                reach, cumulative = self.weights.tables[classes[position]]
                symbol = self.ans.decode(cumulative) - reach
                if symbol == reach + 1:
                    value, self.at = leb128(self.escapes, self.at)
                    symbol = -(value + 1) // 2 if value % 2 else value // 2
                symbols[position] = symbol
        return symbols

    def decode(self) -> Grid:
        height, width = -(-self.rows // 4), -(-self.columns // 4)
        classes = [scale_class(s) for s in self.weights.row("hyper_scales", self.quality) for _ in range(height * width)]
        flat = iter(self.read(classes))
        hyper = [[[next(flat) for _ in range(width)] for _ in range(height)] for _ in range(32)]
        return self._passes(self._features(hyper))

    def _layer(self, name: str, x_8: Grid) -> Grid:
        return convolve(x_8, self.weights.layer(name), 8)

    def _features(self, hyper: Grid) -> Grid:
        x = shuffle(activate(self._layer("up_first", apply(lambda v: min(max(v, -64), 64) << 8, hyper))))
        mixed = self._layer("mix", shuffle(activate(self._layer("up_second", x))))
        bias_12 = self.weights.row("quality_bias", self.quality)
        return activate([[[v + (b << 8) for v in row] for row in plane] for plane, b in zip(mixed, bias_12, strict=True)])

    def _passes(self, features: Grid) -> Grid:
        nothing = [[[0] * len(features[0][0]) for _ in features[0]] for _ in range(LOW)]
        low = self._pass(far(corners), *self._low(self._layer("low_corners", features), nothing), nothing)
        low = self._low_beside("low_far_centres", far(centres), FAR_DIAGONALS, features, low)
        low = self._low_beside("low_far_odd", far(odd), FAR_BESIDE, features, low)
        low = self._low_beside("low_centres", centres, DIAGONALS, features, low)
        low = self._low_beside("low_odd", odd, BESIDE, features, low)
        squeezed = activate(self._layer("squeeze_low", magnitude_8(low)))
        base = apply(int.__add__, self._layer("high_context", squeezed), self._layer("high_features", features))
        nothing = [nothing[0] for _ in range(CHANNELS - LOW)]
        high = self._pass(even, nothing, self._high(base), nothing)
        squeezed = keep(activate(self._layer("squeeze_high", magnitude_8(high))), even)
        base = apply(int.__add__, base, self._layer("high_neighbours", around(squeezed, BESIDE)))
        return low + self._pass(odd, nothing, self._high(base), high)

    def _low_beside(self, layers: str, places: Places, steps: tuple[tuple[int, int], ...], features: Grid, low: Grid) -> Grid:
        around_4 = apply(lambda v: min(max(v, -(2048 << 4)), 2048 << 4), around(low, steps))
        context, own = self._layer(f"{layers}.context", magnitude_8(around_4)), self._layer(f"{layers}.features", features)
        linear_20 = apply(lambda v: v << 4, convolve(around_4, self.weights.layer(f"{layers}.linear"), 0))
        out_20 = self._layer(f"{layers}.out", activate(apply(int.__add__, context, own)))
        return self._pass(places, *self._low(out_20, linear_20), low)

    def _low(self, out_20: Grid, linear_20: Grid) -> tuple[Grid, Grid]:
        out_8 = apply(lambda v: (v + 2048) >> 12, out_20)
        multiplier_12 = self.weights.row("multipliers", self.quality)
        means, scales = [], []
        for c in range(LOW):
            means.append([[m * 32 * multiplier_12[c] for m in row] for row in out_8[c]])
            scales.append([[max(FIRST_SCALE_4, (s + (self.gain_4[c] << 4) + 8) >> 4) for s in row] for row in out_8[LOW + c]])
        return apply(lambda a, b: (a + b + (1 << 15)) >> 16, means, linear_20), scales

    def _high(self, base: Grid) -> Grid:
        out_20 = self._layer("high", activate(base))
        return [
            [[(v + (g << 16) + (1 << 15)) >> 16 for v in row] for row in plane] for plane, g in zip(out_20, self.gain_4[LOW:], strict=True)
        ]

    def _pass(self, places: Places, mean_4: Grid, scale_4: Grid, known: Grid) -> Grid:
        """`known` with the positions of one pass decoded, each to mean plus 16 times its symbol."""
        height, width = len(scale_4[0]), len(scale_4[0][0])
        order = [(c, r, s) for c in range(len(scale_4)) for r in range(height) for s in range(width) if places(r, s)]
        inside = [r < self.rows and s < self.columns for _, r, s in order]
        classes = [scale_class(scale_4[c][r][s]) if i else 0 for (c, r, s), i in zip(order, inside, strict=True)]
        out = [[list(row) for row in plane] for plane in known]
        for (c, r, s), symbol in zip(order, self.read(classes), strict=True):
            out[c][r][s] = mean_4[c][r][s] + 16 * symbol
        return out


def scale_class(scale_4: int) -> int:
    return min(max((scale_4 - FIRST_SCALE_4) // 4 + 1, 0), CLASSES - 1)


def decode_latents(blob: bytes, weights: Weights) -> tuple[dict[str, Any], Grid]:
    """The header and the quantised latents (1/16 symbol units) of a latent blob; asserts every checksum."""
    magic, version, kind, _, _, _, length, crc = struct.unpack_from("<8sHBBIQII", blob)
    assert (magic, version, kind) == (b"\x89SDFS\r\n\x1a", 1, 1)
    assert zlib.crc32(blob[:28]) == crc
    header_bytes, header_crc = blob[32 : 32 + length - 4], blob[32 + length - 4 : 32 + length]
    assert zlib.crc32(header_bytes) == int.from_bytes(header_crc, "little")
    header = json.loads(zlib.decompressobj(-15, HEADER_DICTIONARY).decompress(header_bytes))
    at, sections = 32 + length, {}
    for name, size, section_crc in header["sections"]:
        sections[name] = blob[at : at + size]
        assert zlib.crc32(sections[name]) == section_crc
        at += size
    assert at == len(blob)
    inflater = zlib.decompressobj(-15, dictionary())
    metadata = inflater.decompress(sections["metadata"], header["metadata_size"] + 1)
    assert len(metadata) == header["metadata_size"]
    assert inflater.eof
    assert not inflater.unused_data
    rows, columns = -(-header["height"] // 16), -(-header["width"] // 16)
    latents = [[[0] * columns for _ in range(rows)] for _ in range(CHANNELS)]
    data, at = sections["latents"], 0
    starts = [(top, left) for top in range(0, rows, SLICE) for left in range(0, columns, SLICE)]
    for top, left in starts:
        size = len(data) - at
        if (top, left) != starts[-1]:
            size, at = int.from_bytes(data[at : at + 4], "little"), at + 4
        height, width = min(SLICE, rows - top), min(SLICE, columns - left)
        part = SliceDecoder(weights, data[at : at + size], height, width, header["quality"]).decode()
        at += size
        for plane, decoded in zip(latents, part, strict=True):
            for r in range(height):
                plane[top + r][left : left + width] = decoded[r][:width]
    packed = b"".join(struct.pack(f"<{columns}h", *row) for plane in latents for row in plane)
    assert zlib.crc32(packed) == header["latents_crc32"]
    return header, latents
