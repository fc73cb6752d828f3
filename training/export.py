"""Turn a training checkpoint into the package's weights: float16 networks, the integer prior, entropy tables.

    python -m training.export DIR/checkpoint.pt --photos PHOTOS [--to sdfs/weights/bundled.safetensors]

The tables are Gaussians bent towards how the symbols of each scale class are really distributed, counted over some of the photos.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.special import ndtr
from torch import Tensor

from sdfs.autoencoders.runner import BundledAutoencoder
from sdfs.entropy import CLASSES, PRECISION, Classes, Symbols, class_scale
from sdfs.latent_coding import LearnedCoder
from sdfs.trade_off import worth
from training.data import load, pictures
from training.objective import Codec
from training.weights import weights_of

CALIBRATION_PICTURES = 60
CALIBRATION_QUALITIES = (5, 25, 45, 65, 85)
TRUST = 2000.0  # the Gaussian weighs as much as this many observed symbols
ESCAPE_MASS = 1e-6


def tables(counts: Sequence[NDArray[np.int64]] | None = None) -> dict[str, Tensor]:
    """`entropy.reach` and `entropy.frequencies`. counts[k][m]: how often a symbol of class k had magnitude m."""
    reach = np.zeros(CLASSES, np.int32)
    frequencies = []
    for index in range(1, CLASSES):
        scale = class_scale(index)
        reach[index] = min(int(6 * scale) + 2, 1500)
        edges = (np.arange(reach[index] + 2) - 0.5) / scale
        folded = 2 * (ndtr(-edges[:-1]) - ndtr(-edges[1:]))
        folded[0] = 1 - 2 * ndtr(-0.5 / scale)
        if counts is not None:
            seen = np.zeros(len(folded))
            part = counts[index][: len(folded)]
            seen[: len(part)] = part
            folded = (seen + TRUST * folded) / (seen.sum() + TRUST)
        half = folded[1:] / 2
        frequencies.append(_normalised(np.concatenate([half[::-1], folded[:1], half, [ESCAPE_MASS]])))
    return {"entropy.reach": torch.from_numpy(reach), "entropy.frequencies": torch.from_numpy(np.concatenate(frequencies))}


def _normalised(mass: NDArray[np.float64]) -> NDArray[np.int32]:
    """Integer frequencies that sum to 2^24, none 0; the largest takes what rounding leaves."""
    frequencies = np.maximum(1, np.rint(mass / mass.sum() * (1 << PRECISION))).astype(np.int64)
    frequencies[np.argmax(frequencies)] += (1 << PRECISION) - frequencies.sum()
    return frequencies.astype(np.int32)


def calibrated(weights: dict[str, Tensor], photos: Path) -> dict[str, Tensor]:
    """Tables counted over the symbols of some photos."""
    counts = [np.zeros(2048, np.int64) for _ in range(CLASSES)]

    def observe(passes: Sequence[tuple[Symbols, Classes]]) -> None:
        for symbols, classes in passes:
            magnitudes = np.minimum(np.abs(symbols), 2047)
            for index in np.unique(classes[classes > 0]):
                counts[index] += np.bincount(magnitudes[classes == index], minlength=2048)

    autoencoder = BundledAutoencoder(weights, "", torch.device("cpu"), torch.float32)
    coder = LearnedCoder(weights | tables())
    files = pictures(photos)
    for path in files[:: max(1, len(files) // CALIBRATION_PICTURES)]:
        photo = load(path, 512)
        for quality in CALIBRATION_QUALITIES:
            observe(coder.symbols(autoencoder.encode(photo, quality), quality, worth(photo, quality)))
    return tables(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--photos", type=Path, help="photos to calibrate the entropy tables on")
    parser.add_argument("--to", type=Path, default=Path("sdfs/weights/bundled.safetensors"))
    options = parser.parse_args()
    state = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    codec = Codec()
    codec.load_state_dict(state["average"])
    weights = weights_of(codec)
    weights |= calibrated(weights, options.photos) if options.photos else tables()
    options.to.parent.mkdir(parents=True, exist_ok=True)
    training = {"steps": state["step"], "hours": round(state["seconds"] / 3600, 2)}
    save_file(weights, options.to, metadata={"autoencoder": BundledAutoencoder.id, "training": json.dumps(training)})
    print(f"{options.to}: {options.to.stat().st_size / 1e6:.2f} MB after {training['steps']} steps, {training['hours']} h")


if __name__ == "__main__":
    main()
