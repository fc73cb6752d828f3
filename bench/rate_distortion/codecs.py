"""The codecs: pixels and a quality to bytes, and what a reader of these sees.

What counts is the whole file, without metadata of the picture; of SDFS the whole blob. A codec in development is measured by giving
`Codec` a callable of one's own.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, features

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT
from sdfs.codec.autoencoders.runner import fastest_dtype
from sdfs.codec.codec import Codec as BlobCodec
from sdfs.codec.resident.model import BundledModel
from sdfs.settings import BUNDLED, Effort, EncodeSettings

Pixels = NDArray[np.uint8]  # (H, W, 3)
Code = Callable[[Pixels, float], tuple[bytes, Pixels]]  # of pixels and a setting: the file, and what it decodes to

OURS = "SDFS"
RIVAL = "AVIF"
AVIF_USUAL = "avif-looks-420"  # what everybody gets of AVIF who sets nothing
QUALITIES = tuple(range(0, 101, 10))
QUICK_QUALITIES = (20, 35, 50, 65, 80, 95)
_AVIF_STEPS = (0, 8, 18, 30, 42, 54, 66, 78)


@dataclass(frozen=True)
class Codec:
    """`code` has to be picklable if processes are to share the work: a function of a module, or a partial of one."""

    name: str
    family: str  # codecs of one family count together: at each rate the best of them
    version: str  # results are kept under name and version; empty: they are not kept
    steps: Sequence[float]  # settings of its curve, the coarsest first
    code: Code
    every: Sequence[float] = ()  # all settings, the coarsest first: for the best file within a number of bytes
    decode: Callable[[bytes], Pixels] | None = None  # alone: for its cost


def avif(speed: int = 4) -> list[Codec]:
    """Tuned for how pictures look (libavif's default) and for PSNR, with chroma at half the resolution and at the full one."""
    ways = [(tune, chroma) for tune in ("looks", "psnr") for chroma in ("4:2:0", "4:4:4")]
    family = RIVAL if speed == 4 else f"{RIVAL}, speed {speed}"
    prefix = "avif" if speed == 4 else f"avif{speed}"
    return [
        Codec(
            f"{prefix}-{tune}-{chroma.replace(':', '')}",
            family,
            f"libavif {features.version('avif')}, libaom, speed {speed}",
            _AVIF_STEPS,
            partial(
                _through_pillow, "AVIF", {"speed": speed, "max_threads": 1, "subsampling": chroma, "advanced": _TUNES[tune]}
            ),
            range(101),
        )
        for tune, chroma in ways
    ]  # fmt: skip


_TUNES: Mapping[str, dict[str, str]] = {"looks": {}, "psnr": {"tune": "psnr"}}


def classics() -> list[Codec]:
    """JPEG and WebP with their default of chroma at half the resolution, and JPEG XL."""
    jpeg = partial(_through_pillow, "JPEG", {"optimize": True, "progressive": True})
    return [
        Codec(
            "jpeg", "JPEG", f"libjpeg-turbo {features.version('libjpeg_turbo')}, optimised, progressive",
            (4, 7, 11, 16, 24, 36, 52, 70, 82, 90), jpeg, range(1, 96),
        ),
        Codec(
            "webp", "WebP", f"libwebp {features.version('webp')}, method 6",
            (0, 4, 10, 18, 30, 46, 62, 76, 84, 92), partial(_through_pillow, "WebP", {"method": 6}), range(101),
        ),
        Codec(
            "jpegxl", "JPEG XL", f"{imagecodecs.jpegxl_version()}, effort 7",
            (20.0, 14.0, 10.0, 7.5, 5.5, 4.0, 2.8, 1.8, 1.1, 0.6), _through_jpeg_xl, [tenths / 10 for tenths in range(250, 0, -1)],
        ),
    ]  # fmt: skip


def original() -> Codec:
    """The picture itself, so that its noise is among the results."""
    return Codec("original", "original", "1", (0,), _as_it_is)


def sdfs(weights: str = BUNDLED, effort: Effort = Effort.NORMAL, steps: Sequence[float] = QUALITIES) -> Codec:
    """Of the bundled weights, or of a file of weights for the same networks."""
    data = _weights(weights)
    identity = hashlib.sha256(_code_of_sdfs() + data).hexdigest()[:16]
    name = OURS if weights == BUNDLED else Path(weights).stem
    sha256 = hashlib.sha256(data).hexdigest()[:16]
    version = f"weights {sha256}, effort {effort}, with its code {identity}"
    return Codec(name, name, version, steps, partial(_blob, weights, effort), range(101), partial(_of_blob, weights))


def named(reference: str, steps: Sequence[float]) -> Codec:
    """Of a function `code`, named MODULE:FUNCTION. Its results are not kept. Raises SystemExit."""
    module, _, function = reference.partition(":")
    try:
        code = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(f"{reference}: {error}; name a function as MODULE:FUNCTION") from error
    return Codec(function, function, "", steps, code, range(101))


@lru_cache(1)
def _code_of_sdfs() -> bytes:
    """A hash of what SDFS is made of, for a change in it may change what comes out."""
    found = hashlib.sha256()
    root = Path(str(resources.files("sdfs")))
    for path in sorted(root.rglob("*.py")):
        found.update(path.read_bytes())
    return found.digest()


def _weights(weights: str) -> bytes:
    """Raises SystemExit."""
    if weights == BUNDLED:
        return resources.files("sdfs").joinpath("codec/weights/bundled.safetensors").read_bytes()
    try:
        return Path(weights).read_bytes()
    except OSError as error:
        raise SystemExit(f"{weights}: {error.strerror}; name a safetensors file of weights, or '{BUNDLED}'") from error


@lru_cache(2)
def _blob_codec(weights: str) -> BlobCodec:
    codec = BlobCodec()
    if weights != BUNDLED:
        codec._models._bundled = BundledModel(torch.device("cpu"), fastest_dtype(), _weights(weights))
    return codec


def _blob(weights: str, effort: Effort, pixels: Pixels, quality: float) -> tuple[bytes, Pixels]:
    """The blob of the picture as a BMP file, of which latents never take too large a share; the gate lets everything pass."""
    everything = EncodeSettings(quality=int(quality), effort=effort, min_psnr=0, min_ms_ssim=0)
    blob = _blob_codec(weights).encode(_saved(pixels, "BMP"), everything)
    parsed = container.parse(blob)
    if parsed.preamble.kind != KIND_LATENT:
        raise ValueError(f"kept exactly: {parsed.header['reason']}")
    return blob, _of_blob(weights, blob)


def _of_blob(weights: str, blob: bytes) -> Pixels:
    return _loaded(_blob_codec(weights).decode(blob))


def _through_pillow(file_format: str, options: Mapping[str, Any], pixels: Pixels, quality: float) -> tuple[bytes, Pixels]:
    data = _saved(pixels, file_format, quality=int(quality), **options)
    return data, _loaded(data)


def _through_jpeg_xl(pixels: Pixels, distance: float) -> tuple[bytes, Pixels]:
    data = bytes(imagecodecs.jpegxl_encode(pixels, distance=distance, effort=7, lossless=False, numthreads=1))
    return data, imagecodecs.jpegxl_decode(data, numthreads=1)


def _as_it_is(pixels: Pixels, _: float) -> tuple[bytes, Pixels]:
    return pixels.tobytes(), pixels


def _saved(pixels: Pixels, file_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, file_format, **options)
    return out.getvalue()


def _loaded(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))
