"""Integer symbols to bytes and back, given the scale class of each: class-wise ANS. docs/FORMAT.md specifies the coder.

Symbols are coded in passes. Within a pass they are sorted by class (stably), and each class is one call into constriction with
one table for all, which is what makes it fast. Class 0 is not coded: its symbols are 0. A symbol beyond its table's reach is
coded as an escape; its value stands in a list of its own.

    escape bytes as LEB128 | escapes, zigzag LEB128 each, in decoding order | ANS words, little-endian, without the zero bytes at their end
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from sdfs.errors import DamagedError

PRECISION = 24  # bits of a probability
SYMBOL_LIMIT = 1 << 20  # no symbol is farther from 0 than this
CLASS_STEP = 4  # a class spans this many 1/16 octaves of scale
FIRST_SCALE = -48  # in 1/16 octaves; smaller scales are class 0, where every symbol is 0
CLASSES = 46
FLAG_CLASSES = 17  # beyond the others: symbols -1 and 1, by the odds of 1
_FLAG_STEP = 2  # classes a unit of natural logarithm of the odds
_ESCAPE_BITS = 16  # about what an escaped value takes

Symbols = NDArray[np.int32]
Classes = NDArray[np.uint8]


def scale_class(log2_scale: NDArray[np.floating[Any]]) -> Classes:
    """The class of each log2 standard deviation, given in multiples of 1/16."""
    # exact in any floating format that holds the scales
    classes = np.floor((log2_scale * 16 - FIRST_SCALE) * (1 / CLASS_STEP)) + 1
    return np.clip(classes, 0, CLASSES - 1, out=classes).astype(np.uint8)


def flag_class(logit: NDArray[np.float32]) -> Classes:
    """The class of each flag, by the natural logarithm of the odds that it is 1."""
    middle = FLAG_CLASSES // 2
    steps = np.floor(logit.astype(np.float64) * _FLAG_STEP + 0.5).astype(np.int64)
    return (np.clip(steps, -middle, middle) + middle + CLASSES).astype(np.uint8)


def class_scale(index: int) -> float:
    """The standard deviation at the middle of a class, index >= 1."""
    return float(2.0 ** ((FIRST_SCALE + CLASS_STEP * (index - 0.5)) / 16))


class Tables:
    """Frequencies of each class: symbols -reach..reach, then the escape; they sum to 2^24 and none is 0."""

    def __init__(self, reach: NDArray[np.int32], frequencies: NDArray[np.int32], classes: int = CLASSES) -> None:
        """reach (classes,), reach[0] = 0; frequencies: the tables of classes 1, 2, ... one after the other."""
        sizes = 2 * reach[1:].astype(np.int64) + 2
        if len(reach) != classes or sizes.sum() != len(frequencies):
            raise DamagedError(f"entropy tables: {len(frequencies)} frequencies do not fit {len(reach)} classes")
        self.reach, self.classes = reach, classes
        self.frequencies: list[NDArray[np.int32]] = [np.zeros(0, np.int32), *np.split(frequencies, np.cumsum(sizes)[:-1])]
        for index, table in enumerate(self.frequencies[1:], 1):
            if table.sum(dtype=np.int64) != 1 << PRECISION or table.min() < 1:
                raise DamagedError(f"entropy table of class {index} is not normalised")
        self._models: dict[int, constriction.stream.model.Categorical] = {}

    def model(self, index: int) -> constriction.stream.model.Categorical:
        # constriction adds 1 to every frequency and scales what is left to 2^24 - n: passing f - 1 makes that scale exactly 1
        if index not in self._models:
            weights = (self.frequencies[index] - 1).astype(np.float64)
            self._models[index] = constriction.stream.model.Categorical(weights, perfect=False)
        return self._models[index]

    def bits(self) -> NDArray[np.float32]:
        """[class, magnitude]: about how many bits a symbol takes; the last magnitude stands for all escapes. Class 0 has no symbols."""
        bits = np.full((self.classes, int(self.reach.max()) + 2), np.inf, np.float32)
        for index in range(1, self.classes):
            reach = int(self.reach[index])
            taken = PRECISION - np.log2(self.frequencies[index][reach:])
            bits[index, : reach + 1] = taken[:-1]
            bits[index, reach + 1 :] = taken[-1] + _ESCAPE_BITS
        return bits


def encode(passes: Sequence[tuple[Symbols, Classes]], tables: Tables) -> bytes:
    """Code the symbols of all passes, in the order in which `Decoder.read` will ask for them. Class-0 symbols must be 0."""
    calls: list[tuple[int, Symbols]] = []
    escapes = bytearray()
    for symbols, classes in passes:
        coded = np.flatnonzero(classes)  # often few
        kinds = classes[coded]
        order = np.argsort(kinds, kind="stable")
        ordered, bounds = symbols[coded][order], np.searchsorted(kinds[order], np.arange(tables.classes + 1))
        for index in range(1, tables.classes):
            part = ordered[bounds[index] : bounds[index + 1]]
            if not len(part):
                continue
            reach = int(tables.reach[index])
            beyond = np.abs(part) > reach
            for value in part[beyond].tolist():
                escapes += leb128(zigzag(value))
            calls.append((index, np.where(beyond, 2 * reach + 1, part + reach).astype(np.int32)))
    coder = constriction.stream.stack.AnsCoder()
    for index, indices in reversed(calls):
        coder.encode_reverse(indices, tables.model(index))
    words = coder.get_compressed().astype("<u4").tobytes()
    return leb128(len(escapes)) + bytes(escapes) + words.rstrip(b"\0")


def cheaper(
    nearest: NDArray[Any], classes: Classes, bits: NDArray[np.float32], error: Callable[[NDArray[Any]], NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of the magnitudes `nearest` and the next ones towards 0 those that cost less, and what they cost, in bits.

    `bits` as of `Tables.bits`; `error`: what the error of magnitudes is worth, in bits.
    """

    def cost(magnitudes: NDArray[Any]) -> NDArray[Any]:
        taken: NDArray[Any] = bits[classes, np.minimum(magnitudes, bits.shape[1] - 1).astype(np.int64)] + error(magnitudes)
        return taken

    lower = np.maximum(nearest - 1, 0)
    of_nearest, of_lower = cost(nearest), cost(lower)
    return np.where(of_lower < of_nearest, lower, nearest), np.minimum(of_lower, of_nearest)


