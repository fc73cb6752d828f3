"""What the formats have in common: limits, the parts of a file, the marker, uncompressed pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sdfs.errors import NotAPicture, Unsuitable

MAX_PIXELS = 256_000_000  # larger ones go exact: one decoded copy is 768 MB
MIN_SIDE = 64  # smaller ones are icons: latents save nothing there
MAX_PIXELS_PER_BYTE = 100  # 0.08 bits a pixel: files below that rate leave nothing to save, or are bombs
MAX_MARKER_BYTES = 64

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB or (H, W) grey; with opacity (H, W, 4) or (H, W, 2)
Recipe = dict[str, Any]  # JSON-able


class Parts(NamedTuple):
    """A file taken apart. `recipe` and `metadata` are whatever the format's `write` wants back."""

    pixels: Pixels
    recipe: Recipe
    metadata: bytes
    behind: bytes = b""  # what follows the picture's end: a render ends with it
    alpha: Pixels | None = None  # (H, W): opacity, which stays exact


class Run(NamedTuple):
    """A stretch of a file that holds nothing but pixels."""

    offset: int
    length: int


class Format(Protocol):
    """What each module of a format offers; the package's docstring says what it means."""

    def read(self, data: bytes) -> Parts: ...
    def recipes(self, recipe: Recipe) -> Iterable[Recipe]: ...
    def write(self, pixels: Pixels, recipe: Recipe, metadata: bytes, size: int | None, marker: bytes, spare: int = 0) -> bytes: ...
    def find_marker(self, data: bytes) -> bytes | None: ...


def only(recipe: Recipe) -> Iterable[Recipe]:
    """`recipes` of a format that knows no other way than the first."""
    return (recipe,)


def check_claims(width: int, height: int, size: int) -> None:
    """Before anything is decoded or allocated: the dimensions that the header of a file of `size` bytes claims."""
    if width <= 0 or height <= 0:
        raise NotAPicture(f"its header claims {width}×{height} pixels")
    if width * height > MAX_PIXELS:
        raise Unsuitable(f"{width}×{height} pixels are more than {MAX_PIXELS // 10**6} megapixels")
    if width * height > MAX_PIXELS_PER_BYTE * size:
        raise Unsuitable(f"{width}×{height} pixels in {size} bytes")


def check_dimensions(width: int, height: int, size: int) -> None:
    """`check_claims`, and large enough for latents."""
    check_claims(width, height, size)
    if min(width, height) < MIN_SIDE:
        raise Unsuitable(f"{width}×{height} pixels: a side is shorter than {MIN_SIDE}")


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Translate whatever a foreign decoder raises: they raise many things, among them MemoryError and bare ValueError."""
    try:
        yield
    except Exception as error:
        raise NotAPicture(f"{name} does not decode: {error}") from error


def check_decoded(pixels: npt.NDArray[Any], height: int, width: int, channels: int) -> Pixels:
    """`pixels` as a decoder returned them must be what the header, as we read it, announced."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise NotAPicture(f"want {shape} uint8 pixels, the decoder has {pixels.shape} {pixels.dtype}")
    return pixels


def pack_marker(marker: bytes, length: int) -> bytes:
    """Padding of exactly `length` bytes: the marker behind its own length, then zeros; only zeros where it does not fit."""
    if length <= len(marker):
        return bytes(length)
    return (bytes([len(marker)]) + marker).ljust(length, b"\0")


def parse_marker(padding: bytes) -> bytes | None:
    """The inverse of `pack_marker`; None where `padding` holds no marker, or anything besides."""
    if not padding or not 0 < padding[0] <= min(MAX_MARKER_BYTES, len(padding) - 1):
        return None
    end = 1 + padding[0]
    return None if padding[end:].strip(b"\0") else padding[1:end]


def first_marker(paddings: Iterable[bytes]) -> bytes | None:
    """The marker in the first padding, if there is one; none in what turns out, while the paddings are looked for, to be no picture."""
    try:
        return next((parse_marker(padding) for padding in paddings), None)
    except NotAPicture:
        return None


def cut_runs(data: bytes, runs: Sequence[Run]) -> tuple[bytes, bytes]:
    """(the bytes within the runs, the bytes outside of them). Runs ascend and do not overlap."""
    inside: list[bytes] = []
    outside: list[bytes] = []
    at = 0
    for offset, length in runs:
        outside.append(data[at:offset])
        inside.append(data[offset : offset + length])
        at = offset + length
    outside.append(data[at:])
    return b"".join(inside), b"".join(outside)


def paste_runs(inside: bytes, outside: bytes, runs: Sequence[Run]) -> bytes:
    """The inverse of `cut_runs`."""
    if sum(run.length for run in runs) != len(inside):
        raise ValueError(f"want {sum(run.length for run in runs)} bytes of pixels, have {len(inside)}")
    pieces: list[bytes] = []
    taken_inside = taken_outside = at = 0
    for offset, length in runs:
        pieces.append(outside[taken_outside : taken_outside + offset - at])
        pieces.append(inside[taken_inside : taken_inside + length])
        taken_outside += offset - at
        taken_inside += length
        at = offset + length
    pieces.append(outside[taken_outside:])
    return b"".join(pieces)
