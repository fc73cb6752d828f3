"""Make the golden sections of the generic coder again: only before the first release, for its tables never change.

    python -m tests.vectors.generic_make

generic/ holds sections that must decode, with their shapes and checksums in index.json.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sdfs.codec.coding.generic_coder import GenericCoder

FOLDER = Path(__file__).parent / "generic"


def surfaces(channels: int, rows: int, columns: int, smooth: float) -> NDArray[np.float32]:
    random = np.random.default_rng(channels * rows + columns)
    planes = np.stack([gaussian_filter(plane, smooth) for plane in random.normal(size=(channels, rows, columns))])
    return np.tensordot(random.normal(size=(channels, channels)), planes / planes.std(), 1).astype(np.float32)


def sections() -> dict[str, tuple[NDArray[np.float32], list[float]]]:
    """Latents and steps."""
    outliers = surfaces(2, 9, 7, 1.0)
    outliers[0, 3, 3], outliers[1, 8, 6] = 900, -2000
    together = surfaces(1, 24, 24, 1.0) * np.array([1, -0.8, 0.6, 0.3], np.float32)[:, None, None] + 0.1 * surfaces(4, 24, 24, 0.5)
    return {
        "smooth": (surfaces(3, 21, 34, 2.0), [0.25]),
        "noise": (surfaces(3, 13, 12, 0.0), [0.5]),
        "rotated": (together, [0.1]),
        "steps": (surfaces(4, 10, 11, 1.0), [0.05, 0.1, 0.4, 1.6]),
        "steps-few-positions": (surfaces(4, 3, 4, 0.0), [0.05, 0.1, 0.4, 1.6]),
        "many-channels": (surfaces(32, 4, 3, 0.5), [0.4]),
        "one-position": (surfaces(4, 1, 2, 0.0)[:, :, :1], [0.1]),
        "one-row": (surfaces(2, 1, 40, 1.0), [0.1]),
        "outliers": (outliers, [0.5]),
        "two-slices": (surfaces(1, 130, 3, 1.5), [0.5]),
        "constant": (np.full((4, 20, 20), 0.7, np.float32), [0.1]),
    }


def main() -> None:
    coder = GenericCoder()
    FOLDER.mkdir(exist_ok=True)
    index = {}
    for name, (latents, steps) in sections().items():
        data, quantised = coder.encode(latents, np.resize(np.array(steps, np.float32), len(latents)))
        (FOLDER / f"{name}.section").write_bytes(data)
        index[name] = {"shape": list(latents.shape), "bytes": len(data), "latents_crc32": zlib.crc32(quantised.astype("<i2").tobytes())}
    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
