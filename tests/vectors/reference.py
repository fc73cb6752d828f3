"""The reference decoder of docs/FORMAT.md: latent blob to quantised latents in whole numbers, and latents to components, in plain Python.

It shares no code with SDFS, only the preset dictionaries, and favours clearness over speed: a 96 x 80 picture takes seconds.
Fixed-point units are in the names: `_4` means multiples of 2^-4. Grids are lists of channels, each a list of rows.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

from sdfs.blob.dictionaries import HEADER_DICTIONARY, metadata_dictionary

Grid = list[list[list[int]]]
Plane = list[list[float]]
Places = Callable[[int, int], bool]  # of a row and a column
CHANNELS, SLICE, CLASSES, FLAG_CLASSES, CHROMA_FROM = 768, 64, 46, 17, 65
GROUPS = {"mean": 3, "low": 25, "middle": 92, "high": 296, "chroma": 352}  # channels
FINENESS = (0, 3, 7, 12, 19, 27, 36, 46, 57, 73, 100)  # of qualities 0, 10, …, 100
LIMIT_4 = 2048 << 4


class Layer(NamedTuple):
    """Of a convolution."""

    side: int
    weights: list[list[int]]  # [out][tap, in]: of all channels those of the first tap, of the next, …
    biases: list[int]


def fineness(quality: int) -> float:
    position = Fraction(quality, 10)
    low = min(math.floor(position), 9)
    return float(Fraction(round(8 * (FINENESS[low] + (FINENESS[low + 1] - FINENESS[low]) * (position - low))), 8))


def float32(x: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", x))
    return float(rounded)


class Weights:
    """The numbers of a safetensors weights file: prior.* and entropy.*."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        self._values: dict[str, tuple[list[int], list[Any]]] = {}
        for name, entry in json.loads(data[8 : 8 + length]).items():
            if name.startswith(("prior.", "entropy.")):
                kind = {"F32": "f", "I32": "i"}[entry["dtype"]]
                start, stop = (8 + length + offset for offset in entry["data_offsets"])
                self._values[name] = (entry["shape"], list(struct.unpack(f"<{(stop - start) // 4}{kind}", data[start:stop])))
        reach, frequencies = self._values["entropy.reach"][1], self._values["entropy.frequencies"][1]
        self.tables: list[tuple[int, list[int]]] = [(0, [])]
        at = 0
        for index in range(1, len(reach)):
            size = 2 * reach[index] + 2
            self.tables.append((reach[index], [0, *accumulate(frequencies[at : at + size])]))
            at += size

    def row(self, name: str, index: int) -> list[int]:
        (_, width), flat = self._values[f"prior.{name}"]
        return flat[index * width : (index + 1) * width]

    def table_8(self, name: str, fineness: float) -> list[int]:
        """The row of `name.levels` for a fineness; each operation of float32, as the page says."""
        (rows, width), flat = self._values[f"prior.{name}.levels"]
        position = float32(fineness * float32(0.08))
        low = min(int(position), rows - 2)
        part = float32(position - low)
        rest = float32(1 - part)
        row, following = (flat[index * width : (index + 1) * width] for index in (low, low + 1))
        mixed = [float32(float32(a * rest) + float32(b * part)) for a, b in zip(row, following, strict=True)]
        return [math.floor(float32(float32(v * 256) + 0.5)) for v in mixed]

    def layer(self, name: str, fraction_bits: int) -> Layer:
        """In units of 2^-fraction_bits."""
        (outs, ins, side, _), flat = self._values[f"prior.{name}.weight"]
        numbers, taps = whole(flat, fraction_bits), side * side
        weights = [[numbers[(out * ins + c) * taps + tap] for tap in range(taps) for c in range(ins)] for out in range(outs)]
        return Layer(side, weights, whole(self._values.get(f"prior.{name}.bias", ([outs], [0.0] * outs))[1], fraction_bits))


def whole(numbers: Sequence[float], fraction_bits: int) -> list[int]:
    scaled = [number * (1 << fraction_bits) for number in numbers]
    assert all(number == int(number) for number in scaled)
    return [int(number) for number in scaled]


