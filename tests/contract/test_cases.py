"""One small file of each structure that cameras, phones and programs write: docs/PICTURES.md says what becomes of it, a test a row."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdfs.blob import container
from sdfs.codec.codec import Codec
from sdfs.codec.pictures.formats.jpeg_segments import DHT, DRI, FRAMES, walk
from sdfs.codec.pictures.picture import probe
from sdfs.errors import NotAPicture, Unsuitable
from sdfs.settings import EncodeSettings

ROOT = Path(__file__).parents[2]
CASES = ROOT / "../shared/cases"
ROW = re.compile(r"^\| `(.+?)` \| (latent|exact|plain) \|", re.MULTILINE)
EXPECTED = dict(ROW.findall((ROOT / "docs/PICTURES.md").read_text()))
POISON_BYTES = 300 << 20
POISON_SECONDS = 20.0  # on a busy machine; alone it is well below one

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases is not there")


def facts() -> dict[str, dict[str, Any]]:
    return {case["path"]: case for case in json.loads((CASES / "cases.json").read_text())} if CASES.is_dir() else {}


FACTS = facts()


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(device="cpu", dtype="float32")


def test_the_table_has_every_case() -> None:
    assert EXPECTED.keys() >= FACTS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_case(codec: Codec, name: str, tmp_path: Path) -> None:
    """It becomes what the table says, with its reason; nobody who reads it gets another size, or anything else behind the picture."""
    case, data = FACTS[name], (CASES / name).read_bytes()
    state, blob = encoded(codec, data)
    assert state == EXPECTED[name]
    if blob is None:
        return
    read = codec.decode(blob)
    assert len(read) == len(data)
    if state == "exact":
        assert read == data
        assert container.parse(blob).header["reason"]
        return
    assert len(blob) < len(data)
    behind = case.get("behind_bytes") or 0
    assert read[len(read) - behind :] == data[len(data) - behind :]
    if data.startswith(b"\xff\xd8"):
        assert_same_head(data, read)
    for tag in case["extracts"]:
        assert extract(tmp_path, read, tag) == extract(tmp_path, data, tag)


def encoded(codec: Codec, data: bytes) -> tuple[str, bytes | None]:
    try:
        blob = codec.encode(data, EncodeSettings())
    except NotAPicture:
        return "plain", None
    return ("latent" if container.parse(blob).preamble.kind == container.KIND_LATENT else "exact"), blob


def assert_same_head(data: bytes, read: bytes) -> None:
    """Every segment before the first scan stands where it stood, but for tables that belong to the scans."""
    before, after = ({s.offset: s for s in walk(file)[0]} for file in (data, read))
    for offset, segment in before.items():
        if segment.marker == 0xDA:
            break
        if segment.marker in FRAMES:
            assert after[offset].content[4:] == segment.content[4:]
        elif segment.marker not in (DHT, DRI):
            assert after[offset].marker == segment.marker
            assert after[offset].content == segment.content or segment.marker == 0xDB  # coarser where the render would not fit


def extract(folder: Path, data: bytes, tag: str) -> bytes:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not there")
    (folder / "file").write_bytes(data)
    return subprocess.run(["exiftool", "-b", f"-{tag}", folder / "file"], capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", [name for name, case in FACTS.items() if case["poison"]])
def test_poison_costs_little(codec: Codec, name: str) -> None:
    data = (CASES / name).read_bytes()
    encoded(codec, (CASES / "jpeg/grey.jpg").read_bytes())  # what is loaded once is loaded
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    encoded(codec, data)
    assert time.monotonic() - began < POISON_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < POISON_BYTES


def mutants(data: bytes, random: np.random.Generator) -> Iterator[bytes]:
    """Bytes changed, cut off, doubled, moved, and fields that claim the most."""
    while True:
        changed = bytearray(data)
        for _ in range(int(random.integers(1, 5))):
            at, length = int(random.integers(0, len(changed) + 1)), int(random.integers(1, 9))
            kind = random.integers(0, 6)
            if kind == 0:
                changed[at : at + length] = random.bytes(length)
            elif kind == 1:
                changed[at : at + length] = b"\xff" * length
            elif kind == 2:
                changed[at : at + length] = bytes(length)
            elif kind == 3:
                del changed[at : at + 64 * length]
            elif kind == 4:
                changed[at:at] = changed[at : at + 64 * length]
            else:
                del changed[max(at, 1) :]
        yield bytes(changed)


def stress(codec: Codec, count: int, *, encode_every: int) -> None:
    """So many mutants of the cases: nothing but what is documented is raised, and memory and time stay bounded."""
    random = np.random.default_rng(0)
    sources = {name: (CASES / name).read_bytes() for name, case in FACTS.items() if 0 < case["bytes"] < 1 << 20}
    names = list(sources)
    makers = {name: mutants(data, random) for name, data in sources.items()}
    encoded(codec, sources["jpeg/grey.jpg"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        mutant = next(makers[names[int(random.integers(len(names)))]])
        began = time.monotonic()
        if number % encode_every:
            with contextlib.suppress(NotAPicture, Unsuitable):
                probe(mutant)
        else:
            state, blob = encoded(codec, mutant)
            assert blob is None or len(codec.decode(blob)) == len(mutant), state
        assert time.monotonic() - began < POISON_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < POISON_BYTES


def test_mutants_of_all_cases_cost_little(codec: Codec) -> None:
    stress(codec, 400, encode_every=40)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_mutants_of_all_cases_cost_little(codec: Codec) -> None:
    stress(codec, 12_000, encode_every=100)
