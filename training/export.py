"""Turn a training checkpoint into the package's weights.

    python -m training.export DIR/checkpoint.pt CROPS.npy [--to sdfs/codec/weights/bundled.safetensors]

The network's weights become float16, the prior's the multiples that it computes with. Entropy tables are Laplacians, bent towards the
symbols counted over some of the crops.
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
from torch import Tensor

from sdfs.codec.autoencoders.runner import BundledAutoencoder
from sdfs.codec.coding.entropy import CLASSES, FLAG_CLASSES, PRECISION, Classes, Symbols, class_scale
from sdfs.codec.coding.learned_coder import TABLES, LearnedCoder
from sdfs.codec.quality.rate_distortion import worth
from training.objective import Codec

CALIBRATION_CROPS = 240
CALIBRATION_QUALITIES = (0, 15, 30, 45, 65, 80, 100)  # in turn
TRUST = 500.0  # the Laplacian weighs as much as this many observed symbols
ESCAPE_MASS = 1e-6


def tables(counts: Sequence[NDArray[np.int64]] | None = None) -> dict[str, Tensor]:
    """`entropy.reach` and `entropy.frequencies`. counts[k][m]: how often a symbol of class k had magnitude m or, of flags, was -1 and 1."""
    reach = np.zeros(TABLES, np.int32)
    frequencies = []
    for index in range(1, CLASSES):
        rate = 2**0.5 / class_scale(index)
        reach[index] = min(int(8 * class_scale(index)) + 2, 1500)
        magnitudes = np.arange(reach[index] + 1)
        folded = np.exp(-(magnitudes - 0.5) * rate) - np.exp(-(magnitudes + 0.5) * rate)
        folded[0] = 1 - np.exp(-rate / 2)
        if counts is not None:
            seen = np.zeros(len(folded))
            part = counts[index][: len(folded)]
            seen[: len(part)] = part
            folded = (seen + TRUST * folded) / (seen.sum() + TRUST)
        half = folded[1:] / 2
        frequencies.append(_normalised(np.concatenate([half[::-1], folded[:1], half, [ESCAPE_MASS]])))
    for index in range(FLAG_CLASSES):
        reach[CLASSES + index] = 1
        likely = 1 / (1 + np.exp(-(index - FLAG_CLASSES // 2) / 2))
        if counts is not None:
            unset, is_set = counts[CLASSES + index][:2]
            likely = (is_set + TRUST * likely) / (unset + is_set + TRUST)
        frequencies.append(_normalised(np.array([1 - likely, 0.0, likely, 0.0])))
    return {"entropy.reach": torch.from_numpy(reach), "entropy.frequencies": torch.from_numpy(np.concatenate(frequencies))}


def _normalised(mass: NDArray[np.float64]) -> NDArray[np.int32]:
    """Integer frequencies that sum to 2^24, none 0; the largest takes what rounding leaves."""
    frequencies = np.maximum(1, np.rint(mass / mass.sum() * (1 << PRECISION))).astype(np.int64)
    frequencies[np.argmax(frequencies)] += (1 << PRECISION) - frequencies.sum()
    return frequencies.astype(np.int32)


def weights_of(codec: Codec) -> dict[str, Tensor]:
    """The weights of the networks, without entropy tables."""
    restoration = {f"restoration.{name}": value.half().contiguous() for name, value in codec.restoration.state_dict().items()}
    return restoration | {f"prior.{name}": value.contiguous() for name, value in codec.prior.exact_state().items()}


def calibrated(weights: dict[str, Tensor], crops: NDArray[np.uint8]) -> dict[str, Tensor]:
    """Tables counted over the symbols of some crops (N, S, S, 3)."""
    counts = [np.zeros(2048, np.int64) for _ in range(TABLES)]

    def observe(passes: Sequence[tuple[Symbols, Classes]]) -> None:
        for symbols, classes in passes:
            for index in np.unique(classes[classes > 0]):
                found = symbols[classes == index]
                magnitudes = (found + 1) // 2 if index >= CLASSES else np.minimum(np.abs(found), 2047)
                counts[index] += np.bincount(magnitudes, minlength=2048)

    autoencoder = BundledAutoencoder(weights, "", torch.device("cpu"), torch.float32)
    coder = LearnedCoder(weights | tables())
    for number, crop in enumerate(crops[:: max(1, len(crops) // CALIBRATION_CROPS)]):
        quality = CALIBRATION_QUALITIES[number % len(CALIBRATION_QUALITIES)]
        observe(coder.symbols(autoencoder.encode(crop, quality), quality, worth(crop)))
    return tables(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("crops", type=Path, help="as training.crops makes them, to calibrate the entropy tables on")
    parser.add_argument("--to", type=Path, default=Path("sdfs/codec/weights/bundled.safetensors"))
    options = parser.parse_args()
    state = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    codec = Codec().requires_grad_(False)
    codec.load_state_dict(state["average"])
    weights = weights_of(codec)
    weights |= calibrated(weights, np.load(options.crops, mmap_mode="r"))
    training = {"steps": state["step"], "hours": round(state["seconds"] / 3600, 2)}
    save_file(weights, options.to, metadata={"autoencoder": BundledAutoencoder.id, "training": json.dumps(training)})
    print(f"{options.to}: {options.to.stat().st_size / 1e6:.2f} MB after {training['steps']} steps, {training['hours']} h")


if __name__ == "__main__":
    main()