def convolve(x: Grid, layer: Layer, bias_shift: int) -> Grid:
    """Same-size convolution, zeros outside."""
    height, width = len(x[0]), len(x[0][0])
    steps = range(-(layer.side // 2), layer.side // 2 + 1)
    patches = moved(x, [(dy, dx) for dy in steps for dx in steps], or_nothing)
    columns = [[[plane[r][s] for plane in patches] for s in range(width)] for r in range(height)]
    return [
        [[(bias << bias_shift) + sum(map(mul, weights, column)) for column in row] for row in columns]
        for weights, bias in zip(layer.weights, layer.biases, strict=True)
    ]


def apply(function: Any, *grids: Grid) -> Grid:
    return [[[function(*v) for v in zip(*rows, strict=True)] for rows in zip(*planes, strict=True)] for planes in zip(*grids, strict=True)]


def add(*grids: Grid) -> Grid:
    return apply(lambda *v: sum(v), *grids)


def plus(grid: Grid, by_channel: list[int], shift: int) -> Grid:
    return [[[v + (b << shift) for v in row] for row in plane] for plane, b in zip(grid, by_channel, strict=True)]


def rounded(grid: Grid, bits: int) -> Grid:
    """From units of 2^-(4 + bits) to 2^-4, halves up."""
    return apply(lambda v: (v + (1 << bits - 1)) >> bits, grid)


def act(x_12: Grid) -> Grid:
    return apply(lambda v: min(max(v, 0), 255), rounded(x_12, 8))


def magnitude(y_4: Grid) -> Grid:
    def one(y: int) -> int:
        a_4 = 2 * min(abs(y), LIMIT_4) + 16
        exponent = a_4.bit_length() - 4  # 2^(exponent - 1) <= a < 2^exponent
        return min(16 * (exponent - 2) + ((4 * a_4 + (1 << exponent)) >> (exponent + 1)), 255)

    return apply(one, y_4)


def clamped(y_4: Grid) -> Grid:
    return apply(lambda v: min(max(v, -LIMIT_4), LIMIT_4), y_4)


def everywhere(_: int, __: int) -> bool:
    return True


def corners(r: int, s: int) -> bool:
    return r % 2 == 0 and s % 2 == 0


def centres(r: int, s: int) -> bool:
    return r % 2 == 1 and s % 2 == 1


def even(r: int, s: int) -> bool:
    return (r + s) % 2 == 0


def odd(r: int, s: int) -> bool:
    return (r + s) % 2 == 1


BESIDE = ((-1, 0), (1, 0), (0, -1), (0, 1))
DIAGONALS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
DIFFERENCES = ((0, 1), (0, -1), (1, 0), (-1, 0))
LUMA_DIFFERENCES = ((1, 1), (-1, -1), (1, -1), (-1, 1))


def keep(x: Grid, places: Places) -> Grid:
    return [[[v if places(r, s) else 0 for s, v in enumerate(row)] for r, row in enumerate(plane)] for plane in x]


def moved(x: Grid, steps: Sequence[tuple[int, int]], at: Callable[[Sequence[Any], int, int], Any]) -> Grid:
    """What is so far from each position, all channels of the first step, then of the next; `at` says what stands beyond the border."""
    height, width = len(x[0]), len(x[0][0])

    def plane_of(p: list[list[int]], dy: int, dx: int) -> list[list[int]]:
        lines = [at(p, r, dy) for r in range(height)]
        return [[0 if line is None else at(line, s, dx) or 0 for s in range(width)] for line in lines]

    return [plane_of(p, dy, dx) for dy, dx in steps for p in x]


def or_nothing(line: Sequence[Any], at: int, step: int) -> Any:
    return line[at + step] if 0 <= at + step < len(line) else None


def or_nearest(line: Sequence[Any], at: int, step: int) -> Any:
    return line[min(max(at + step, 0), len(line) - 1)]


def or_opposite(line: Sequence[Any], at: int, step: int) -> Any:
    return line[at + step] if 0 <= at + step < len(line) else line[at - step]


def or_corner(line: Sequence[Any], at: int, step: int) -> Any:
    """The nearest even place."""
    return line[at + step] if at + step < len(line) else line[at - step]


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


def signed(value: int) -> int:
    return -(value + 1) // 2 if value % 2 else value // 2


def outliers(data: bytes, rows: int, columns: int, channels: int) -> tuple[dict[tuple[int, int, int], int], int]:
    """What a slice begins with, by channel, row and column; and where it ends."""
    found, place = {}, -1
    count, at = leb128(data, 0)
    for _ in range(count):
        gap, at = leb128(data, at)
        value, at = leb128(data, at)
        place += gap + 1
        assert place < channels * rows * columns
        assert value
        found[place % channels, place // channels // columns, place // channels % columns] = signed(value)
    return found, at


class SliceDecoder:
    """One slice: its passes, from `means` to `chroma`."""

    def __init__(self, weights: Weights, data: bytes, rows: int, columns: int, quality: int) -> None:
        channels = CHANNELS if fineness(quality) >= CHROMA_FROM else CHANNELS - GROUPS["chroma"]
        self.outliers, at = outliers(data, rows, columns, channels)
        count, at = leb128(data, at)
        words = data[at + count :]
        assert words[-1:] != b"\0"
        self.ans = Ans([number for (number,) in struct.iter_unpack("<I", words + bytes(-len(words) % 4))])
        self.escapes, self.at = data[at : at + count], 0
        self.weights, self.fineness, self.rows, self.columns = weights, fineness(quality), rows, columns
        self.height, self.width = -(-rows // 4) * 4, -(-columns // 4) * 4

    def read(self, classes: list[int]) -> list[int]:
        symbols = [0] * len(classes)
        for position in sorted(range(len(classes)), key=lambda p: classes[p]):
            if classes[position]:
                reach, cumulative = self.weights.tables[classes[position]]
                symbol = self.ans.decode(cumulative) - reach
                if symbol == reach + 1:
                    value, self.at = leb128(self.escapes, self.at)
                    symbol = signed(value)
                symbols[position] = symbol
        return symbols

    def decode(self) -> tuple[Grid, list[list[int]]]:
        """The values, in units of 1/16, and 1 where windows are short."""
        means = self._means()
        features = self._features(means)
        features, short = self._windows(features)
        low = self._low(features, means)
        features = self._seen("see_low", features, low)
        middle = self._two("middle", features, self._nothing("middle"))
        features = self._seen("see_middle", features, middle)
        high = self._two("high", features, self._nothing("high"))
        chroma = self._nothing("chroma")
        if self.fineness >= CHROMA_FROM:
            out_12 = self._layer("chroma", self._seen("see_high", features, high))
            scale_4 = rounded(plus(out_12, self._table("chroma_quality"), 4), 8)
            chroma = self._pass(everywhere, self._outliers("chroma"), scale_4, chroma)
        assert not self.ans.words
        assert self.ans.state == 0
        assert self.at == len(self.escapes)
        return means + low + middle + high + chroma, short

    def _layer(self, name: str, x_4: Grid) -> Grid:
        return convolve(x_4, self.weights.layer(name, 8), 4)

    def _mean_layer(self, name: str, x_4: Grid) -> Grid:
        return rounded(convolve(x_4, self.weights.layer(name, 10), 4), 10)

    def _table(self, name: str) -> list[int]:
        return self.weights.table_8(name, self.fineness)

    def _nothing(self, group: str) -> Grid:
        return [[[0] * self.width for _ in range(self.height)] for _ in range(GROUPS[group])]

    def _means(self) -> Grid:
        quarter = [[[0] * (self.width // 2) for _ in range(self.height // 2)] for _ in range(GROUPS["mean"])]
        scale_4 = [[[(s_8 + 8) >> 4 for _ in row] for row in p] for p, s_8 in zip(quarter, self._table("corners"), strict=True)]
        outliers_4 = [[row[::2] for row in plane[::2]] for plane in self._outliers("mean")]
        quarter = self._pass(corners, outliers_4, scale_4, quarter, 1, 2)
        quarter = self._beside(0, centres, DIAGONALS, or_corner, quarter, 2)
        quarter = self._beside(1, odd, BESIDE, or_opposite, quarter, 2)
        means = self._nothing("mean")
        for plane, known in zip(means, quarter, strict=True):
            for r, row in enumerate(known):
                plane[2 * r][::2] = row
        means = self._beside(2, centres, DIAGONALS, or_corner, means, 1)
        return self._beside(3, odd, BESIDE, or_opposite, means, 1)

    def _beside(
        self,
        number: int,
        places: Places,
        steps: Sequence[tuple[int, int]],
        beyond: Callable[[Sequence[Any], int, int], Any],
        known: Grid,
        stride: int,
    ) -> Grid:
        around = moved(known, steps, beyond)
        first, second, third, fourth = (around[at : at + 3] for at in (0, 3, 6, 9))
        middle = apply(lambda *v: (sum(v) + 2) >> 2, first, second, third, fourth)
        beyond = apply(int.__sub__, around, middle * 4)
        spread = beyond + apply(int.__sub__, first + third, second + fourth)
        layers = f"refined.{number}"
        hidden = act(plus(self._layer(f"{layers}.first", magnitude(spread)), self._table(f"{layers}.quality"), 4))
        scale_4 = rounded(self._layer(f"{layers}.out", act(self._layer(f"{layers}.second", hidden))), 8)
        outliers_4 = [[row[::stride] for row in plane[::stride]] for plane in self._outliers("mean")]
        mean_4 = add(middle, self._mean_layer(f"{layers}.linear", clamped(beyond)), outliers_4)
        return self._pass(places, mean_4, scale_4, known, 1, stride)

    def _features(self, means: Grid) -> Grid:
        others = moved(means, DIFFERENCES, or_nearest) + moved(means[:1], LUMA_DIFFERENCES, or_nearest)
        differences = apply(int.__sub__, others, means * len(DIFFERENCES) + means[:1] * len(LUMA_DIFFERENCES))
        into = plus(self._layer("into", magnitude(differences)), self._table("quality"), 4)
        return act(self._layer("mix", act(into)))

    def _windows(self, features: Grid) -> tuple[Grid, list[list[int]]]:
        nothing = [[[0] * self.width for _ in range(self.height)]]
        known = self._flags(even, self._layer("windows_even", features), nothing)
        signs = keep(apply(lambda v: 2 * v - 1, known), even)
        beside = self._layer("windows_beside", apply(lambda v: v << 4, moved(signs, BESIDE, or_nothing)))
        flags = self._flags(odd, self._layer("windows_out", act(add(self._layer("windows_odd", features), beside))), known)
        around = self._layer("windows_around", apply(lambda v: v << 4, flags))
        return act(add(self._layer("keep", features), around)), flags[0]

    def _flags(self, places: Places, logit_12: Grid, known: Grid) -> Grid:
        order = [(r, s) for r in range(self.height) for s in range(self.width) if places(r, s)]
        classes = [
            CLASSES + 8 + min(max(((logit_12[0][r][s] << 1) + (1 << 11)) >> 12, -8), 8) if r < self.rows and s < self.columns else 0
            for r, s in order
        ]
        flags = [list(row) for row in known[0]]
        for (r, s), symbol in zip(order, self.read(classes), strict=True):
            flags[r][s] = int(symbol > 0)
        return [flags]

    def _low(self, features: Grid, means: Grid) -> Grid:
        taps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        seen, (_, weights, biases) = clamped(means), self.weights.layer("low_mean", 10)
        differences = apply(int.__sub__, moved(seen, taps, or_nearest), seen * len(taps))
        mean_4 = rounded(convolve(differences, Layer(1, weights, biases), 4), 10)
        return self._two("low", features, mean_4, lambda known: self._mean_layer("low_mean_odd", clamped(known)), 1)

    def _two(self, group: str, features: Grid, mean_4: Grid, odd_mean_4: Callable[[Grid], Grid] | None = None, least: int = 0) -> Grid:
        mean_4 = add(mean_4, self._outliers(group))
        known = self._pass(even, mean_4, self._scale(group, self._layer(f"{group}.even", features)), self._nothing(group), least)
        squeezed = keep(act(self._layer(f"{group}.squeeze", magnitude(known))), even)
        beside = self._layer(f"{group}.beside", moved(squeezed, BESIDE, or_nothing))
        scale_4 = self._scale(group, add(self._layer(f"{group}.odd", features), beside))
        if odd_mean_4:
            mean_4 = add(mean_4, odd_mean_4(moved(known, BESIDE, or_nothing)))
        return self._pass(odd, mean_4, scale_4, known, least)

    def _outliers(self, group: str) -> Grid:
        first = sum(GROUPS[name] for name in list(GROUPS)[: list(GROUPS).index(group)])
        found = self._nothing(group)
        for (channel, r, s), value in self.outliers.items():
            if first <= channel < first + GROUPS[group]:
                found[channel - first][r][s] = 16 * value
        return found

    def _scale(self, group: str, hidden_12: Grid) -> Grid:
        return rounded(plus(self._layer(f"{group}.out", act(hidden_12)), self._table(f"{group}.quality"), 4), 8)

    def _seen(self, layers: str, features: Grid, values: Grid) -> Grid:
        squeezed = act(self._layer(f"{layers}.squeeze", magnitude(values)))
        return act(add(self._layer(f"{layers}.keep", features), self._layer(f"{layers}.around", squeezed)))

    def _pass(self, places: Places, mean_4: Grid, scale_4: Grid, known: Grid, least: int = 0, stride: int = 1) -> Grid:
        """`known` with the positions of one pass decoded, each to mean plus 16 times its symbol.

        No class is below `least`. Grids have every `stride`th position.
        """
        height, width = len(scale_4[0]), len(scale_4[0][0])
        order = [(c, r, s) for r in range(height) for s in range(width) if places(r, s) for c in range(len(scale_4))]
        inside = [r * stride < self.rows and s * stride < self.columns for _, r, s in order]
        classes = [max(scale_class(scale_4[c][r][s]), least) if i else 0 for (c, r, s), i in zip(order, inside, strict=True)]
        out = [[list(row) for row in plane] for plane in known]
        for (c, r, s), symbol in zip(order, self.read(classes), strict=True):
            out[c][r][s] = mean_4[c][r][s] + 16 * symbol
        return out


def scale_class(scale_4: int) -> int:
    return min(max((scale_4 + 48) // 4 + 1, 0), CLASSES - 1)


LONG_ANGLES = (0.6621, 0.6376, 0.5716, 0.4835, 0.3748, 0.2491, 0.1142)
SHORT_ANGLES = (0.5516, 0.3799, 0.1808)
BANDS = sorted(((u, v) for u in range(16) for v in range(16)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
ENDS = ((0, 1, 16, 72, 256, 256), (0, 1, 6, 24, 80, 256), (0, 1, 6, 24, 80, 256))  # of the groups' bands, in each component


def components(values_4: Grid, short: list[list[int]], quality: int) -> list[Plane]:
    """What the transform alone makes of latents: Y, Cb and Cr, 16 samples a position and side."""
    rows, columns = len(short), len(short[0])
    blocks = [[[[[0.0] * 16 for _ in range(16)] for _ in range(columns)] for _ in range(rows)] for _ in ENDS]
    channels = iter(values_4)
    for group in range(5):
        for axis, ends in enumerate(ENDS):
            for u, v in BANDS[ends[group] : ends[group + 1]]:
                tilt = min(max(((3 if axis else 8) - math.hypot(u, v)) / 8, -0.75), 0.75)
                unit = 2.0 ** (round(16 * (8.2 - 0.05 * fineness(quality) - tilt)) / 16 - 4)
                for r, row in enumerate(next(channels)):
                    for s, value in enumerate(row):
                        blocks[axis][r][s][u][v] = value * unit
    return [_plane(component, short) for component in blocks]


def _plane(blocks: list[list[Plane]], short: list[list[int]]) -> Plane:
    samples = [
        [_short(b) if is_short else _idct_2d(b) for b, is_short in zip(*line, strict=True)] for line in zip(blocks, short, strict=True)
    ]
    plane = [[v for block in line for v in block[y]] for line in samples for y in range(16)]
    for row in range(1, len(short)):
        for x in range(len(plane[0])):
            column = [line[x] for line in plane]
            unlap(column, 16 * row, SHORT_ANGLES if short[row - 1][x // 16] or short[row][x // 16] else LONG_ANGLES)
            for line, value in zip(plane, column, strict=True):
                line[x] = value
    for y, line in enumerate(plane):
        for column_number in range(1, len(short[0])):
            beside = short[y // 16][column_number - 1 : column_number + 1]
            unlap(line, 16 * column_number, SHORT_ANGLES if any(beside) else LONG_ANGLES)
    return plane


def _short(block: Plane) -> Plane:
    quarters = [(i, j) for i in range(2) for j in range(2)]
    means = [sum(block[i][j] * (-1) ** (i * k + j * m) for i, j in quarters) / 2 for k, m in quarters]
    out = [[0.0] * 16 for _ in range(16)]
    for (i, j), mean in zip(quarters, means, strict=True):
        part = [line[j::2] for line in block[i::2]]
        part[0][0] = mean
        for y, line in enumerate(_idct_2d(part)):
            out[8 * i + y][8 * j : 8 * j + 8] = line
    for line in out:
        unlap(line, 8, SHORT_ANGLES)
    turned = [list(line) for line in zip(*out, strict=True)]
    for line in turned:
        unlap(line, 8, SHORT_ANGLES)
    return [list(line) for line in zip(*turned, strict=True)]


def _idct_2d(block: Plane) -> Plane:
    turned = zip(*[_idct(line) for line in block], strict=True)
    return [list(line) for line in zip(*[_idct(line) for line in turned], strict=True)]


def _idct(line: Sequence[float]) -> list[float]:
    n = len(line)
    scaled = [v * math.sqrt((2 if k else 1) / n) for k, v in enumerate(line)]
    return [sum(v * math.cos((2 * x + 1) * k * math.pi / (2 * n)) for k, v in enumerate(scaled)) for x in range(n)]


def unlap(line: list[float], border: int, angles: tuple[float, ...]) -> None:
    """Undo the filter over a border, in place."""
    reach = len(angles) + 1
    before, after = line[border - reach : border], line[border : border + reach]
    a = [x + y for x, y in zip(before, after[::-1], strict=True)]
    b = [x - y for x, y in zip(before[::-1], after, strict=True)]
    for k, angle in enumerate(angles):
        cos, sin = math.cos(angle), math.sin(angle)
        b[k], b[k + 1] = cos * b[k] - sin * b[k + 1], sin * b[k] + cos * b[k + 1]
    line[border - reach : border] = [(p + q) / 2 for p, q in zip(a, b[::-1], strict=True)]
    line[border : border + reach] = [(p - q) / 2 for p, q in zip(a[::-1], b, strict=True)]


def decode_latents(blob: bytes, weights: Weights) -> tuple[dict[str, Any], Grid, list[list[int]]]:
    """The header, the latents (1/16 symbol units) of the channels that the quality has, and the windows; asserts every checksum."""
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
    inflater = zlib.decompressobj(-15, metadata_dictionary())
    metadata = inflater.decompress(sections["metadata"], header["metadata_size"] + 1)
    assert len(metadata) == header["metadata_size"]
    assert inflater.eof
    assert not inflater.unused_data
    rows, columns = -(-header["height"] // 16), -(-header["width"] // 16)
    latents = [[[0] * columns for _ in range(rows)] for _ in range(CHANNELS)]
    short = [[0] * columns for _ in range(rows)]
    data, at = sections["latents"], 0
    starts = [(top, left) for top in range(0, rows, SLICE) for left in range(0, columns, SLICE)]
    for top, left in starts:
        size = len(data) - at
        if (top, left) != starts[-1]:
            size, at = int.from_bytes(data[at : at + 4], "little"), at + 4
        height, width = min(SLICE, rows - top), min(SLICE, columns - left)
        part, flags = SliceDecoder(weights, data[at : at + size], height, width, header["quality"]).decode()
        at += size
        for plane, decoded in zip([*latents, short], [*part, flags], strict=True):
            for r in range(height):
                plane[top + r][left : left + width] = [min(max(v, -32768), 32767) for v in decoded[r][:width]]
    coded = latents[: CHANNELS if fineness(header["quality"]) >= CHROMA_FROM else CHANNELS - GROUPS["chroma"]]
    positions = ([plane[r][s] for plane in coded] for r in range(rows) for s in range(columns))
    packed = b"".join(struct.pack(f"<{len(coded)}h", *values) for values in positions) + b"".join(map(bytes, short))
    assert zlib.crc32(packed) == header["latents_crc32"]
    return header, coded, short
