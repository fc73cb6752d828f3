"""Drawn pictures: what photos hold too little of to learn it. Even areas, ramps, sharp edges of full colours, lines, text."""

from __future__ import annotations

import random
import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PLAIN = 0.3  # so many have nothing on their ground
ON_PHOTO = 0.4  # of the others, so many are drawn on a photo
MOST_SHAPES = 12
FONT_SIZES = (8, 40)  # pixels
Colour = tuple[int, int, int]


def drawing(photo: np.ndarray, chance: random.Random) -> np.ndarray:
    """A picture of the photo's size, (H, W, 3) uint8, perhaps on the photo."""
    height, width = photo.shape[:2]
    if chance.random() < PLAIN:
        return _ground(width, height, chance)
    canvas = Image.fromarray(photo if chance.random() < ON_PHOTO else _ground(width, height, chance))
    draw = ImageDraw.Draw(canvas)
    for _ in range(chance.randint(1, MOST_SHAPES)):
        x, y = chance.randrange(-width // 4, width), chance.randrange(-height // 4, height)
        right, lower = x + chance.randint(1, width // 2), y + chance.randint(1, height // 2)
        shape = chance.choice(["text", "text", "text", "rectangle", "ellipse", "line"])
        if shape == "text":
            font = ImageFont.load_default(chance.randint(*FONT_SIZES))
            draw.multiline_text((x, y), _words(chance), fill=_colour(chance), font=font)
        elif shape == "line":
            draw.line([(x, y), (right, lower)], fill=_colour(chance), width=chance.randint(1, 6))
        else:
            outline = {"fill": _colour(chance)} if chance.random() < 0.5 else {"outline": _colour(chance), "width": chance.randint(1, 6)}
            getattr(draw, shape)([x, y, right, lower], **outline)
    return np.asarray(canvas)


def _ground(width: int, height: int, chance: random.Random) -> np.ndarray:
    """One colour, or a ramp from one to another in any direction."""
    first, second = np.array(_colour(chance), np.float32), np.array(_colour(chance), np.float32)
    if chance.random() < 0.5:
        second = first
    angle = chance.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * np.linspace(-1, 1, width)[None, :] + np.sin(angle) * np.linspace(-1, 1, height)[:, None]
    share = (np.clip(ramp, -1, 1)[:, :, None] + 1) / 2
    return np.rint(first + share * (second - first)).astype(np.uint8)


def _colour(chance: random.Random) -> Colour:
    """Black, white, a corner of the colour cube or any, with equal chances."""
    kind = chance.randrange(4)
    if kind < 2:
        return (255 * kind,) * 3
    values = (0, 255) if kind == 2 else range(256)
    return chance.choice(values), chance.choice(values), chance.choice(values)


def _words(chance: random.Random) -> str:
    letters = string.ascii_letters + string.digits
    lines = ([_word(letters, chance) for _ in range(chance.randint(1, 5))] for _ in range(chance.randint(1, 5)))
    return "\n".join(" ".join(line) for line in lines)


def _word(letters: str, chance: random.Random) -> str:
    return "".join(chance.choices(letters, k=chance.randint(1, 9)))
