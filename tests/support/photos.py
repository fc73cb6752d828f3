"""Pictures that latents suit, and what a mount with the real engine makes of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.mounting import Mounted


def photo(seed: int, *, size: int = 384, format_: str = "JPEG") -> bytes:
    """A smooth picture with some texture, which latents suit."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
    pixels = (pixels + random.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_, quality=92)
    return file.getvalue()


def pixels(path: Path) -> np.ndarray:
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return np.asarray(picture)


def store(mounted: Mounted, path: Path, content: bytes) -> np.ndarray:
    """Have `content` kept as latents at `path`; returns what it reads as then."""
    path.write_bytes(content)
    mounted.sync()
    assert mounted.state(f"{path.parent.name}/{path.name}") == "latent"
    return pixels(path)
