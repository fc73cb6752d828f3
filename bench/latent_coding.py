"""Latents of a pretrained autoencoder to bytes: SDFS's coder and others, at equal squared error of the latents.

    python -m bench.latent_coding MODEL_FOLDER PHOTOS [--json FILE]

The middle 512 x 512 pixels of each photo (enlarged where it is smaller) are encoded, their latents coded in each of these ways, and
by SDFS with the steps that give the same error or less:

    palette, dithered   the recipe of 2022 (M. Buehlmann): 8-bit latents, a palette of 256 colours of as many dimensions as there are
                        channels, Floyd-Steinberg dithering, zlib level 9; the latents are unpalettised before decoding
    palette             the same without dithering, which makes the error smaller
    8 bits              8-bit latents and zlib level 9
    order 0, q          rounded with one step and coded for an adaptive model of each channel without contexts
    JPEG XL, q          rounded with one step; lossless JPEG XL, effort 9, of the planes below each other or, if there are four, as
                        one picture of four channels, whichever is smaller

q is the quality whose error these two are given. The palette is by k-means, the adaptive model's bytes are as counted by its ideal code.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.cluster.vq import kmeans2
from scipy.special import gammaln

from sdfs.codec.autoencoders.pretrained import PretrainedAutoencoder
from sdfs.codec.coding.generic_coder import GenericCoder, steps_for
from training.data import pictures
from training.generic_samples import Photo, middle

QUALITIES = (25, 50, 75)
COLOURS = 256
RANGE_BYTES = 8  # two floats: what 8 bits stand for
FLOYD_STEINBERG = ((0, 1, 7 / 16), (1, -1, 3 / 16), (1, 0, 5 / 16), (1, 1, 1 / 16))

Latents = NDArray[np.float32]
Coded = tuple[int, Latents]  # bytes, and what a decoder gets


@dataclass(frozen=True)
class Comparison:
    picture: str
    baseline: str
    baseline_bytes: int
    sdfs_bytes: int
    mse: float  # of the baseline's latents; SDFS's is at most that
    baseline_psnr: float  # of the decoded pixels, dB
    sdfs_psnr: float

    @property
    def saved(self) -> float:
        return 100 * (1 - self.sdfs_bytes / self.baseline_bytes)


def mse(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))


# --- the recipe of 2022


def in_8_bits(latents: Latents) -> tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Latents]]:
    """(h, w, C), and the way back."""
    least, most = float(latents.min()), float(latents.max())
    scale = (most - least) / 255
    codes = np.rint((latents - least) / scale).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(codes), lambda codes: (codes.transpose(2, 0, 1) * scale + least).astype(np.float32)


def eight_bits(latents: Latents) -> Coded:
    codes, back = in_8_bits(latents)
    return len(zlib.compress(codes.tobytes(), 9)) + RANGE_BYTES, back(codes)


def palettised(latents: Latents, dither: bool) -> Coded:
    codes, back = in_8_bits(latents)
    colours, _ = kmeans2(codes.reshape(-1, codes.shape[2]).astype(np.float64), COLOURS, minit="++", rng=0, missing="warn")
    palette = np.rint(colours).astype(np.uint8)
    indices = nearest_colours(codes, palette, dither)
    return len(zlib.compress(palette.tobytes() + indices.tobytes(), 9)) + RANGE_BYTES, back(palette[indices])


def nearest_colours(codes: NDArray[np.uint8], palette: NDArray[np.uint8], dither: bool) -> NDArray[np.uint8]:
    """(h, w), by raster; each error is spread over the positions that follow."""
    rows, columns = codes.shape[:2]
    wanted, colours = codes.astype(np.float64), palette.astype(np.float64)
    indices = np.zeros((rows, columns), np.uint8)
    for row in range(rows):
        for column in range(columns):
            index = np.argmin(((colours - wanted[row, column]) ** 2).sum(1))
            indices[row, column] = index
            error = wanted[row, column] - colours[index]
            for down, right, share in FLOYD_STEINBERG if dither else ():
                if row + down < rows and 0 <= column + right < columns:
                    wanted[row + down, column + right] += share * error
    return indices


# --- rounded latents


def rounded_to(error: float, latents: Latents) -> tuple[NDArray[np.int32], Latents]:
    """Symbols, rounded with the step that makes this mean squared error, and latents."""
    finest, coarsest = 1e-4, 16.0
    while coarsest / finest > 1.0005:
        step = math.sqrt(finest * coarsest)
        finest, coarsest = (step, coarsest) if mse(np.rint(latents / step) * step, latents) < error else (finest, step)
    symbols = np.rint(latents / finest).astype(np.int32)
    return symbols, (symbols * finest).astype(np.float32)


def order_0_bytes(symbols: NDArray[np.int32]) -> int:
    """The ideal code of an adaptive model of each channel that starts with half a count for each symbol (Krichevsky and Trofimov)."""
    bits = 0.0
    for plane in symbols:
        counts = np.bincount((plane - plane.min()).ravel())
        half, total = len(counts) / 2, plane.size
        likelihood = gammaln(half) - gammaln(half + total) + (gammaln(counts + 0.5) - gammaln(0.5)).sum()
        bits += 32 - likelihood / math.log(2)  # 32: the range of the symbols
    return math.ceil(bits / 8)


def jpeg_xl_bytes(symbols: NDArray[np.int32]) -> int:
    planes = symbols - symbols.min()
    planes = planes.astype(np.uint8 if planes.max() < 256 else np.uint16)
    layouts = [np.concatenate(planes, 0)]
    if len(planes) == 4:
        layouts.append(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    return min(len(imagecodecs.jpegxl_encode(layout, lossless=True, effort=9)) for layout in layouts)


# --- comparisons


class Bench:
    def __init__(self, folder: Path) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._autoencoder = PretrainedAutoencoder.load(folder, folder.name, "", device=device, dtype=torch.float32)
        self._coder = GenericCoder()

    def compare(self, name: str, photo: Photo) -> Iterator[Comparison]:
        latents = self._autoencoder.encode(photo)

        def psnr(coded: Latents) -> float:
            return 10 * math.log10(255**2 / mse(self._autoencoder.decode(coded, *photo.shape[:2]), photo))

        recipes = {
            "palette, dithered": palettised(latents, True),
            "palette": palettised(latents, False),
            "8 bits": eight_bits(latents),
        }
        for baseline, (size, coded) in recipes.items():
            error = mse(coded, latents)
            ours_size, ours = self._within(error, latents)
            yield Comparison(name, baseline, size, ours_size, error, psnr(coded), psnr(ours))
        for quality in QUALITIES:
            ours_size, ours = self._code(latents, steps_for(quality, np.ones(len(latents), np.float32)))
            symbols, coded = rounded_to(mse(ours, latents), latents)
            error, seen, ours_seen = mse(coded, latents), psnr(coded), psnr(ours)
            yield Comparison(name, f"order 0, {quality}", order_0_bytes(symbols), ours_size, error, seen, ours_seen)
            yield Comparison(name, f"JPEG XL, {quality}", jpeg_xl_bytes(symbols), ours_size, error, seen, ours_seen)

    def _code(self, latents: Latents, steps: Latents) -> Coded:
        section, quantised = self._coder.encode(latents, steps)
        return len(section), self._coder.dequantise(section, quantised)

    def _within(self, error: float, latents: Latents) -> Coded:
        """With the coarsest equal steps, in 1/16 octaves, that make no more than this mean squared error."""
        fine, coarse = -8 * 16, 6 * 16
        while coarse - fine > 1:
            middle = (fine + coarse) // 2
            _, coded = self._code(latents, np.full(len(latents), 2 ** (middle / 16), np.float32))
            fine, coarse = (middle, coarse) if mse(coded, latents) <= error else (fine, middle)
        return self._code(latents, np.full(len(latents), 2 ** (fine / 16), np.float32))


def show(results: list[Comparison], console: Console) -> None:
    baselines = list(dict.fromkeys(result.baseline for result in results))
    table = Table("picture", *baselines, title="bytes: baseline → SDFS at equal error of the latents")
    for picture in dict.fromkeys(result.picture for result in results):
        found = {result.baseline: result for result in results if result.picture == picture}
        table.add_row(picture, *(f"{found[b].baseline_bytes} → {found[b].sdfs_bytes}" for b in baselines))
    console.print(table)
    means = Table("baseline", "bytes", "SDFS", "saved, %", "latents' MSE", "PSNR, dB", "SDFS", title="means over the pictures")
    for baseline in baselines:
        rows = [result for result in results if result.baseline == baseline]
        values = np.array([[r.baseline_bytes, r.sdfs_bytes, r.saved, r.mse, r.baseline_psnr, r.sdfs_psnr] for r in rows]).mean(0)
        means.add_row(
            baseline, *(f"{value:{form}}" for value, form in zip(values, (".0f", ".0f", ".1f", ".4f", ".2f", ".2f"), strict=True))
        )
    console.print(means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder that diffusers loads an autoencoder from")
    parser.add_argument("photos", type=Path, help="a folder of photos, searched recursively")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    bench = Bench(options.model)
    results: list[Comparison] = []
    for path in track(pictures(options.photos), console=Console(stderr=True)):
        results += bench.compare(path.stem, middle(path))
    show(results, Console())
    if options.json:
        options.json.write_text(json.dumps([asdict(result) | {"saved": result.saved} for result in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
