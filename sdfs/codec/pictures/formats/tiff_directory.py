"""The first image file directory of a TIFF or BigTIFF. Sources: TIFF revision 6.0 (Adobe, 1992), libtiff's "BigTIFF Design".

Nothing is read because a tag claims it: values of tags are unpacked when somebody asks, and no more than he expects. Other directories
are not looked into.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sdfs.codec.pictures.formats.shared import Run
from sdfs.errors import DoesNotFit, NotAPicture, Unsuitable

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # struct formats of BYTE, SHORT, LONG, IFD, LONG8, IFD8
_MAX_TAGS = 4096


class _Shape(NamedTuple):
    """How long a file's numbers are."""

    header: int  # bytes
    entries: str  # struct format of a directory's number of entries
    number: str  # of counts of values, and of offsets
    inline: int  # bytes of values that an entry holds itself

    @property
    def entry(self) -> int:
        return 4 + 2 * self.inline


_CLASSIC, _BIG = _Shape(8, "H", "I", 4), _Shape(16, "Q", "Q", 8)


@dataclass(frozen=True)
class Tag:
    type: int
    count: int
    region: Run  # where its values lie, within the entry or elsewhere


@dataclass(frozen=True)
class Directory:
    """Tags by number, and where all that belongs to them lies."""

    order: str  # '<' or '>'
    tags: dict[int, Tag]
    structure: list[Run]  # header, directory, values of tags
    following: int  # the offset of the next directory, 0: there is none

    def values(self, data: bytes, tag: int, most: int) -> tuple[int, ...]:
        """The whole numbers of a tag; none where it is missing or not of whole numbers. Raises Unsuitable: more than `most`."""
        found = self.tags.get(tag)
        if found is None or found.type not in _INTEGERS:
            return ()
        if found.count > most:
            raise Unsuitable(f"a TIFF with {found.count} values in tag {tag}")
        return struct.unpack_from(f"{self.order}{found.count}{_INTEGERS[found.type]}", data, found.region.offset)

    def value(self, data: bytes, tag: int, default: int | None = None) -> int:
        """The one whole number of a tag. Raises NotAPicture where it is missing, without a default, or not one."""
        if tag not in self.tags and default is not None:
            return default
        found = self.values(data, tag, 1)
        if not found:
            raise NotAPicture(f"the TIFF has no number in tag {tag}")
        return found[0]

    def put(self, image: bytearray, tag: int, values: Sequence[int]) -> None:
        """Write other values of a tag over those that are there, as many. Raises DoesNotFit where one is too large for the tag's type."""
        found = self.tags[tag]
        try:
            struct.pack_into(f"{self.order}{found.count}{_INTEGERS[found.type]}", image, found.region.offset, *values)
        except struct.error:
            raise DoesNotFit(f"tag {tag} of the TIFF cannot hold {max(values)}") from None


def parse(data: bytes) -> Directory:
    """Raises NotAPicture and Unsuitable; nothing in it is believed before `data` has it."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    shape = _BIG if big else _CLASSIC
    if len(data) < shape.header:
        raise NotAPicture("the TIFF ends within its header")
    if big and struct.unpack_from(order + "HH", data, 4) != (8, 0):
        raise NotAPicture("the BigTIFF has a header that nobody knows")
    (start,) = struct.unpack_from(order + shape.number, data, shape.header // 2)
    entries = start + struct.calcsize(shape.entries)
    if entries > len(data):
        raise NotAPicture("the TIFF ends before its directory")
    (count,) = struct.unpack_from(order + shape.entries, data, start)
    if count > _MAX_TAGS:
        raise Unsuitable(f"a TIFF of {count} tags")
    end = entries + count * shape.entry
    if end + shape.inline > len(data):
        raise NotAPicture("the TIFF ends within its directory")
    tags = _parse_tags(data, order, shape, range(entries, end, shape.entry))
    (following,) = struct.unpack_from(order + shape.number, data, end)
    structure = [Run(0, shape.header), Run(start, end + shape.inline - start), *(tag.region for tag in tags.values())]
    return Directory(order, tags, structure, following)


def _parse_tags(data: bytes, order: str, shape: _Shape, places: range) -> dict[int, Tag]:
    tags: dict[int, Tag] = {}
    for at in places:
        tag, kind, count = struct.unpack_from(f"{order}HH{shape.number}", data, at)
        if kind not in _TYPE_BYTES or tag in tags:
            raise Unsuitable(f"a TIFF with tag {tag} of type {kind}, or twice")
        size, offset = count * _TYPE_BYTES[kind], at + 4 + shape.inline
        if size > shape.inline:
            (offset,) = struct.unpack_from(order + shape.number, data, offset)
        if offset + size > len(data):
            raise NotAPicture(f"the TIFF ends before the values of tag {tag}")
        tags[tag] = Tag(kind, count, Run(offset, size))
    return tags
