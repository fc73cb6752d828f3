"""Pictures side by side at 1:1, with bytes and scores below each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.rate_distortion.codecs import Codec, Pixels
from bench.rate_distortion.measuring import LIMIT_BYTES, SIDE, Result, result_of, square
from bench.rate_distortion.scores import Features, Judge
from bench.rate_distortion.tables import OURS

CAPTION = 44  # pixels
GAP = 8
RIVAL = "AVIF"
WORST = 6  # pictures
QUALITIES = (0, 20, 35, 50, 75)
Tile = tuple[str, Pixels]


def draw(paths: Sequence[Path], results: Sequence[Result], codecs: Sequence[Codec], folder: Path, suffix: str) -> None:
    """`folder`/PICTURE of each, and, of more than WORST, `folder`/worst: where SDFS is the furthest behind AVIF by SSIMULACRA2."""
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {codec.name: codec for codec in codecs}
    tiles: dict[str, list[Tile]] = {}
    for path in paths:
        coded = [(_caption(r), by_name[r.codec].decode(r.data)) for r in results if r.picture == path.stem]
        tiles[path.stem] = [(f"{path.stem}, as it was", square(path)), *coded]
        _sheet(tiles[path.stem], 3).save(folder / f"{path.stem}{suffix}", quality=90)
    if len(paths) > WORST:
        of_worst = [tile for name in worst(results) for tile in _with_rival(tiles[name])]
        _sheet(of_worst, 3).save(folder / f"worst{suffix}", quality=90)


def draw_scale(paths: Sequence[Path], ours: Codec, folder: Path, suffix: str) -> None:
    """`folder`/PICTURE-scale of each: the square as it was, and at QUALITIES."""
    folder.mkdir(parents=True, exist_ok=True)
    features = Features()
    for path in paths:
        pixels = square(path)
        judge = Judge(pixels, features)
        tiles = [("as it was", pixels)]
        for quality in QUALITIES:
            data = ours.encode(pixels, quality)
            result = result_of(path.stem, ours, quality, data, judge)
            tiles.append((f"quality {quality}: {len(data):,} bytes, {result.rate:.2f} bits a pixel\n{_scores(result)}", ours.decode(data)))
        _sheet(tiles, 2).save(folder / f"{path.stem}-scale{suffix}", quality=90)


def worst(results: Sequence[Result]) -> list[str]:
    """The pictures where SDFS is the furthest behind, the worst first."""
    of = {(r.picture, r.codec): r.scores.ssimulacra2 for r in results}
    pictures = dict.fromkeys(r.picture for r in results)
    return sorted(pictures, key=lambda picture: of[picture, OURS] - of[picture, RIVAL])[:WORST]


def _with_rival(tiles: Sequence[Tile]) -> list[Tile]:
    return [tiles[0], *(tile for tile in tiles if tile[0].startswith((OURS, RIVAL)))]


def _caption(result: Result) -> str:
    fits = "" if result.fits else f", does not get into {LIMIT_BYTES:,}"
    return f"{result.codec}: {len(result.data):,} bytes{fits}\n{_scores(result)}"


def _scores(result: Result) -> str:
    s = result.scores
    return f"PSNR {s.psnr:.2f} dB, MS-SSIM {s.ms_ssim:.4f}, SSIMULACRA2 {s.ssimulacra2:.1f}, features {s.feature_distance:.3f}"


def _sheet(tiles: Sequence[Tile], columns: int) -> Image.Image:
    width, height = SIDE + GAP, SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width - GAP, -(-len(tiles) // columns) * height - GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, (caption, pixels) in enumerate(tiles):
        left, top = index % columns * width, index // columns * height
        sheet.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, top))
        draw.multiline_text((left + 4, top + SIDE + 4), caption, "black", font)
    return sheet
