"""File bytes ↔ pixels and metadata: probing, and rendering at an exact size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.codec.pictures import hidden
from sdfs.codec.pictures.formats import bmp, heif, jpeg, png, tiff, webp
from sdfs.codec.pictures.formats.shared import MAX_MARKER_BYTES, Format
from sdfs.errors import DoesNotFit, NotAPicture

_FORMATS: dict[str, Format] = {"jpeg": jpeg, "png": png, "webp": webp, "bmp": bmp, "tiff": tiff, "heic": heif, "avif": heif}
_SPARE, _MIN_SPARE = 64, 64  # a 64th of a render, and so many bytes


@dataclass(frozen=True)
class Picture:
    """A picture file taken apart: pixels to be replaced, and all that a render takes from the file."""

    format: str  # 'jpeg' | 'png' | 'webp' | 'bmp' | 'tiff'
    pixels: npt.NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W) grey; as coded: neither rotated nor colour-managed; but see `hidden`
    recipe: dict[str, Any]  # JSON-able: how to render
    metadata: bytes  # what the picture has besides its pixels
    behind: bytes = b""  # what the file has behind the picture
    alpha: npt.NDArray[np.uint8] | None = None  # (H, W): opacity, kept exactly

    @property
    def is_lossless(self) -> bool:
        """Whether its file has the pixels as whoever made it had them."""
        return self.format in ("png", "bmp", "tiff") or self.recipe.get("lossless") is True


def probe(data: bytes) -> Picture:
    """Take a picture file apart.

    Raises NotAPicture (no complete, decodable picture) and Unsuitable (the structure of a picture is whole, but not of the
    kind that a render can stand for), nothing else, whatever `data` is.
    """
    name = picture_format(data[:HEAD_BYTES])
    if name is None:
        raise NotAPicture("it begins like no JPEG, PNG, WebP, BMP, TIFF, HEIC or AVIF")
    picture = Picture(name, *_FORMATS[name].read(data))
    colour = None if picture.alpha is None else hidden.colour(picture.pixels, picture.alpha)
    if picture.alpha is None or colour is None:
        return picture
    return replace(picture, pixels=hidden.fill(picture.pixels, picture.alpha), recipe=picture.recipe | {"hidden": colour})


def render(picture: Picture, size: int | None, marker: bytes, spare: int = 0) -> bytes:
    """The picture file again, from `picture.pixels`: exactly `size` bytes, or DoesNotFit; with None the format's natural size.

    `marker`, at most 64 bytes, is embedded where the format has room for it: see `find_marker`. `spare`: so many bytes must be left, for
    another machine's pixels may compress a little worse.
    """
    if len(marker) > MAX_MARKER_BYTES:
        raise ValueError(f"a marker of {len(marker)} bytes: at most {MAX_MARKER_BYTES}")
    pixels = picture.pixels
    if picture.alpha is not None:
        pixels = np.dstack([pixels, picture.alpha])
        if "hidden" in picture.recipe:
            pixels[picture.alpha == 0, :-1] = picture.recipe["hidden"]
    own = None if size is None else size - len(picture.behind)
    return _FORMATS[picture.format].write(pixels, picture.recipe, picture.metadata, own, marker, spare) + picture.behind


def fit(picture: Picture, size: int, marker: bytes) -> tuple[Picture, bytes]:
    """The picture with the first of its format's recipes by which a render has `size` bytes, some to spare, and that render.

    Raises DoesNotFit.
    """
    last = DoesNotFit("")
    for recipe in _FORMATS[picture.format].recipes(picture.recipe):
        fitting = replace(picture, recipe=recipe)
        try:
            return fitting, render(fitting, size, marker, spare=size // _SPARE + _MIN_SPARE)
        except DoesNotFit as reason:
            last = reason
    raise last


def pixels_of_render(data: bytes, source: Picture) -> npt.NDArray[np.uint8]:
    """What a reader sees of what `render` made of `source` with other pixels, opacity apart. What nobody sees is as in the source."""
    seen = jpeg.pixels_of_render(data) if source.format == "jpeg" else probe(data).pixels
    return hidden.put(seen, source.pixels, source.alpha) if source.alpha is not None and "hidden" in source.recipe else seen


def find_marker(data: bytes) -> bytes | None:
    """The marker of the render that `data` is or derives from, if it carries one."""
    name = picture_format(data[:HEAD_BYTES])
    return _FORMATS[name].find_marker(data) if name is not None else None
