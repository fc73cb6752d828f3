"""The reference decoder of docs/FORMAT.md, section 6: latents of a pretrained autoencoder, in whole numbers and plain Python.

It shares no code with SDFS and favours clearness over speed. Values are in 1/16 symbol units.
"""

from __future__ import annotations

import math
import struct

from tests.vectors.reference import CLASSES, Ans, Grid, Weights, leb128

SLICE, LEVELS, UNITS = 128, 4, (16, 16, 13, 11, 11)
LIMIT = 1 << 16
PARAMETER_CLASSES = {"mean": 30, "base": 18, "profile": 28, "shift": 12}
THRESHOLDS = [math.isqrt(math.isqrt(1 << (35 + k))) for k in range(1, CLASSES)]  # floor(2^(9 + (k - 1) / 4))

ROWS = [(0, -1), (0, 1)]
COLUMNS = [(-1, 0), (1, 0)]
TALL = [(-2, -1), (-2, 1), (2, -1), (2, 1)]
WIDE = [(-1, -2), (-1, 2), (1, -2), (1, 2)]
FAR_ROWS = [(0, -3), (0, 3)]
FAR_COLUMNS = [(-3, 0), (3, 0)]
FALLING = [(-1, -1), (1, 1)]
RISING = [(-1, 1), (1, -1)]
FAR_WIDE = [(-1, -3), (-1, 3), (1, -3), (1, 3)]
FAR_TALL = [(-3, -1), (-3, 1), (3, -1), (3, 1)]
PASSES = [  # row and column, odd or even; groups of neighbours
    (1, 1, [FALLING, RISING, FAR_WIDE, FAR_TALL]),
    (0, 1, [ROWS, COLUMNS, TALL, WIDE, FAR_ROWS, FAR_COLUMNS]),
    (1, 0, [ROWS, COLUMNS, TALL, WIDE, FAR_ROWS, FAR_COLUMNS, FALLING, RISING]),
]


def clamp(value: int, least: int, most: int) -> int:
    return min(max(value, least), most)


def mirrored(index: int, length: int) -> int:
    if length == 1:
        return 0
    index = abs(index) % (2 * length - 2)
    return min(index, 2 * length - 2 - index)


class Head:
    """Steps as bytes; angles, or None."""

    def __init__(self, data: bytes, channels: int) -> None:
        flags = data[0]
        assert flags < 4
        count = 1 if flags & 1 else channels
        self.steps = [2 ** (data[1 + (0 if flags & 1 else c)] / 16 - 8) for c in range(channels)]
        angles = channels * (channels - 1) // 2 if flags & 2 else 0
        self.angles = struct.unpack_from(f"<{angles}b", data, 1 + count)
        self.length = 1 + count + angles

    def matrix(self) -> list[list[float]]:
        """Quantised latents, in symbol units, to latents."""
        channels = range(len(self.steps))
        rows = [[float(i == j) for j in channels] for i in channels]
        pairs = [(i, j) for i in channels for j in channels if i < j]
        for (i, j), angle in zip(pairs, self.angles or [0] * len(pairs), strict=True):
            c, s = math.cos(math.pi * angle / 128), math.sin(math.pi * angle / 128)
            rows[i], rows[j] = (
                [c * a - s * b for a, b in zip(rows[i], rows[j], strict=True)],
                [s * a + c * b for a, b in zip(rows[i], rows[j], strict=True)],
            )
        return [[step * value for value in row] for step, row in zip(self.steps, rows, strict=True)]


