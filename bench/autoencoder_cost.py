"""What an autoencoder of Stable Diffusion's size costs: memory, and time by tile; and how far apart the shades of its tiles are.

    python -m bench.autoencoder_cost                        # the size of SD 1.x, and of taesd; random weights
    python -m bench.autoencoder_cost --drift MODEL PHOTOS   # a folder that diffusers loads an autoencoder from

Random weights cost what trained ones cost. Only the first tiles of a large picture are computed; the others are copies of them, so that
memory is really taken and time is what the tiles computed took, times the number of tiles.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sdfs.codec.autoencoders import tone
from sdfs.codec.autoencoders.pretrained import CLASSES, PretrainedAutoencoder
from sdfs.codec.coding.generic_coder import GenericCoder
from sdfs.codec.quality.scores import compare
from training.data import load, pictures

SIZES = {"512 x 512": (512, 512), "12 MP": (3000, 4000), "48 MP": (6000, 8000)}
COMPUTED = 2  # tiles of each picture
WHOLE = 4  # times the usual side: the largest tile that a blob may ask for
DRIFT_SIDE = 1536  # pixels; what a tile so large covers with some room
SD_1: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
}


def peak_mib() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


class FewTiles:
    """Calls the first COMPUTED times, gives copies of what came of them from then on."""

    def __init__(self, make: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self._make, self._made = make, list[NDArray[Any]]()
        self.calls, self.seconds = 0, 0.0

    def __call__(self, tile: NDArray[Any]) -> NDArray[Any]:
        self.calls += 1
        if self.calls <= COMPUTED:
            begin = time.perf_counter()
            self._made.append(self._make(tile))
            self.seconds += time.perf_counter() - begin
        return self._made[self.calls % len(self._made)].copy()

    @property
    def estimate(self) -> float:
        """Seconds for all tiles."""
        return self.seconds / min(self.calls, COMPUTED) * self.calls


def cost(folder: Path, height: int, width: int) -> dict[str, float]:
    autoencoder = PretrainedAutoencoder.load(folder, folder.name, "", device=torch.device("cpu"))
    loaded = peak_mib()
    encode, decode = FewTiles(autoencoder._encode_tile), FewTiles(autoencoder._decode_tile)
    autoencoder._encode_tile, autoencoder._decode_tile = encode, decode  # type: ignore[method-assign, assignment]
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    latents = autoencoder.encode(picture)
    encoded = peak_mib()
    autoencoder.decode(latents, height, width)
    return {
        "tiles": decode.calls,
        "loaded_mib": loaded,
        "encode_mib": encoded,
        "decode_mib": peak_mib(),
        "encode_seconds": encode.estimate,
        "decode_seconds": decode.estimate,
    }


def costs() -> dict[str, dict[str, float]]:
    results = {}
    for model, kind, config in (("SD 1.x", "AutoencoderKL", SD_1), ("taesd", "AutoencoderTiny", {})):
        with tempfile.TemporaryDirectory() as where:
            CLASSES[kind](**config).save_pretrained(where)
            for name, size in SIZES.items():
                with multiprocessing.get_context("spawn").Pool(1) as pool:  # a process each, for peaks of their own
                    results[f"{model}, {name}"] = pool.apply(cost, (Path(where), *size))
    return results


def drift(folder: Path, photos: Path) -> dict[str, dict[str, float]]:
    """Of photos that are larger than a tile: how far cells of tone.CELL pixels are from what one large tile gives, and from the photo."""
    autoencoder = PretrainedAutoencoder.load(folder, folder.name, "", device=torch.device("cpu"), dtype=torch.float32)
    coder, usual = GenericCoder(), autoencoder.tile
    results = {}
    for path in pictures(photos):
        photo = np.ascontiguousarray(load(path)[:DRIFT_SIDE, :DRIFT_SIDE])
        height, width = photo.shape[:2]
        if max(height, width) <= usual[0] * autoencoder.factor:
            continue

        def seen(tile: tuple[int, int], photo: NDArray[np.uint8] = photo) -> NDArray[np.uint8]:
            autoencoder.tile = tile
            return autoencoder.decode(autoencoder.encode(photo), *photo.shape[:2])

        whole, tiled = seen((WHOLE * usual[0], usual[1])), seen(usual)
        section, rounded = coder.encode(tone.measure(photo, tiled), tone.STEPS)
        corrected = tone.apply(tiled, coder.dequantise(section, rounded))
        results[path.stem] = {
            "tiled_from_whole": rms(tone.measure(whole, tiled)),
            "whole_from_photo": rms(tone.measure(photo, whole)),
            "tiled_from_photo": rms(tone.measure(photo, tiled)),
            "corrected_from_photo": rms(tone.measure(photo, corrected)),
            "largest_corrected": float(np.abs(tone.measure(photo, corrected)).max()),
            "bytes": len(section),
            "psnr_tiled": compare(photo, tiled).psnr,
            "psnr_corrected": compare(photo, corrected).psnr,
        }
    return results


def rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def show(results: dict[str, dict[str, float]], console: Console, mean: bool) -> None:
    names = list(next(iter(results.values())))
    table = Table("", *(name.replace("_", " ") for name in names))
    for name, values in results.items():
        table.add_row(name, *(f"{value:.4g}" for value in values.values()))
    if mean:
        table.add_row("mean", *(f"{np.mean([values[name] for values in results.values()]):.4g}" for name in names))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drift", type=Path, nargs=2, metavar=("MODEL", "PHOTOS"), help="measure shades instead")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    results = drift(*options.drift) if options.drift else costs()
    show(results, Console(width=140), mean=bool(options.drift))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
