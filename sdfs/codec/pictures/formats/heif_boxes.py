"""The boxes of a HEIF file, and the items that they describe. Sources: ISO/IEC 14496-12 (boxes, iinf, iloc, iref), 23008-12 (ipco, ipma).

Work and memory are linear in the file, whatever it says: each turn of a loop takes bytes of it, nothing is allocated from a count, and no
byte belongs to two items.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sdfs.errors import NotAPicture, Unsuitable

_MAX_BOXES = 2_000  # side by side: a picture of 48 MP has 200 tiles, each an item
_EXTENDED = b"uuid"  # a box whose type is the 16 bytes that follow
_OF_FILE, _OF_IDAT = 0, 1  # where an item's data lie
_PASSED_OVER = frozenset({b"dinf", b"free", b"skip"})


class Box(NamedTuple):
    type: bytes  # 4 bytes, or 16 of a 'uuid' box
    payload: memoryview


def name_of(type_: bytes) -> str:
    """The type of a box or item, for people."""
    return repr(type_)[1:]


class Reference(NamedTuple):
    """From an item to others; `type` says what the first is to these."""

    type: bytes
    source: int
    targets: tuple[int, ...]


@dataclass
class Item:
    """A picture, coded or derived from others, or metadata."""

    type: bytes
    content_type: bytes = b""  # of one of type 'mime'
    properties: list[Box] = field(default_factory=list)
    extents: list[memoryview] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        return b"".join(self.extents)

    def property(self, type_: bytes) -> bytes | None:
        """The payload of the first property of a type."""
        return next((bytes(box.payload) for box in self.properties if box.type == type_), None)


@dataclass
class Meta:
    """What a file's 'meta' box says."""

    primary: int
    items: dict[int, Item]
    references: list[Reference]
    groups: list[bytes]  # types of groups of items

    def tiles(self, grid: int) -> list[int]:
        """The items of which an item is derived."""
        return [target for reference in self.references if reference[:2] == (b"dimg", grid) for target in reference.targets]


def boxes(data: memoryview, *, of_file: bool = False) -> Iterator[Box]:
    """The boxes that fill `data`. Raises NotAPicture where the last one does not end where `data` does; Unsuitable where they are too many.

    `of_file`: they are a file's own, of which the last may say that it goes on to the end.
    """
    at = count = 0
    while at < len(data):
        if (count := count + 1) > _MAX_BOXES:
            raise Unsuitable(f"more than {_MAX_BOXES:,} boxes side by side")
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0 and of_file:
            size = len(data) - at
        type_ = bytes(data[at + 4 : at + 8])
        if type_ == _EXTENDED:
            type_, head = bytes(data[at + head : at + head + 16]), head + 16
        if size > len(data) - at or head > len(data) - at:
            raise NotAPicture(f"it is cut off: {'the file' if of_file else 'a box'} ends within box {name_of(type_)}")
        if size < head:
            raise NotAPicture(f"box {name_of(type_)} claims {size} bytes")
        yield Box(type_, data[at + head : at + size])
        at += size