class SliceDecoder:
    """One slice."""

    def __init__(self, weights: Weights, data: bytes, channels: int, rows: int, columns: int) -> None:
        count, at = leb128(data, 0)
        words = data[at + count :]
        self.ans = Ans([number for (number,) in struct.iter_unpack("<I", words + bytes(-len(words) % 4))])
        self.escapes, self.at = data[at : at + count], 0
        self.weights, self.channels, self.rows, self.columns = weights, range(channels), rows, columns
        self.values: Grid = [[[0] * columns for _ in range(rows)] for _ in self.channels]

    def read(self, classes: list[int]) -> list[int]:
        symbols = [0] * len(classes)
        for position in sorted(range(len(classes)), key=lambda p: classes[p]):
            reach, cumulative = self.weights.tables[classes[position]]
            symbol = self.ans.decode(cumulative) - reach
            if symbol == reach + 1:
                value, self.at = leb128(self.escapes, self.at)
                symbol = -(value + 1) // 2 if value % 2 else value // 2
            symbols[position] = symbol
        return symbols

    def decode(self) -> Grid:
        means, bases, profiles, shifts = self._parameters()
        places = [(c, r, s) for c in self.channels for r in range(0, self.rows, 16) for s in range(0, self.columns, 16)]
        self._put(places, [0] * len(places), [bases[c] for c, _, _ in places], UNITS[LEVELS])
        for level in reversed(range(LEVELS)):
            for number in range(3):
                self._pass(level, number, profiles[level], shifts[level])
        assert not self.ans.words
        assert self.ans.state == 0
        assert self.at == len(self.escapes)
        return [
            [[clamp(v + 16 * mean, -32768, 32767) for v in row] for row in plane] for plane, mean in zip(self.values, means, strict=True)
        ]

    def _parameters(self) -> tuple[list[int], list[int], list[list[int]], list[list[int]]]:
        count = len(self.channels)
        kinds = [kind for kind, rounds in (("mean", 1), ("base", 1), ("profile", LEVELS), ("shift", LEVELS)) for _ in range(rounds)]
        symbols = self.read([PARAMETER_CLASSES[kind] for kind in kinds for _ in self.channels])
        lists = [symbols[at : at + count] for at in range(0, len(symbols), count)]

        def summed(first: int, differences: list[int]) -> list[int]:
            return [first + sum(differences[: c + 1]) for c in self.channels]

        profiles = [summed(16, differences) for differences in lists[2 : 2 + LEVELS]]
        assert all(0 <= profile < 32 for level in profiles for profile in level)
        return lists[0], summed(20, lists[1]), profiles, lists[2 + LEVELS :]

    def _put(self, places: list[tuple[int, int, int]], means: list[int], classes: list[int], unit: int) -> None:
        for (c, r, s), mean, symbol in zip(places, means, self.read(classes), strict=True):
            self.values[c][r][s] = clamp(mean + unit * symbol, -LIMIT, LIMIT)

    def _pass(self, level: int, number: int, profiles: list[int], shifts: list[int]) -> None:
        stride = 1 << level
        odd_row, odd_column, groups = PASSES[number]
        height, width = -(-self.rows // stride), -(-self.columns // stride)

        def value(c: int, r: int, s: int) -> int:
            return self.values[c][mirrored(r, height) * stride][mirrored(s, width) * stride]

        positions = [(r, s) for r in range(odd_row, height, 2) for s in range(odd_column, width, 2)]
        means, owns = {}, {}
        for c in self.channels:
            taps = self.weights.row(f"taps.{number}", profiles[c])
            for r, s in positions:
                total = sum(w * sum(value(c, r + dr, s + ds) for dr, ds in group) for w, group in zip(taps, groups, strict=True))
                means[c, r, s] = clamp((total + 128) >> 8, -LIMIT, LIMIT)
                owns[c, r, s] = sum(abs(value(c, r + dr, s + ds) - means[c, r, s]) for dr, ds in groups[0] + groups[1])
        classes = {}
        for r, s in positions:
            shared = sum(owns[c, r, s] for c in self.channels) // len(self.channels)
            for c in self.channels:
                constant, of_own, of_shared = self.weights.row("contexts", profiles[c])[3 * number : 3 * number + 3]
                scale = constant + of_own * owns[c, r, s] + of_shared * shared
                classes[c, r, s] = clamp(sum(t <= scale for t in THRESHOLDS) + shifts[c] + (0, 0, 1, 2)[level], 1, CLASSES - 1)
        order = list(means)
        places = [(c, r * stride, s * stride) for c, r, s in order]
        self._put(places, [means[p] for p in order], [classes[p] for p in order], UNITS[level])


def decode_section(data: bytes, weights: Weights, channels: int, rows: int, columns: int) -> Grid:
    """The quantised latents of a section."""
    at = Head(data, channels).length
    latents = [[[0] * columns for _ in range(rows)] for _ in range(channels)]
    corners = [(top, left) for top in range(0, rows, SLICE) for left in range(0, columns, SLICE)]
    for top, left in corners:
        size = len(data) - at
        if (top, left) != corners[-1]:
            size, at = int.from_bytes(data[at : at + 4], "little"), at + 4
        height, width = min(SLICE, rows - top), min(SLICE, columns - left)
        part = SliceDecoder(weights, data[at : at + size], channels, height, width).decode()
        at += size
        for plane, decoded in zip(latents, part, strict=True):
            for r in range(height):
                plane[top + r][left : left + width] = decoded[r]
    assert at == len(data)
    return latents
