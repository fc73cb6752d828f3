"""What becomes of a folder of pictures: a line a file, latent, exact or plain, with its reason and its bytes before and after.

    python -m bench.cases FOLDER [--quality N]

docs/PICTURES.md has the table of a folder that has one small file of each structure that cameras and programs write.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT
from sdfs.codec.codec import Codec
from sdfs.errors import NotAPicture
from sdfs.settings import EncodeSettings


@dataclass(frozen=True)
class Case:
    """What became of one file."""

    name: str
    state: str  # 'latent' | 'exact' | 'plain'
    original_bytes: int
    stored_bytes: int
    reason: str


def judged(codec: Codec, name: str, data: bytes, quality: int) -> Case:
    """Encode one file, and check that what a reader gets has its size, and its bytes where it is exact."""
    try:
        blob = codec.encode(data, EncodeSettings(quality))
    except NotAPicture as reason:
        return Case(name, "plain", len(data), len(data), str(reason))
    parsed, read = container.parse(blob), codec.decode(blob)
    state = "latent" if parsed.preamble.kind == KIND_LATENT else "exact"
    if len(read) != len(data) or (state == "exact" and read != data):
        raise AssertionError(f"{name}: a reader gets other bytes")
    return Case(name, state, len(data), len(blob), parsed.header.get("reason", ""))


def judged_files(folder: Path, quality: int) -> Iterator[Case]:
    """All files below a folder."""
    codec = Codec()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield judged(codec, str(path.relative_to(folder)), path.read_bytes(), quality)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quality", type=int, default=EncodeSettings().quality)
    options = parser.parse_args()
    print("| File | Becomes | Bytes | Stored | Why |\n|---|---|---:|---:|---|")
    for case in judged_files(options.folder, options.quality):
        print(f"| `{case.name}` | {case.state} | {case.original_bytes:,} | {case.stored_bytes:,} | {case.reason} |", flush=True)


if __name__ == "__main__":
    main()
