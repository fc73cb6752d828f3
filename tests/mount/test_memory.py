"""What a mount takes while many large photos are copied into it and out again."""

from __future__ import annotations

import io
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from sdfs.blob import container
from sdfs.owner.renders.cache import DEFAULT_BYTES
from tests.support.mounting import REAL, Mounted, engine_pids, needs_fuse

ENCODED = ("chelsea", "coffee", "astronaut", "rocket")
READ = 60  # more than the cache of renders holds; 500 would take more than an hour on two busy cores
OWNER_BYTES = DEFAULT_BYTES + (64 << 20)
ENGINE_BYTES = 3 << 30


def photo(name: str) -> bytes:
    """12 megapixels with grain, which make a file of several megabytes."""
    picture = Image.fromarray(getattr(data, name)()).resize((4000, 3000), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 4, (3000, 4000, 1))
    file = io.BytesIO()
    Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=97)
    return file.getvalue()


def as_another(blob: bytes) -> bytes:
    """The blob of a picture that looks the same."""
    parsed = container.parse(blob)
    header = parsed.header | {"original_sha256": uuid.uuid4().hex * 2}
    return container.pack(parsed.preamble.kind, parsed.preamble.rendered_size, header, parsed.sections)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


def peaks(mounted: Mounted) -> tuple[int, int]:
    """Of the owner and of the engine."""
    (engine,) = engine_pids(mounted)
    owner_bytes, engine_bytes = peak_bytes(mounted.process.pid), peak_bytes(engine)
    print(f"owner {owner_bytes / 1e6:,.0f} MB, engine {engine_bytes / 1e6:,.0f} MB")
    return owner_bytes, engine_bytes


@needs_fuse
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_memory_is_bounded_while_photos_are_copied_in_and_out(tmp_path: Path) -> None:
    with Mounted(tmp_path, command=REAL) as mounted:
        for name in ENCODED:
            (mounted.path / name).write_bytes(photo(name))
        mounted.sync()
        assert [mounted.state(name) for name in ENCODED] == ["latent"] * len(ENCODED)
        owner_bytes, engine_bytes = peaks(mounted)
    assert owner_bytes < OWNER_BYTES
    assert engine_bytes < ENGINE_BYTES

    (mounted.store / "photos").mkdir()
    for number in range(READ):
        blob = (mounted.store / ENCODED[number % len(ENCODED)]).read_bytes()
        (mounted.store / "photos" / f"{number:03}.jpg").write_bytes(as_another(blob))
    with Mounted(tmp_path, command=REAL) as mounted:
        copied = 0
        for path in sorted((mounted.path / "photos").iterdir()):
            copied += Path(shutil.copyfile(path, tmp_path / "copy")).stat().st_size
        assert copied > 1.2 * DEFAULT_BYTES  # more than the cache holds
        owner_bytes, engine_bytes = peaks(mounted)
    assert owner_bytes < OWNER_BYTES
    assert engine_bytes < ENGINE_BYTES
