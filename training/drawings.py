"""Drawn pictures: what photos hold too little of to learn it. Flat ground, ramps, sharp edges, pages, screens, lights at night, stars."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONTS = (Path("/usr/share/fonts"), Path.home() / ".local/share/fonts", Path("/Library/Fonts"), Path("C:/Windows/Fonts"))
SYMBOLS = ("Math", "Symbol", "Emoji", "Icon", "LastResort", "cmex", "cmmi", "cmsy")  # fonts without letters
FINER = 4  # anti-aliased shapes are drawn at so many times the size
SCANNED = 0.15  # so many pages and screens are seen through a lens: soft, and with noise
STRIPED = 0.15  # so many texts have a screen's coloured stripes for an edge
LETTERS = "eeeeeeeeeeeetttttttttaaaaaaaaooooooooiiiiiiinnnnnnnsssssshhhhhhrrrrrrddddllllcccuuummmwwffggyyppbbvkjxqz"
Colour = tuple[int, int, int]
Drawing = Callable[[int, random.Random], np.ndarray]


def drawing(size: int, chance: random.Random) -> np.ndarray:
    """Draw a picture of (size, size, 3) uint8."""
    kinds: dict[Drawing, float] = {_flat: 4, _ramp: 4, _step: 2, _checks: 1.5, _shapes: 3, _page: 6, _screen: 5, _night: 3, _stars: 2}
    (kind,) = chance.choices(list(kinds), list(kinds.values()))
    drawn = kind(size, chance)
    return _seen_through_a_lens(drawn, chance) if kind in (_page, _screen) and chance.random() < SCANNED else drawn


def drawn_upon(photo: np.ndarray, chance: random.Random) -> np.ndarray:
    """Draw text or shapes over a photo of (S, S, 3) uint8, or paste it, smaller, on flat ground."""
    size = len(photo)
    kind = chance.random()
    if kind < 0.4:
        return _pasted(photo, chance)
    if kind < 0.55:
        return _over(photo, _shapes_mask(size, chance), _colour(chance))
    if chance.random() < 0.4:  # a bar for captions
        top, height = chance.randrange(size), chance.randint(16, size // 3)
        share = chance.choice([1.0, chance.uniform(0.3, 0.9)])
        band = photo[top : top + height].astype(np.float32)
        photo = photo.copy()
        photo[top : top + height] = np.rint(band + share * (np.array(_colour(chance), np.float32) - band))
    return _over(photo, _text_mask(size, chance.randint(1, 6), chance), _colour(chance))


def _colour(chance: random.Random) -> Colour:
    """Black, white, a grey, a corner of the colour cube, a saturated colour, a pale one, or any."""
    kind = chance.randrange(8)
    if kind < 2:
        return (255 * kind,) * 3
    if kind == 2:
        return (chance.randrange(256),) * 3
    if kind == 3:
        return chance.choice((0, 255)), chance.choice((0, 255)), chance.choice((0, 255))
    if kind == 4:
        return chance.randrange(256), chance.randrange(256), chance.randrange(256)
    saturation = chance.uniform(0.02, 0.15) if kind == 5 else chance.uniform(0.6, 1)
    red, green, blue = colorsys.hsv_to_rgb(chance.random(), saturation, chance.uniform(0.85, 1) if kind == 5 else chance.uniform(0.1, 1))
    return round(255 * red), round(255 * green), round(255 * blue)


def _ink(ground: Colour, chance: random.Random) -> Colour:
    """A colour that can be told from the ground; mostly black or white."""
    light = sum(ground) > 380
    if chance.random() < 0.5:
        return (chance.randint(0, 60),) * 3 if light else (chance.randint(195, 255),) * 3
    while True:
        colour = _colour(chance)
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) > 60:
            return colour


def _filled(size: int, colour: Colour) -> np.ndarray:
    return np.full((size, size, 3), colour, np.uint8)


def _over(ground: np.ndarray, mask: np.ndarray, colour: Colour) -> np.ndarray:
    """Lay a colour over the ground where the mask, (S, S) or (S, S, 3) in 0 to 1, says so."""
    share = mask if mask.ndim == 3 else mask[:, :, None]
    return np.rint(ground + share * (np.array(colour, np.float32) - ground)).astype(np.uint8)


def _noise(chance: random.Random) -> np.random.Generator:
    return np.random.default_rng(chance.getrandbits(64))


def _flat(size: int, chance: random.Random) -> np.ndarray:
    return _filled(size, (chance.randrange(256),) * 3 if chance.random() < 0.3 else _colour(chance))


def _ramp(size: int, chance: random.Random) -> np.ndarray:
    """From one colour to another, along any direction or around a centre; half of them with noise."""
    first, second = np.array(_colour(chance), np.float32), np.array(_colour(chance), np.float32)
    second = first + chance.choice([1, 1, 0.5, 0.2, 0.05]) * (second - first)
    across, down = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    angle, centre = chance.uniform(0, 2 * np.pi), (chance.uniform(-1, 1), chance.uniform(-1, 1))
    way = np.cos(angle) * across + np.sin(angle) * down if chance.random() < 0.7 else np.hypot(across - centre[0], down - centre[1])
    share = (way - way.min()) / (way.max() - way.min())
    values = first + share[:, :, None] * (second - first)
    if chance.random() < 0.5:
        values += _grain(size, chance.uniform(0.5, 8), chance)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grain(size: int, deviation: float, chance: random.Random) -> np.ndarray:
    """Noise of (size, size, 3): the same for all colours or not, fine or soft."""
    grain = _noise(chance).normal(0, 1, (size, size, chance.choice([1, 3])))
    if chance.random() < 0.4:
        grain = (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1) + np.roll(grain, (1, 1), (0, 1))) / 2
    return np.broadcast_to(deviation * grain, (size, size, 3))


def _step(size: int, chance: random.Random) -> np.ndarray:
    """Two to four flat areas with straight borders."""
    picture = _filled(size, _colour(chance))
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    for _ in range(chance.choice([1, 1, 2, 3])):
        angle = chance.choice([0, np.pi / 2, np.pi, chance.uniform(0, 2 * np.pi)])
        away = np.cos(angle) * (across - chance.uniform(0.1, 0.9) * size) + np.sin(angle) * (down - chance.uniform(0.1, 0.9) * size)
        softness = chance.choice([0.01, 1, 1, 2])  # pixels
        picture = _over(picture, np.clip(away / softness + 0.5, 0, 1), _colour(chance))
    return picture


def _checks(size: int, chance: random.Random) -> np.ndarray:
    """A checkerboard or stripes, of cells of 1 to 64 pixels, perhaps in a part of the picture only."""
    ground = _colour(chance)
    wide, high = (int(2 ** chance.uniform(0, 6)) for _ in range(2))
    cells = np.arange(size) // wide + chance.choice([0, 1, 1]) * (np.arange(size) // high)[:, None]
    mask = np.broadcast_to(cells % 2, (size, size)).astype(np.float32)
    if chance.random() < 0.5:
        left, top = chance.randrange(size // 2), chance.randrange(size // 2)
        part = np.zeros((size, size), np.float32)
        part[top : top + size // 2, left : left + size // 2] = 1
        mask = mask * part
    return _over(_filled(size, ground), mask.T if chance.random() < 0.5 else mask, _ink(ground, chance))


def _shapes(size: int, chance: random.Random) -> np.ndarray:
    """Lines, dots, boxes and rings of several colours."""
    picture = _filled(size, _colour(chance)) if chance.random() < 0.8 else _ramp(size, chance)
    for _ in range(chance.randint(1, 4)):
        picture = _over(picture, _shapes_mask(size, chance), _colour(chance))
    return picture


def _shapes_mask(size: int, chance: random.Random) -> np.ndarray:
    """(S, S) in 0 to 1: some shapes of one kind, with smooth borders or hard ones."""
    finer = chance.choice([1, FINER])
    side = size * finer
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    kind = chance.choice(["line", "line", "dots", "rectangle", "ellipse", "curve"])
    width = max(1, round(finer * chance.choice([1, 1, 2, chance.uniform(0.5, 8)])))
    for _ in range(chance.randint(5, 60) if kind == "dots" else chance.randint(1, 8)):
        x, y = chance.randrange(-side // 4, side), chance.randrange(-side // 4, side)
        right, lower = x + chance.randint(1, side // 2), y + chance.randint(1, side // 2)
        if kind == "line":
            draw.line([(x, y), chance.choice([(right, lower), (right, y), (x, lower), (right, 2 * y - lower)])], fill=255, width=width)
        elif kind == "curve":
            draw.arc([x, y, right, lower], chance.randrange(360), chance.randrange(360), fill=255, width=width)
        elif kind == "dots":
            draw.ellipse([x, y, x + width, y + width], fill=255)
        else:
            style = {"fill": 255} if chance.random() < 0.5 else {"outline": 255, "width": width}
            getattr(draw, kind)([x, y, right, lower], **style)
    return np.asarray(canvas.reduce(finer), np.float32) / 255


@cache
def _font_files() -> list[Path]:
    """The scalable fonts of this machine, and matplotlib's where it is installed."""
    folders = list(FONTS)
    try:
        import matplotlib

        folders.append(Path(matplotlib.get_data_path()) / "fonts/ttf")
    except ImportError:
        pass
    found = {path.name: path for folder in folders for path in sorted(folder.rglob("*.[to]tf"))}
    return [path for name, path in sorted(found.items()) if not any(word in name for word in SYMBOLS) and _has_letters(path)]