def parse_meta(meta: Box, file: memoryview) -> Meta:
    """Parse the 'meta' box of a file. Raises NotAPicture (broken, cut off) and Unsuitable (what nobody writes around a picture)."""
    fields = _Fields(meta)
    fields.number(4)
    inner: dict[bytes, Box] = {}
    for box in boxes(fields.rest()):
        if box.type in _PASSED_OVER:
            continue
        if inner.setdefault(box.type, box) is not box:
            raise Unsuitable(f"two boxes {name_of(box.type)}")
    if missing := [name for name in (b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp") if name not in inner]:
        raise NotAPicture(f"it has no box {name_of(missing[0])}")
    if bytes(inner[b"hdlr"].payload[8:12]) != b"pict":
        raise NotAPicture("its metadata are not those of a picture")
    items = _items(inner.pop(b"iinf"))
    _locate(items, inner.pop(b"iloc"), file, inner.pop(b"idat").payload if b"idat" in inner else memoryview(b""))
    _describe(items, inner.pop(b"iprp"))
    references = list(_references(inner.pop(b"iref"))) if b"iref" in inner else []
    groups = [box.type for box in boxes(inner.pop(b"grpl").payload)] if b"grpl" in inner else []
    primary = _Fields(inner.pop(b"pitm"))
    parsed = Meta(primary.number(4 if primary.version() else 2), items, references, groups)
    if unknown := inner.keys() - {b"hdlr"}:
        raise Unsuitable(f"a box {name_of(min(unknown))} in its metadata")
    if parsed.primary not in items:
        raise NotAPicture("its primary item is not there")
    return parsed


class _Fields:
    """The fields of a box, one after the other."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._at = 0

    def number(self, size: int) -> int:
        """An integer of so many bytes. Raises NotAPicture where they are not there."""
        self._at += size
        if self._at > len(self._box.payload):
            raise NotAPicture(f"its box {name_of(self._box.type)} is cut off")
        return int.from_bytes(self._box.payload[self._at - size : self._at], "big")

    def version(self) -> int:
        """That of a full box, whose flags are passed over."""
        return self.number(4) >> 24

    def text(self) -> bytes:
        """Up to a zero byte, or the end."""
        found = bytes(self.rest()).partition(b"\0")[0]
        self._at += len(found) + 1
        return found

    def rest(self) -> memoryview:
        return self._box.payload[self._at :]


def _items(iinf: Box) -> dict[int, Item]:
    fields = _Fields(iinf)
    fields.number(4 if fields.version() else 2)  # how many there are is seen
    items: dict[int, Item] = {}
    for box in boxes(fields.rest()):
        entry = _Fields(box)
        version = entry.version()
        if box.type != b"infe" or version not in (2, 3):
            raise Unsuitable(f"an item described by {name_of(box.type)} of version {version}")
        number, protection = entry.number(version * 2 - 2), entry.number(2)
        item = Item(struct.pack(">I", entry.number(4)))
        entry.text()  # its name
        if item.type == b"mime":
            item.content_type = entry.text()
            if entry.text():
                raise Unsuitable("compressed metadata")
        if protection:
            raise Unsuitable("a protected item")
        if items.setdefault(number, item) is not item:
            raise NotAPicture(f"it has two items of number {number}")
    return items


def _locate(items: dict[int, Item], iloc: Box, file: memoryview, idat: memoryview) -> None:
    """Give each item its bytes."""
    fields = _Fields(iloc)
    version, sizes = fields.version(), fields.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    index_size = index_size if version in (1, 2) else 0
    left = len(file)  # bytes that no item has yet
    for _ in range(fields.number(4 if version == 2 else 2)):
        number = fields.number(4 if version == 2 else 2)
        method = fields.number(2) & 15 if version in (1, 2) else _OF_FILE
        reference, base, count = fields.number(2), fields.number(base_size), fields.number(2)
        if version > 2 or method > _OF_IDAT or reference or (count > 1 and not length_size + offset_size):
            raise Unsuitable("an item whose data lie elsewhere than in the file")
        item = items.get(number)
        for _ in range(count):
            fields.number(index_size)
            begin, length = base + fields.number(offset_size), fields.number(length_size)
            whole = idat if method == _OF_IDAT else file
            end = begin + length if length_size else len(whole)
            if end > len(whole):
                raise NotAPicture(f"it is cut off: item {number} ends at byte {end} of {len(whole)}")
            if (left := left - (end - begin)) < 0:
                raise Unsuitable("items that share their bytes")
            if item is not None:
                item.extents.append(whole[begin:end])


def _describe(items: dict[int, Item], iprp: Box) -> None:
    """Give each item its properties."""
    listed: list[Box] = []
    for box in boxes(iprp.payload):
        if box.type == b"ipco":
            listed += boxes(box.payload)
        elif box.type == b"ipma":
            fields = _Fields(box)
            head = fields.number(4)
            version, size = head >> 24, 2 if head & 1 else 1
            for _ in range(fields.number(4)):
                item = items.get(fields.number(4 if version else 2))
                for _ in range(fields.number(1)):
                    index = fields.number(size) & (1 << 8 * size - 1) - 1
                    if index > len(listed):
                        raise NotAPicture(f"it has no property {index}")
                    if index and item is not None:
                        item.properties.append(listed[index - 1])
        elif box.type not in _PASSED_OVER:
            raise Unsuitable(f"a box {name_of(box.type)} among its properties")


def _references(iref: Box) -> Iterator[Reference]:
    fields = _Fields(iref)
    size = 4 if fields.version() else 2
    for box in boxes(fields.rest()):
        inner = _Fields(box)
        source = inner.number(size)
        yield Reference(box.type, source, tuple(inner.number(size) for _ in range(inner.number(2))))
