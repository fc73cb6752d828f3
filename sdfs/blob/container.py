"""The blob file: a fixed preamble, a JSON header, sections; each with a checksum. Bytes only. docs/FORMAT.md is normative.

    0    8  magic            89 53 44 46 53 0D 0A 1A
    8    2  version          1
    10   1  kind             1 latent, 2 jxl, 3 lz4, 4 raw
    11   1  flags            mandatory features; unknown ones are refused
    12   4  mode             logical permission bits; 0xFFFFFFFF: those of the backing file
    16   8  rendered size    bytes a reader gets: st_size
    24   4  header length    bytes of the header, which follows the preamble
    28   4  CRC-32           of bytes 0..27
    32      header, then the sections in the header's order, back to back, up to the end of the file

All integers are little-endian. The header is UTF-8 JSON, {"sections": [[name, length, crc32], ...], ...}, deflated with HEADER_DICTIONARY,
and ends with the CRC-32 of that (4 bytes, counted in the header length). Deflated it is about a third: of a small picture's blob it
would be a sixth.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdfs.blob.deflate import deflate, inflate
from sdfs.blob.dictionaries import HEADER_DICTIONARY
from sdfs.errors import DamagedError, StoreTooNew

MAGIC = b"\x89SDFS\r\n\x1a"
VERSION = 1
KIND_LATENT = 1  # latents of an autoencoder
KIND_JXL = 2  # a JPEG file transcoded to JPEG XL, bit-exact back
KIND_LZ4 = 3  # the file as an LZ4 frame
KIND_RAW = 4  # the file itself
KINDS = {KIND_LATENT: "latent", KIND_JXL: "jxl", KIND_LZ4: "lz4", KIND_RAW: "raw"}
KNOWN_FLAGS = 0
MODE_OF_BACKING = 0xFFFFFFFF
PREAMBLE_BYTES = 32
MAX_HEADER_BYTES = 1 << 20  # deflated or not
MAX_RENDERED_BYTES = 1 << 40
_PREAMBLE = struct.Struct("<8sHBBIQI")
_CRC = struct.Struct("<I")
_CHUNK_BYTES = 1 << 20
_Read = Callable[[int, int], bytes]  # a size and an offset → what is there, less at the end of it: as os.pread of a file


@dataclass(frozen=True, slots=True)
class Preamble:
    """All that getattr needs, in the first PREAMBLE_BYTES of a blob."""

    kind: int
    flags: int
    mode: int  # permission bits, or MODE_OF_BACKING
    rendered_size: int  # bytes
    header_length: int  # bytes

    def pack(self) -> bytes:
        head = _PREAMBLE.pack(MAGIC, VERSION, self.kind, self.flags, self.mode, self.rendered_size, self.header_length)
        return head + _CRC.pack(zlib.crc32(head))

    @staticmethod
    def parse(data: bytes) -> Preamble:
        """`data`: at least the first PREAMBLE_BYTES of a blob.

        Raises DamagedError (short, wrong checksum, values out of range) and StoreTooNew (unknown version, kind or flag).
        """
        if len(data) < PREAMBLE_BYTES:
            raise DamagedError(f"blob preamble: want {PREAMBLE_BYTES} bytes, have {len(data)}")
        magic, version, kind, flags, mode, rendered_size, header_length = _PREAMBLE.unpack_from(data)
        if magic != MAGIC:
            raise DamagedError(f"blob magic: want {MAGIC.hex()}, have {magic.hex()}")
        (want,), have = _CRC.unpack_from(data, _PREAMBLE.size), zlib.crc32(data[: _PREAMBLE.size])
        if want != have:
            raise DamagedError(f"blob preamble checksum: want {want:08x}, have {have:08x}")
        if version != VERSION:
            raise StoreTooNew(f"blob version: want {VERSION}, have {version}: use an SDFS that reads it")
        if kind not in KINDS or flags & ~KNOWN_FLAGS:
            raise StoreTooNew(
                f"blob: want kinds {sorted(KINDS)} and flags {KNOWN_FLAGS:#04x}, have {kind} and {flags:#04x}: use an SDFS that reads it"
            )
        if mode > 0o7777 and mode != MODE_OF_BACKING:
            raise DamagedError(f"blob mode: want permission bits, have {mode:#o}")
        if header_length > MAX_HEADER_BYTES or rendered_size > MAX_RENDERED_BYTES:
            raise DamagedError(f"blob claims a header of {header_length} and a render of {rendered_size} bytes")
        return Preamble(kind, flags, mode, rendered_size, header_length)


@dataclass(frozen=True)
class Blob:
    """A blob taken apart. `header` is without its section table."""

    preamble: Preamble
    header: dict[str, Any]
    sections: dict[str, bytes]


def is_blob(head: bytes) -> bool:
    """Whether a file that begins with `head` claims to be a blob (its checksums may still say otherwise)."""
    return head.startswith(MAGIC)


def pack(kind: int, rendered_size: int, header: Mapping[str, Any], sections: Mapping[str, bytes], mode: int = MODE_OF_BACKING) -> bytes:
    """A whole blob. `header` must be JSON-able and have no key "sections"."""
    table = [(name, len(content), zlib.crc32(content)) for name, content in sections.items()]
    return pack_head(kind, rendered_size, header, table, mode) + b"".join(sections.values())


def pack_head(
    kind: int, rendered_size: int, header: Mapping[str, Any], table: list[tuple[str, int, int]], mode: int = MODE_OF_BACKING
) -> bytes:
    """All of a blob that comes before its sections; `table`: the name, length and CRC-32 of each."""
    encoded = json.dumps({"sections": table, **header}, separators=(",", ":"), ensure_ascii=False).encode()
    if len(encoded) > MAX_HEADER_BYTES - _CRC.size:
        raise ValueError(f"a blob header of {len(encoded)} bytes exceeds {MAX_HEADER_BYTES}")
    deflated = deflate(encoded, HEADER_DICTIONARY)
    deflated += _CRC.pack(zlib.crc32(deflated))
    return Preamble(kind, 0, mode, rendered_size, len(deflated)).pack() + deflated


def parse(data: bytes) -> Blob:
    """Take a whole blob apart and check all of it. Raises DamagedError and StoreTooNew as `check` does."""
    preamble, header = check(lambda size, offset: data[offset : offset + size], len(data))
    sections: dict[str, bytes] = {}
    at = PREAMBLE_BYTES + preamble.header_length
    for name, length, _ in header.pop("sections"):
        sections[name] = data[at : at + length]
        at += length
    return Blob(preamble, header, sections)


def check(read: _Read, blob_bytes: int) -> tuple[Preamble, dict[str, Any]]:
    """The preamble and the header of a whole blob of so many bytes. All of it is checked, a chunk at a time: it may be of any size.

    Raises DamagedError, and StoreTooNew as `Preamble.parse` does.
    """
    preamble = Preamble.parse(read(PREAMBLE_BYTES, 0))
    header = parse_header(preamble, read(preamble.header_length, PREAMBLE_BYTES))
    at = PREAMBLE_BYTES + preamble.header_length
    if (want := at + sum(length for _, length, _ in header["sections"])) != blob_bytes:
        raise DamagedError(f"blob length: want {want} bytes, have {blob_bytes}")
    if preamble.kind == KIND_RAW:
        raw_payload(preamble, header, blob_bytes)
    for name, length, crc in header["sections"]:
        if (have := _crc32(read, at, length)) != crc:
            raise DamagedError(f"blob section {name!r}: want checksum {crc:08x}, have {have:08x}")
        at += length
    return preamble, header


def _crc32(read: _Read, offset: int, length: int) -> int:
    crc, end = 0, offset + length
    while chunk := read(min(_CHUNK_BYTES, end - offset), offset):
        crc = zlib.crc32(chunk, crc)
        offset += len(chunk)
    return crc


def parse_header(preamble: Preamble, data: bytes) -> dict[str, Any]:
    """The header with its checked section table; `data`: the preamble.header_length bytes after the preamble."""
    if len(data) != preamble.header_length or len(data) < _CRC.size:
        raise DamagedError(f"blob header: want {preamble.header_length} bytes, have {len(data)}")
    deflated, (want,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
    if zlib.crc32(deflated) != want:
        raise DamagedError(f"blob header checksum: want {want:08x}, have {zlib.crc32(deflated):08x}")
    try:
        encoded = inflate(deflated, HEADER_DICTIONARY, MAX_HEADER_BYTES)
    except ValueError as error:
        raise DamagedError(f"blob header cannot be inflated: {error}") from None
    try:
        header = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"blob header is no JSON: {error}") from None
    if not isinstance(header, dict) or not _valid_table(header.get("sections")):
        raise DamagedError("blob header has no valid section table")
    return header


def latent_id(header: Mapping[str, Any]) -> str:
    """32 hex digits that name a latent blob, from what makes it what it is; its renders carry them as their marker. Raises LookupError."""
    named = " ".join(str(header[key]) for key in ("original_sha256", "weights", "quality", "latents_crc32"))
    return hashlib.sha256(named.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def raw_payload(preamble: Preamble, header: Mapping[str, Any], blob_bytes: int) -> tuple[int, int]:
    """Where in a raw blob of so many bytes the file that it holds begins, and its CRC-32. Raises DamagedError."""
    start, table = PREAMBLE_BYTES + preamble.header_length, header["sections"]
    match table:
        case [["file", length, crc]] if length == preamble.rendered_size == blob_bytes - start:
            return start, crc
    want, have = f"one section, 'file', of {preamble.rendered_size} bytes", f"{len(table)} in {blob_bytes - start} bytes"
    raise DamagedError(f"raw blob: want {want}, have {have}")


def _valid_table(table: object) -> bool:
    return isinstance(table, list) and all(
        isinstance(row, list)
        and len(row) == 3
        and isinstance(row[0], str)
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in row[1:])
        for row in table
    )


def with_mode(blob: bytes, mode: int) -> bytes:
    """The same blob with another logical mode."""
    preamble = Preamble.parse(blob)
    changed = Preamble(preamble.kind, preamble.flags, mode, preamble.rendered_size, preamble.header_length)
    return changed.pack() + blob[PREAMBLE_BYTES:]
