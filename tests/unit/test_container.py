"""The blob file."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, KIND_RAW, MODE_OF_BACKING, PREAMBLE_BYTES, Preamble
from sdfs.blob.dictionaries import HEADER_DICTIONARY
from sdfs.errors import DamagedError, SdfsError, StoreTooNew

BLOB = container.pack(KIND_LATENT, 7, {"quality": 50, "note": "ü"}, {"file": b"content", "more": b""})


def test_what_is_packed_parses() -> None:
    blob = container.parse(BLOB)
    assert blob.preamble.kind == KIND_LATENT
    assert blob.preamble.rendered_size == 7
    assert blob.preamble.mode == MODE_OF_BACKING
    assert blob.header == {"quality": 50, "note": "ü"}
    assert blob.sections == {"file": b"content", "more": b""}


def test_the_preamble_alone_tells_the_size() -> None:
    assert Preamble.parse(BLOB[:PREAMBLE_BYTES]).rendered_size == 7


def test_the_layout_is_frozen() -> None:
    packed = Preamble(KIND_LATENT, 0, 0o644, 0x0102030405, 9).pack()
    assert packed[:28].hex() == "89534446530d0a1a01000100a4010000050403020100000009000000"
    assert packed[28:] == zlib.crc32(packed[:28]).to_bytes(4, "little")


def test_a_new_mode_changes_nothing_else() -> None:
    changed = container.parse(container.with_mode(BLOB, 0o400))
    assert changed.preamble.mode == 0o400
    assert changed.sections == container.parse(BLOB).sections


@pytest.mark.parametrize("position", range(len(BLOB)))
def test_every_flipped_bit_is_noticed(position: int) -> None:
    damaged = bytearray(BLOB)
    damaged[position] ^= 0x10
    with pytest.raises((DamagedError, StoreTooNew)):
        container.parse(bytes(damaged))


@pytest.mark.parametrize("length", range(len(BLOB)))
def test_every_truncation_is_damage(length: int) -> None:
    with pytest.raises(DamagedError):
        container.parse(BLOB[:length])


def test_appended_bytes_are_damage() -> None:
    with pytest.raises(DamagedError, match="blob length"):
        container.parse(BLOB + b"x")


@pytest.mark.parametrize(
    ("size", "sections"),
    [
        (3, {"file": b"abc", "more": b""}),
        (3, {"more": b"abc"}),
        (3, {}),
        (2, {"file": b"abc"}),
        (4, {"file": b"abc"}),
    ],
    ids=["two sections", "another name", "no section", "too long", "too short"],
)
def test_a_raw_blob_is_damaged_unless_it_has_one_section_which_is_the_file(size: int, sections: dict[str, bytes]) -> None:
    with pytest.raises(DamagedError, match="one section"):
        container.parse(container.pack(KIND_RAW, size, {"note": "x"}, sections))


def test_a_file_that_is_cut_while_it_is_checked_is_damage() -> None:
    """Its size was what the header says."""
    with pytest.raises(DamagedError, match="checksum"):
        container.check(lambda size, offset: BLOB[:-3][offset : offset + size], len(BLOB))


def _preamble(version: int = 1, kind: int = KIND_RAW, flags: int = 0) -> bytes:
    head = bytearray(Preamble(KIND_RAW, 0, 0, 0, 0).pack()[:28])
    head[8:10], head[10], head[11] = version.to_bytes(2, "little"), kind, flags
    return bytes(head) + zlib.crc32(head).to_bytes(4, "little")


def test_an_unknown_version_says_want_and_have() -> None:
    with pytest.raises(StoreTooNew, match="want 1, have 2"):
        Preamble.parse(_preamble(version=2))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StoreTooNew, match="have 9"):
        Preamble.parse(_preamble(kind=9))


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(StoreTooNew, match="flags"):
        Preamble.parse(_preamble(flags=4))


def test_a_mode_that_is_more_than_permission_bits_is_damage() -> None:
    with pytest.raises(DamagedError, match="blob mode"):
        Preamble.parse(Preamble(KIND_RAW, 0, 0o170777, 0, 0).pack())


def _with_header(header: bytes, rendered_size: int = 0) -> bytes:
    """A blob of that header, deflated, and nothing else."""
    deflater = zlib.compressobj(wbits=-15, zdict=HEADER_DICTIONARY)
    deflated = deflater.compress(header) + deflater.flush()
    return _with_deflated_header(deflated, rendered_size)


def _with_deflated_header(deflated: bytes, rendered_size: int = 0) -> bytes:
    encoded = deflated + zlib.crc32(deflated).to_bytes(4, "little")
    return Preamble(KIND_RAW, 0, 0, rendered_size, len(encoded)).pack() + encoded


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{}",
        b'{"sections": 3}',
        b'{"sections": [["a", -1, 0]]}',
        b'{"sections": [["a", true, 0]]}',
        b"\xff",
        b"[" * 5000,
        b'{"sections": [[1, 2, 3]]}',
    ],
)
def test_a_header_that_breaks_the_rules_is_damage(header: bytes) -> None:
    with pytest.raises(DamagedError):
        container.parse(_with_header(header))


@pytest.mark.parametrize("deflated", [b"", b"\xff\xff", b'{"sections":[]}', zlib.compress(b"{}")])
def test_a_header_that_cannot_be_inflated_is_damage(deflated: bytes) -> None:
    with pytest.raises(DamagedError, match=r"inflated|deflated"):
        container.parse(_with_deflated_header(deflated))


def test_bytes_after_a_deflated_header_are_damage() -> None:
    whole = _with_header(b'{"sections":[]}')
    with pytest.raises(DamagedError, match="not all of"):
        container.parse(_with_deflated_header(whole[32:-4] + b"more"))


def test_a_header_that_inflates_beyond_the_limit_is_damage() -> None:
    bomb = _with_header(b'{"sections":[],"x":"' + b" " * (64 << 20) + b'"}')
    assert len(bomb) < 1 << 20
    with pytest.raises(DamagedError, match="more than 1048576 bytes"):
        container.parse(bomb)


def test_claimed_section_lengths_allocate_nothing() -> None:
    header = json.dumps({"sections": [["file", 1 << 60, 0]]}).encode()
    with pytest.raises(DamagedError, match="blob length"):
        container.parse(_with_header(header, 1 << 30))


@given(st.binary(max_size=200))
def test_garbage_raises_only_our_errors(data: bytes) -> None:
    with pytest.raises(SdfsError):
        container.parse(data)


@pytest.mark.parametrize("strange", ["\ud800", None, 5, {"a": []}], ids=repr)
def test_whatever_the_header_holds_makes_an_id(strange: Any) -> None:
    keys = ("original_sha256", "weights", "quality", "latents_crc32")
    assert re.fullmatch("[0-9a-f]{32}", container.latent_id(dict.fromkeys(keys, strange)))


@pytest.mark.parametrize("key", ["original_sha256", "weights", "quality", "latents_crc32"])
def test_ids_differ_where_one_of_their_keys_does(key: str) -> None:
    header = {"original_sha256": "a", "weights": "b", "quality": 50, "latents_crc32": 1}
    assert container.latent_id(header) != container.latent_id(header | {key: 7})
    with pytest.raises(LookupError):
        container.latent_id({name: value for name, value in header.items() if name != key})