class Decoder:
    """Reads back what `encode` wrote, one pass a call."""

    def __init__(self, data: bytes, tables: Tables) -> None:
        """Raises DamagedError where `data` is shorter than it says, or ends with a zero byte, which `encode` leaves out."""
        escape_bytes, at = read_leb128(data, 0)
        if (start := at + escape_bytes) > len(data):
            raise DamagedError(f"entropy-coded data: want {start} bytes at least, have {len(data)}")
        words = data[start:]
        if words.endswith(b"\0"):
            raise DamagedError("entropy-coded data ends with a zero byte")
        self._coder = constriction.stream.stack.AnsCoder(np.frombuffer(words + bytes(-len(words) % 4), "<u4").astype(np.uint32))
        self._escapes, self._at = data[at:start], 0
        self._tables = tables

    def read(self, classes: Classes) -> Symbols:
        """The symbols of the next pass, int32, in the order of `classes`."""
        coded = np.flatnonzero(classes)  # often few
        order = coded[np.argsort(classes[coded], kind="stable")]
        kinds = classes[order]
        counts = np.bincount(kinds, minlength=self._tables.classes)
        parts = [self._coder.decode(self._tables.model(index), int(counts[index])) for index in np.flatnonzero(counts).tolist()]
        reach = self._tables.reach[kinds]
        found: Symbols = np.concatenate([np.zeros(0, np.int32), *parts]) - reach
        for position in np.flatnonzero(found > reach).tolist():
            value, self._at = read_leb128(self._escapes, self._at)
            if value > 2 * SYMBOL_LIMIT:
                raise DamagedError(f"entropy-coded data: escape {value} is out of range")
            found[position] = unzigzag(value)
        symbols = np.zeros(len(classes), np.int32)
        symbols[order] = found
        return symbols

    def finish(self) -> None:
        """Raises DamagedError unless everything was read."""
        if self._at != len(self._escapes) or not self._coder.is_empty():
            raise DamagedError("entropy-coded data: not all of it was used")


def zigzag(value: int) -> int:
    """A signed number as an unsigned one: 0, -1, 1, -2, ..."""
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """Inverse of `zigzag`."""
    return (value + 1) // -2 if value & 1 else value // 2


def leb128(value: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. Raises DamagedError."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if not data[at - 1] & 128:
            return value, at
    raise DamagedError("entropy-coded data: a number is cut off or too long")