def _has_letters(path: Path) -> bool:
    font = ImageFont.truetype(path, 20)
    return len({bytes(font.getmask(letter)) for letter in "aegkRQ"}) == 6


def _font(height: float, chance: random.Random) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    choices = [None, *_font_files()]
    path = chance.choice(choices)
    return ImageFont.load_default(height) if path is None else ImageFont.truetype(path, height)


def _word(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return chance.choice(["{}", "{},{}", "{}.{}", "{} %", "({})", "{}:{}"]).format(chance.randrange(2000), chance.randrange(100))
    word = "".join(chance.choices(LETTERS, k=chance.randint(1, 11)))
    word = chance.choices([word, word.capitalize(), word.upper()], [8, 2, 0.5])[0]
    return word + chance.choices(["", ",", ".", ":", "-", "?", "!", ";"], [12, 1, 1.5, 0.2, 0.2, 0.1, 0.1, 0.1])[0]


def _text_mask(size: int, lines: int, chance: random.Random, height: float | None = None) -> np.ndarray:
    """(S, S), or (S, S, 3) with coloured stripes, in 0 to 1: lines of 8 to 40 pixels or of the height given."""
    striped = chance.random() < STRIPED
    finer = 3 if striped else 1
    height = height or 8 * 5 ** chance.random()
    font = _font(height * finer, chance)
    canvas = Image.new("L", (size * finer, size * finer))
    draw = ImageDraw.Draw(canvas)
    left, top = (chance.choice([chance.uniform(-0.5, 0.2), 0.05]) * size * finer for _ in range(2))
    y, spacing = top, chance.uniform(1.1, 1.7) * height * finer
    for _ in range(lines):
        words = " ".join(_word(chance) for _ in range(chance.randint(1, max(2, int(size / height)))))
        draw.text((left, y), words, fill=255, font=font)
        y += spacing * (1.8 if chance.random() < 0.1 else 1)
    mask = np.asarray(canvas, np.float32) / 255
    if not striped:
        return mask
    thirds = mask.reshape(size, 3, 3 * size).mean(1)
    thirds = (np.roll(thirds, 1, 1) + thirds + np.roll(thirds, -1, 1)) / 3
    return thirds.reshape(size, size, 3)


def _page(size: int, chance: random.Random) -> np.ndarray:
    """A part of a page: black on white, white on black or in colours, with a heading or a rule."""
    ground = chance.choices([(255,) * 3, (0,) * 3, (chance.randint(225, 255),) * 3, _colour(chance)], [4, 1.5, 1.5, 2])[0]
    ink = chance.choice([(0,) * 3, _ink(ground, chance)]) if sum(ground) > 380 else _ink(ground, chance)
    page = _over(_filled(size, ground), _text_mask(size, 40, chance), ink)
    if chance.random() < 0.3:  # a heading on ground of its own
        rows = chance.randint(size // 8, size // 2)
        heading = _over(_filled(size, ground), _text_mask(size, 1, chance, chance.uniform(16, 64)), _ink(ground, chance))
        page[:rows] = heading[:rows]
    if chance.random() < 0.3:
        page[chance.randrange(size) :][: chance.randint(1, 3)] = _ink(ground, chance)
    return page


def _screen(size: int, chance: random.Random) -> np.ndarray:
    """A part of a screen: panels, rows with icons and words, buttons, rules, flat ground."""
    ground = chance.choices([(255,) * 3, (chance.randint(225, 250),) * 3, (chance.randint(15, 50),) * 3, _colour(chance)], [3, 3, 3, 1])[0]
    accent = _ink(ground, chance)
    picture = Image.new("RGB", (size, size), ground)
    draw = ImageDraw.Draw(picture)
    height = chance.choice([11, 12, 13, 14, 16, 18, 22, 28])
    font = _font(height, chance)
    inks = [_ink(ground, chance) for _ in range(2)]
    left = chance.randint(-20, size // 3)
    if left > 20:  # a panel at the side
        panel = chance.choice([_colour(chance), (ground[0] ^ 8, ground[1] ^ 8, ground[2] ^ 8)])
        draw.rectangle([0, 0, left - 8, size], fill=panel)
        _rows(draw, (6, chance.randint(0, 30)), left - 12, size, height, font, [_ink(panel, chance)], chance)
    y = chance.randint(-20, 20)
    while y < size:
        kind = chance.random()
        if kind < 0.45:
            y = _rows(draw, (left, y), size, chance.randint(y + 1, y + size), height, font, inks, chance)
        elif kind < 0.6:  # a button
            words = _word(chance)
            box = [left + 8, y, left + 24 + draw.textlength(words, font), y + 2 * height]
            fill = chance.choice([accent, _colour(chance)])
            draw.rounded_rectangle(box, radius=chance.choice([0, 3, 6, height]), fill=fill, outline=chance.choice([None, accent]))
            draw.text((left + 16, y + height // 3), words, fill=_ink(fill, chance), font=font)
            y += 3 * height
        elif kind < 0.7:  # a rule
            pale = tuple(int(0.85 * c + 20) for c in ground)
            draw.line([(left, y), (size, y)], fill=chance.choice([*inks, pale]), width=chance.choice([1, 1, 2]))
            y += height
        elif kind < 0.9:  # a card: a flat area, bars or a picture of some sort
            y = _card(picture, draw, left, y, chance)
        else:
            y += chance.randint(height, size // 2)
    return np.asarray(picture)


def _rows(
    draw: ImageDraw.ImageDraw,
    start: tuple[int, int],
    right: int,
    lower: int,
    height: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    inks: list[Colour],
    chance: random.Random,
) -> int:
    """Draw rows of an icon and words from `start` to `right` and `lower`; where the next thing may begin."""
    (x, y), icons = start, chance.random() < 0.5
    while y < lower:
        across: float = x
        if icons:
            shape = chance.choice(["ellipse", "rectangle"])
            getattr(draw, shape)([x, y, x + height, y + height], fill=_colour(chance))
            across += 1.5 * height
        while across < right and chance.random() < 0.85:
            word = _word(chance)
            if across + draw.textlength(word, font) > right:
                break
            draw.text((across, y), word, fill=chance.choice(inks), font=font)
            across += draw.textlength(word + " ", font)
        y += int(1.6 * height)
    return y


def _card(picture: Image.Image, draw: ImageDraw.ImageDraw, left: int, y: int, chance: random.Random) -> int:
    """Draw a card of up to half the picture's height; where the next thing may begin."""
    wide, high = chance.randint(30, picture.width), chance.randint(20, picture.height // 2)
    box, kind = [left + 8, y, left + 8 + wide, y + high], chance.randrange(3)
    if kind == 0:
        draw.rounded_rectangle(box, radius=chance.choice([0, 4, 10]), fill=_colour(chance), outline=chance.choice([None, _colour(chance)]))
    elif kind == 1:
        bar, colour = chance.randint(3, 20), _colour(chance)
        for x in range(left + 8, left + 8 + wide, bar + chance.randint(1, 8)):
            draw.rectangle([x, y + chance.randrange(high), x + bar, y + high], fill=colour)
    else:
        draws: list[Drawing] = [_ramp, _shapes, _night, _checks]
        inside = chance.choice(draws)(max(wide, high), chance)
        picture.paste(Image.fromarray(inside[:high, :wide]), (left + 8, y))
    return y + high + chance.randint(4, 30)


def _seen_through_a_lens(picture: np.ndarray, chance: random.Random) -> np.ndarray:
    soft = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(chance.uniform(0.4, 1.2)))
    light = np.array([chance.uniform(0.7, 1)] * 3) * np.array([1, chance.uniform(0.93, 1), chance.uniform(0.85, 1)])
    values = 12 + np.asarray(soft, np.float32) * light * 0.93
    return np.clip(np.rint(values + _grain(len(picture), chance.uniform(0.5, 5), chance)), 0, 255).astype(np.uint8)


def _light(size: int, x: float, y: float, radius: float, squeeze: float) -> np.ndarray:
    """(S, S): a spot of light of height 1 with a halo, `squeeze` times as high as wide."""
    across, down = np.arange(size) - x, (np.arange(size) - y) / squeeze
    square = (across[None, :] ** 2 + down[:, None] ** 2) / radius**2
    return np.exp(-square / 2) + 0.02 / (1 + square / 8)


def _developed(linear: np.ndarray, deviation: float, chance: random.Random) -> np.ndarray:
    """Turn linear light, 1 being white, into a picture with a camera's noise; what is brighter than white is cut."""
    size = len(linear)
    values = 255 * np.clip(linear, 0, 1) ** (1 / 2.2)
    return np.clip(np.rint(values + _grain(size, deviation, chance)), 0, 255).astype(np.uint8)


def _dark(size: int, chance: random.Random) -> np.ndarray:
    """(S, S, 3) of linear light: next to none, perhaps rising to one side."""
    tint = np.array([chance.uniform(0.3, 1) for _ in range(3)])
    rise = np.linspace(0, chance.choice([0, 1, 4]), size)[:, None, None]
    return np.broadcast_to(chance.choice([0, 0.0005, 0.003, 0.01]) * tint * (1 + rise), (size, size, 3)).copy()


def _night(size: int, chance: random.Random) -> np.ndarray:
    """Lamps, signs and lit windows on dark ground, with glare and noise."""
    linear = _dark(size, chance)
    hues = [(1, 0.75, 0.4), (1, 0.9, 0.75), (0.8, 0.9, 1), (1, 0.05, 0.03), (0.05, 1, 0.2), (0.1, 0.25, 1), (1, 0.1, 0.8), (1, 0.45, 0.05)]
    if chance.random() < 0.4:
        _windows(linear, hues, chance)
    radius, squeeze = 0.6 * 10 ** chance.random(), chance.choice([1, 1, 1, chance.uniform(2, 12)])
    for _ in range(chance.randint(1, 40)):
        strength = 10 ** chance.uniform(-1.3, 1)
        spot = _light(size, chance.uniform(0, size), chance.uniform(0, size), radius * chance.uniform(0.7, 1.5), squeeze)
        linear += strength * spot[:, :, None] * np.array(chance.choice(hues))
    return _developed(linear, chance.choice([0, 1, chance.uniform(1, 7)]), chance)


def _windows(linear: np.ndarray, hues: list[tuple[float, float, float]], chance: random.Random) -> None:
    wide, high, gap = chance.randint(2, 12), chance.randint(2, 14), chance.randint(2, 10)
    hue, size = np.array(chance.choice(hues[:3])), len(linear)
    left, right = chance.randrange(-size // 4, size // 2), chance.randrange(size // 2, size)
    for y in range(chance.randrange(size), size, high + gap):
        for x in range(max(0, left), right, wide + gap):
            if chance.random() < 0.4:
                linear[y : y + high, x : x + wide] += chance.uniform(0.02, 0.8) * hue


def _stars(size: int, chance: random.Random) -> np.ndarray:
    """Points of light on dark ground with noise, few of them bright; some have a cloud behind them."""
    linear = _dark(size, chance)
    noise = _noise(chance)
    if chance.random() < 0.4:
        cloud = Image.fromarray(noise.random((6, 6)).astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
        linear += chance.uniform(0.002, 0.04) * np.clip(np.asarray(cloud), 0, 1)[:, :, None] ** 2 * noise.uniform(0.2, 1, 3)
    radius, reach = chance.uniform(0.45, 1.2), 12
    padded = np.zeros((size + 2 * reach, size + 2 * reach, 3))
    for _ in range(chance.randint(10, 500)):
        x, y = chance.randrange(size), chance.randrange(size)
        strength = 0.02 * chance.paretovariate(1.1)
        spot = _light(2 * reach, reach + chance.random() - 0.5, reach + chance.random() - 0.5, radius, 1)
        spot = np.maximum(spot - spot[0].max(), 0)
        padded[y : y + 2 * reach, x : x + 2 * reach] += min(strength, 20) * spot[:, :, None] * (1 + 0.3 * noise.uniform(-1, 1, 3))
    linear += padded[reach:-reach, reach:-reach]
    return _developed(linear, chance.choice([0.5, chance.uniform(1, 8)]), chance)


def _pasted(photo: np.ndarray, chance: random.Random) -> np.ndarray:
    """The photo in a frame of flat ground, with a line about it or words beside it."""
    size, colour = len(photo), _colour(chance)
    side = round(size * chance.uniform(0.3, 0.9))
    left, top = chance.randint(-side // 4, size - side // 2), chance.randint(-side // 4, size - side // 2)
    ground = _filled(size, colour) if chance.random() < 0.7 else _page(size, chance)
    picture = Image.fromarray(ground)
    if chance.random() < 0.4:
        border, width = [left - 1, top - 1, left + side, top + side], chance.choice([1, 1, 3])
        ImageDraw.Draw(picture).rectangle(border, outline=_colour(chance), width=width)
    whole = Image.fromarray(photo)
    inside = whole.resize((side, side), Image.Resampling.LANCZOS) if chance.random() < 0.5 else whole.crop((0, 0, side, side))
    picture.paste(inside, (left, top))
    return np.asarray(picture)
