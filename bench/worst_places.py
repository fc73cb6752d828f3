"""What the gate's look at single blocks costs: which pictures it sends elsewhere, why, and how many bytes that takes.

    python -m bench.worst_places [PHOTOS] [--qualities Q ...] [--every N] [--json FILE]

First the largest error of flat pictures of one grey, without any gate. Then each photo of the folder (a JPEG as it is, others as a JPEG
at 95 in 4:4:4), at each quality: whether its latents pass the gate's scores of the whole picture, but not those of every block; what it is
kept as then, and in how many bytes, beside those of the latents that are refused.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, KINDS
from sdfs.codec.codec import Codec, _candidate, _kept
from sdfs.codec.pictures.picture import probe
from sdfs.codec.quality.scores import Bound, Scores
from sdfs.codec.resident.loading import Models
from sdfs.errors import Unsuitable
from sdfs.settings import DEFAULTS, EncodeSettings

GREYS = (0, 64, 96, 120, 124, 126, 127, 128, 130, 136, 160, 255)
FLAT_QUALITIES = (25, 50, 75, 90, 100)
SIDE = 256
LEAST = Scores(DEFAULTS.min_psnr, DEFAULTS.min_ms_ssim)


@dataclass(frozen=True)
class Judged:
    picture: str
    quality: int
    original_bytes: int
    latent_bytes: int  # at the quality
    excess: float  # of the worst place; 0 where the gate's scores or the size refuse the picture anyway
    place: str
    kept_as: str
    kept_bytes: int


def flat_errors(models: Models) -> Iterator[tuple[int, list[int]]]:
    """Of each quality: the largest error of each grey."""
    for quality in FLAT_QUALITIES:
        pictures = [np.full((SIDE, SIDE, 3), grey, np.uint8) for grey in GREYS]
        decoded = (models.bundled().encode(picture, quality, DEFAULTS.effort).pixels for picture in pictures)
        yield quality, [int(np.abs(np.subtract(d, p, dtype=int)).max()) for d, p in zip(decoded, pictures, strict=True)]


def as_jpeg(path: Path) -> bytes:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as picture:
        if picture.format == "JPEG":
            return data
        file = io.BytesIO()
        picture.convert("RGB").save(file, "JPEG", quality=95, subsampling=0)
        return file.getvalue()


def judged(codec: Codec, models: Models, name: str, data: bytes, quality: int) -> Judged | None:
    """None where the picture does not become latents anyway."""
    settings = EncodeSettings(quality)
    try:
        picture = probe(data)
        candidate = _candidate(data, picture, _kept(picture), models.bundled(), quality, settings.effort, Bound.asked(quality, LEAST))
    except Unsuitable:
        return None
    whole = candidate.scores.psnr >= LEAST.psnr and candidate.scores.ms_ssim >= LEAST.ms_ssim
    if not whole or 2 * len(candidate.blob) > len(data):
        return None
    kept, kept_as = candidate.blob, "latent"
    if candidate.worst.excess > 1:
        kept = codec.encode(data, settings)
        parsed = container.parse(kept)
        kept_as = KINDS[parsed.preamble.kind]
        if parsed.preamble.kind == KIND_LATENT:
            kept_as += f", quality {parsed.header['quality']}"
    return Judged(name, quality, len(data), len(candidate.blob), candidate.worst.excess, str(candidate.worst), kept_as, len(kept))


def show(results: list[Judged], console: Console) -> None:
    refused = Table("refused", "quality", "excess", "worst place", "latents, bytes", "kept as", "bytes", "original")
    for one in results:
        if one.excess > 1:
            numbers = f"{one.latent_bytes:,}", one.kept_as, f"{one.kept_bytes:,}", f"{one.original_bytes:,}"
            refused.add_row(one.picture[:40], str(one.quality), f"{one.excess:.2f}", one.place, *numbers)
    console.print(refused)
    table = Table("quality", "photos", "refused", "%", "of them at more quality", "latents of all, bytes", "kept, bytes", "more, %")
    for quality in sorted({one.quality for one in results}):
        of = [one for one in results if one.quality == quality]
        bad = [one for one in of if one.excess > 1]
        better = sum(one.kept_as.startswith("latent") for one in bad)
        before, after = sum(one.latent_bytes for one in of), sum(one.kept_bytes for one in of)
        row = [quality, len(of), len(bad), f"{100 * len(bad) / len(of):.1f}", better, f"{before:,}", f"{after:,}"]
        table.add_row(*map(str, row), f"{100 * (after / before - 1):.1f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", metavar="PHOTOS")
    parser.add_argument("--qualities", type=int, nargs="+", default=[50, 75], metavar="Q")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of the photos every Nth only")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, codec, models = Console(width=200), Codec("cpu"), Models("cpu")
    flat = Table("quality", *map(str, GREYS))
    for quality, errors in flat_errors(models):
        flat.add_row(str(quality), *map(str, errors))
    console.print(flat)
    results = []
    paths = sorted(path for path in options.photos.rglob("*") if path.suffix in (".jpg", ".avif", ".png")) if options.photos else []
    for path in paths[:: options.every]:
        data = as_jpeg(path)
        for quality in options.qualities:
            one = judged(codec, models, path.name, data, quality)
            if one is not None:
                results.append(one)
                if one.excess > 1:
                    console.print(f"{one.picture}, {quality}: {one.excess:.2f} {one.place}: {one.kept_as}")
    if results:
        show(results, console)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
