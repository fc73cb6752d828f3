"""What the coded pictures in HEIF files claim of themselves, for containers may lie: a decoder allocates what the coded picture claims.

Sources: ITU-T H.265 (7.3.2.2, the sequence parameter set), ISO/IEC 14496-15 (hvcC); AV1 (5.5, the sequence header), AV1 in ISO BMFF (av1C).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sdfs.errors import NotAPicture, Unsuitable

_SPS = 33  # the type of a NAL unit
_SEQUENCE_HEADER = 1  # the type of an OBU
_UNIT_HEAD = 512  # bytes: dimensions come early
_ZEROS = 64  # bytes of them that an arithmetic coder does not write
_MAX_UNITS = 10_000  # a picture has one, or one for each of its slices


class Coded(NamedTuple):
    """What a decoder will make."""

    sizes: tuple[tuple[int, int], ...]  # (width, height) of each sequence that there is
    bits: int  # a sample
    grey: bool


class _Bits:
    """The bits of a header, the highest of each byte first. Raises NotAPicture where it ends."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise NotAPicture("a header of its coded picture is cut off")
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """ue(v): H.265, 9.2."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise NotAPicture("a header of its coded picture is broken")
        return (1 << zeros) - 1 + self.take(zeros)


def hevc(config: bytes, data: bytes) -> Coded:
    """Of an item's hvcC property and data. Raises NotAPicture, Unsuitable."""
    if len(config) < 23:
        raise NotAPicture("its hvcC property is cut off")
    units = [*_config_units(config), *_units(data, (config[21] & 3) + 1)]
    sizes = tuple(_sps_size(unit) for unit in units if unit and unit[0] >> 1 & 63 == _SPS)
    return Coded(sizes, 8 + max(config[17] & 7, config[18] & 7), not config[16] & 3)


def _config_units(config: bytes) -> Iterator[bytes]:
    at = 23
    for _ in range(config[22]):
        count, at = int.from_bytes(config[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            if at >= len(config):
                raise NotAPicture("its hvcC property is cut off")
            length, at = int.from_bytes(config[at : at + 2], "big"), at + 2
            yield config[at : at + min(length, _UNIT_HEAD)]
            at += length


def _units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The beginnings of the NAL units of an item."""
    at = 0
    for _ in range(_MAX_UNITS):
        if at == len(data):
            return
        length, at = int.from_bytes(data[at : at + length_size], "big"), at + length_size
        if at + length > len(data):
            raise NotAPicture("its coded picture is cut off")
        if data.find(bytes(3), at, at + length) >= 0:  # a unit has none: H.265, 7.4.2
            raise NotAPicture("its coded picture has a hole of zeros")
        yield data[at : at + min(length, _UNIT_HEAD)]
        at += length
    raise Unsuitable(f"a coded picture of more than {_MAX_UNITS:,} pieces")


def _sps_size(unit: bytes) -> tuple[int, int]:
    bits = _Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    bits.take(4)
    sublayers = bits.take(3)
    bits.take(1 + 88 + 8)  # the general profile, tier and level
    if sublayers:
        present = [(bits.take(1), bits.take(1)) for _ in range(sublayers)]
        bits.take(2 * (8 - sublayers))
        for profile, level in present:
            bits.take(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:
        bits.take(1)
    return bits.golomb(), bits.golomb()


def av1(config: bytes, data: bytes) -> Coded:
    """Of an item's av1C property and data. Raises NotAPicture, Unsuitable."""
    if len(config) < 4:
        raise NotAPicture("its av1C property is cut off")
    if bytes(_ZEROS) in data:
        raise Unsuitable("a coded picture with a hole of zeros")
    sizes = tuple(_sequence_size(unit) for type_, unit in [*_obus(config[4:]), *_obus(data)] if type_ == _SEQUENCE_HEADER)
    bits = 8 if not config[2] & 0x40 else 12 if config[2] & 0x20 else 10
    return Coded(sizes, bits, bool(config[2] & 0x10))


def _obus(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and beginning of each OBU."""
    at = 0
    for _ in range(_MAX_UNITS):
        if at == len(data):
            return
        head = data[at]
        at += 2 if head & 4 else 1
        length, shift = (0, 0) if head & 2 else (len(data) - at, -1)
        while shift >= 0:
            if at >= len(data) or shift > 28:
                raise NotAPicture("its coded picture is cut off")
            length |= (data[at] & 127) << shift
            shift, at = shift + 7 if data[at] & 128 else -1, at + 1
        if not 0 <= length <= len(data) - at:
            raise NotAPicture("its coded picture is cut off")
        yield head >> 3 & 15, data[at : at + min(length, _UNIT_HEAD)]
        at += length
    raise Unsuitable(f"a coded picture of more than {_MAX_UNITS:,} pieces")


def _sequence_size(unit: bytes) -> tuple[int, int]:
    bits = _Bits(unit)
    bits.take(4)
    if bits.take(1):  # reduced, as a still picture's
        bits.take(5)
    else:
        if bits.take(1):
            raise Unsuitable("a still picture with a clock")
        delayed = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delayed and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1


def fits(sizes: Iterable[tuple[int, int]], width: int, height: int, margin: int) -> bool:
    """Whether there is a sequence, and each has the dimensions that the container says, or a few pixels more to fill up blocks."""
    sizes = list(sizes)
    return bool(sizes) and all(0 <= w - width <= margin and 0 <= h - height <= margin for w, h in sizes)
