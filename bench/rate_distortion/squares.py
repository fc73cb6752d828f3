"""Squares of 512 pixels in 4,970 bytes, which is what Stable Diffusion's latents took of them in 2022 (M. Bühlmann); side by side.

Squares are cut out of the middle of larger pictures at their own size, not enlarged or reduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.rate_distortion.codecs import Codec, Pixels
from bench.rate_distortion.measuring import best_within
from bench.rate_distortion.pictures import SIDE, Picture
from bench.rate_distortion.scores import SCORES, Judge, Values
from bench.rate_distortion.tables import markdown

LIMIT_BYTES = 4_970
CAPTION = 44  # pixels
GAP = 8
QUALITIES = (0, 20, 35, 50, 75)
Tile = tuple[str, Pixels]


@dataclass(frozen=True)
class Square:
    picture: str
    codec: str
    size: int  # bytes
    pixels: Pixels
    scores: Values

    @property
    def fits(self) -> bool:
        return self.size <= LIMIT_BYTES


def squares_of(pictures: Sequence[Picture]) -> list[Picture]:
    """The middles of those that are large enough."""
    cut = [replace(picture, cut=SIDE) for picture in pictures]
    return [picture for picture in cut if picture.load().shape[:2] == (SIDE, SIDE)]


def measure_squares(pictures: Sequence[Picture], codecs: Sequence[Codec], scores: Sequence[str]) -> list[Square]:
    """Each codec's best within LIMIT_BYTES, or its smallest."""
    found = []
    for picture in pictures:
        judge = Judge(picture.load())
        for codec in codecs:
            _, data, decoded = best_within(LIMIT_BYTES, codec.every, codec.code, picture.load())
            found.append(Square(picture.name, codec.name, len(data), decoded, judge.scores(decoded, scores)))
    return found


def wins_table(squares: Sequence[Square], ours: Codec, scores: Sequence[str]) -> str:
    """Our codec against each other one, on the squares that both get into LIMIT_BYTES."""
    rows = [[f"{ours.name} against", "squares that fit", *(f"{SCORES[score].axis}: won, by" for score in scores)]]
    own = {square.picture: square for square in squares if square.codec == ours.name}
    for name in dict.fromkeys(square.codec for square in squares):
        theirs = [square for square in squares if square.codec == name]
        if name != ours.name:
            pairs = [(own[square.picture], square) for square in theirs if square.fits and own[square.picture].fits]
            rows.append([name, f"{sum(square.fits for square in theirs)} of {len(theirs)}", *(_won(pairs, score) for score in scores)])
    return markdown(rows)


def _won(pairs: Sequence[tuple[Square, Square]], score: str) -> str:
    ahead = [_scaled(ours, score) - _scaled(other, score) for ours, other in pairs]
    return f"{sum(lead > 0 for lead in ahead)} of {len(ahead)}, {np.mean(ahead):+.2f}" if ahead else "–"


def _scaled(square: Square, score: str) -> float:
    value = square.scores[score]
    assert value is not None, "squares are small enough for every score"
    return SCORES[score].scale(value)


def draw(pictures: Sequence[Picture], squares: Sequence[Square], folder: Path, suffix: str) -> None:
    """`folder`/PICTURE of each: as it was, and what each codec made of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        coded = [(_caption(square), square.pixels) for square in squares if square.picture == picture.name]
        _sheet([(f"{picture.name}, as it was", picture.load()), *coded], 3).save(folder / f"{picture.name}{suffix}", quality=90)


def draw_scale(pictures: Sequence[Picture], ours: Codec, scores: Sequence[str], folder: Path, suffix: str) -> None:
    """`folder`/PICTURE-scale of each: the square as it was, and at QUALITIES."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        pixels = picture.load()
        judge = Judge(pixels)
        tiles = [("as it was", pixels)]
        for quality in QUALITIES:
            data, decoded = ours.code(pixels, quality)
            rate = 8 * len(data) / SIDE**2
            said = _said(judge.scores(decoded, scores))
            tiles.append((f"quality {quality}: {len(data):,} bytes, {rate:.2f} bits a pixel\n{said}", decoded))
        _sheet(tiles, 2).save(folder / f"{picture.name}-scale{suffix}", quality=90)


def _caption(square: Square) -> str:
    fits = "" if square.fits else f", does not get into {LIMIT_BYTES:,}"
    return f"{square.codec}: {square.size:,} bytes{fits}\n{_said(square.scores)}"


def _said(scores: Values) -> str:
    return ", ".join(f"{SCORES[name].label} {value:.4g}" for name, value in scores.items() if name in SCORES and value is not None)


def _sheet(tiles: Sequence[Tile], columns: int) -> Image.Image:
    width, height = SIDE + GAP, SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width - GAP, -(-len(tiles) // columns) * height - GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, (caption, pixels) in enumerate(tiles):
        left, top = index % columns * width, index // columns * height
        sheet.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, top))
        draw.multiline_text((left + 4, top + SIDE + 4), caption, "black", font)
    return sheet
