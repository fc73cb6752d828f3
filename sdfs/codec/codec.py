"""Picture file bytes to blob and back: the whole way of a picture, apart from where it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, Blob
from sdfs.blob.metadata import MAX_METADATA_BYTES, pack_metadata, unpack_metadata
from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.codec.memory_budget import MemoryBudget
from sdfs.codec.pictures import alpha, behind
from sdfs.codec.pictures.exact import unwrap_exact, wrap_exact
from sdfs.codec.pictures.formats.shared import MAX_PIXELS
from sdfs.codec.pictures.picture import Picture, find_marker, fit, pixels_of_render, probe, render
from sdfs.codec.quality.scores import LUMA, Bound, Place, Scores, compare, worst_place
from sdfs.codec.resident.loading import Models
from sdfs.codec.resident.model import HASH_DIGITS, ResidentModel
from sdfs.errors import DamagedError, DoesNotFit, KnownRender, PictureError, SdfsError, Unsuitable
from sdfs.settings import Effort, EncodeSettings, Memory

LARGEST_SHARE = 0.5  # of the bytes that latents replace, those that they may take
QUALITY_STEP = 12  # a picture that fails the gate is tried again at so much more quality
QUALITY_TRIES = 3
METADATA_COPIES = 3  # inflated, and in a render as it is made
DECODE_BYTES = 20  # for each pixel, besides what a tile takes: measured with photos of 12 and 48 MP


@dataclass(frozen=True)
class _Candidate:
    blob: bytes
    latents: int  # bytes of them
    scores: Scores
    worst: Place

    def shortfall(self, least: Scores) -> str | None:
        """What a reader would get that is less than the gate wants."""
        if self.scores.psnr < least.psnr or self.scores.ms_ssim < least.ms_ssim:
            have, want = (f"{scores.psnr:.4g} dB, MS-SSIM {scores.ms_ssim:.4g}" for scores in (self.scores, least))
            return f"gives PSNR {have}: want {want}"
        return f"is {self.worst.excess:.2f} times as far off as it may be {self.worst}" if self.worst.excess > 1 else None


class Codec:
    """With its models resident. Thread-safe."""

    def __init__(self, device: str | None = None, dtype: str | None = None, memory: Memory | None = None) -> None:
        """`device`, `dtype`: as for `resident.Models`."""
        memory = memory or Memory()
        self._models = Models(device, dtype, budget_bytes=memory.ram // 2, device_bytes=memory.vram)
        self._room = MemoryBudget(memory.ram // 4)

    def figures(self) -> dict[str, Any]:
        """Where the bundled model is: "device" by name, "dtype", and "device_bytes" that torch holds there, None on a CPU."""
        return self._models.figures()

    def encode(self, data: bytes, settings: EncodeSettings, *, reference: bytes | None = None) -> bytes:
        """A blob: latents where the gate of the settings lets them pass, else the file exactly.

        A picture that fails the gate at the quality of the settings is tried at more. Where the pixels are those that a reader of
        the blob `reference` gets, that blob's latents are kept: what is copied out and in, or has only its metadata edited, loses
        nothing again. An empty reference: there is none. Raises NotAPicture; KnownRender, if the bytes carry the marker of another
        blob than the reference, which may be a guess; ModelMissing, ModelError.
        """
        marker = None if reference == b"" else find_marker(data)
        if marker is not None and not (reference and _marker_of(reference) == marker):
            raise KnownRender(marker.decode("ascii", "replace"))
        try:
            picture = probe(data)
            kept = self._keep_latents(data, picture, reference) if reference else None
            return kept or self._encode_latents(data, picture, settings)
        except Unsuitable as reason:
            return _pack_exact(data, str(reason))

    def decode(self, blob: bytes, *, model: str | None = None) -> bytes:
        """The file a reader gets: exactly preamble.rendered_size bytes.

        `model`: a compatible one to use instead of the blob's; where what that gives does not fit, it has a size of its own.
        Waits while others are decoded and the memory does not suffice for all.
        Raises DamagedError, StoreTooNew, ModelMissing, ModelError.
        """
        parsed = container.parse(blob)
        size = parsed.preamble.rendered_size
        if parsed.preamble.kind != KIND_LATENT:
            return unwrap_exact(parsed.preamble.kind, _section(parsed, "file"), size)
        try:
            width, height = _claimed_size(parsed.header)
            with self._room.taking(DECODE_BYTES * width * height + METADATA_COPIES * _claimed_metadata(parsed.header)):
                picture, marker = self._decode_latents(parsed, model), _marker(parsed.header)
                try:
                    return render(picture, size, marker)
                except DoesNotFit:
                    if model is None:
                        raise
                    return render(picture, None, marker)
        except (ArithmeticError, LookupError, TypeError, ValueError, PictureError) as error:
            raise DamagedError(f"latent blob: {type(error).__name__}: {error}") from error

    def _encode_latents(self, data: bytes, picture: Picture, settings: EncodeSettings) -> bytes:
        model, least = self._models.named(settings.model), Scores(settings.min_psnr, settings.min_ms_ssim)
        if len(data) > _largest_render(picture):
            raise Unsuitable(f"{len(data)} bytes are more than its pixels need")
        kept = _kept(picture)
        replaced = len(data) - len(picture.behind) - len(picture.metadata)
        bound, failed = Bound.asked(settings.quality, least), ""
        for tried in sorted({min(100, settings.quality + attempt * QUALITY_STEP) for attempt in range(QUALITY_TRIES)}):
            try:
                candidate = _candidate(data, picture, kept, model, tried, settings.effort, bound)
                if candidate.latents > LARGEST_SHARE * replaced or len(candidate.blob) >= len(data):
                    raise Unsuitable(f"latents take {candidate.latents} of {replaced} bytes at quality {tried}")
            except Unsuitable as reason:
                raise Unsuitable(f"{failed}{reason}") from reason
            shortfall = candidate.shortfall(least)
            if shortfall is None:
                return candidate.blob
            failed = f"quality {tried} {shortfall}; "
        raise Unsuitable(failed.removesuffix("; "))

    def _keep_latents(self, data: bytes, picture: Picture, reference: bytes) -> bytes | None:
        """The reference's latents with the metadata of `data`; None where the pixels are not the reference's."""
        try:
            blob = container.parse(reference)
            decoded = self._decode_latents(blob) if blob.preamble.kind == KIND_LATENT else None
        except (SdfsError, ArithmeticError, LookupError, TypeError, ValueError):
            return None  # a reference that is damaged, or of another model, is none
        if decoded is None or (decoded.format, decoded.pixels.shape) != (picture.format, picture.pixels.shape):
            return None
        header = blob.header | _origin(data)
        try:
            fitted, rendered, seen = _render_for(picture, decoded.pixels, len(data), _marker(header))
        except Unsuitable:
            return None
        if not np.array_equal(seen, picture.pixels):
            return None
        header |= _render_of(fitted, rendered)
        try:
            packed = container.pack(KIND_LATENT, len(rendered), header, {"latents": blob.sections["latents"], **_kept(picture)})
        except ValueError:  # what the reference's header holds besides fits no other
            return None
        return packed if len(packed) < len(data) else None

    def _decode_latents(self, blob: Blob, instead: str | None = None) -> Picture:
        header = blob.header
        (width, height), quality = _claimed_size(header), int(header["quality"])
        if not 0 <= quality <= 100:
            raise DamagedError(f"latent blob claims quality {quality}")
        rgb = self._models.of_blob(header, instead=instead).decode(_section(blob, "latents"), header, height, width)
        picture = Picture(
            header["format"],
            _to_grey(rgb) if header["grey"] else rgb,
            header["recipe"],
            unpack_metadata(_section(blob, "metadata"), _claimed_metadata(header)),
            behind.unpack(blob.sections["behind"], int(header["behind_size"])) if "behind" in blob.sections else b"",
            alpha.unpack(blob.sections["alpha"], height, width) if "alpha" in blob.sections else None,
        )
        if blob.preamble.rendered_size > _largest_render(picture):
            raise DamagedError(f"latent blob claims a render of {blob.preamble.rendered_size} bytes for {width} x {height} pixels")
        return picture


def _claimed_size(header: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height. Raises DamagedError, ArithmeticError, LookupError, TypeError, ValueError."""
    width, height = int(header["width"]), int(header["height"])
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise DamagedError(f"latent blob claims {width} x {height} pixels")
    return width, height


def _claimed_metadata(header: Mapping[str, Any]) -> int:
    """Bytes of the metadata. Raises as `_claimed_size`."""
    size = int(header["metadata_size"])
    if not 0 <= size <= MAX_METADATA_BYTES:
        raise DamagedError(f"latent blob claims {size} bytes of metadata")
    return size


def _candidate(
    data: bytes, picture: Picture, kept: Mapping[str, bytes], model: ResidentModel, quality: int, effort: Effort, bound: Bound
) -> _Candidate:
    height, width = picture.pixels.shape[:2]
    grey = picture.pixels.ndim == 2
    encoded = model.encode(_to_rgb(picture.pixels), quality, effort)
    header: dict[str, Any] = {
        **_origin(data),
        "format": picture.format,
        "width": width,
        "height": height,
        "autoencoder": model.id,
        "weights": model.weights_sha256[:HASH_DIGITS],
        "quality": quality,
        "grey": grey,
        "latents_crc32": encoded.latents_crc32,
        **encoded.header,
    }
    fitted, rendered, seen = _render_for(picture, _to_grey(encoded.pixels) if grey else encoded.pixels, len(data), _marker(header))
    scores, worst = compare(picture.pixels, seen), worst_place(picture.pixels, seen, bound)
    header |= {"scores": scores.as_dict() | worst.as_dict(), **_render_of(fitted, rendered)}
    blob = container.pack(KIND_LATENT, len(rendered), header, {"latents": encoded.section, **kept})
    return _Candidate(blob, len(encoded.section), scores, worst)


def _origin(data: bytes) -> dict[str, Any]:
    return {"original_size": len(data), "original_sha256": hashlib.sha256(data).hexdigest()}


def _render_of(picture: Picture, rendered: bytes) -> dict[str, Any]:
    known: dict[str, Any] = {
        "recipe": picture.recipe,
        "render": hashlib.sha256(rendered).hexdigest()[:HASH_DIGITS],
        "metadata_size": len(picture.metadata),
    }
    return known | ({"behind_size": len(picture.behind)} if picture.behind else {})


def _kept(picture: Picture) -> dict[str, bytes]:
    """The sections of a picture's blob that hold what stays as it was."""
    sections = {"metadata": pack_metadata(picture.metadata)}
    if picture.behind:
        sections["behind"] = behind.pack(picture.behind)
    if picture.alpha is not None:
        sections["alpha"] = alpha.pack(picture.alpha)
    return sections


def _render_for(picture: Picture, decoded: NDArray[np.uint8], size: int, marker: bytes) -> tuple[Picture, bytes, NDArray[np.uint8]]:
    """The picture as decoded, with the recipe by which its render has `size` bytes; that render; the pixels that a reader of it sees."""
    try:
        fitted, rendered = fit(replace(picture, pixels=decoded), size, marker)
    except DoesNotFit as reason:
        raise Unsuitable(str(reason)) from reason
    return fitted, rendered, pixels_of_render(rendered)


def _largest_render(picture: Picture) -> int:
    """No file that becomes latents is larger than this, so that no blob can have a reader allocate more."""
    return 8 * picture.pixels.shape[0] * picture.pixels.shape[1] + len(picture.metadata) + len(picture.behind) + (1 << 16)


def _to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def _to_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(pixels @ LUMA).astype(np.uint8)


def _marker(header: Mapping[str, Any]) -> bytes:
    return container.latent_id(header).encode()


def _marker_of(blob: bytes) -> bytes | None:
    try:
        return _marker(container.parse(blob).header)
    except (SdfsError, LookupError):
        return None


def _pack_exact(data: bytes, reason: str) -> bytes:
    kind, payload = wrap_exact(data)
    header = {
        **_origin(data),
        "format": picture_format(data[:HEAD_BYTES]),
        "width": None,
        "height": None,
        "reason": reason,
    }
    return container.pack(kind, len(data), header, {"file": payload})


def _section(blob: Blob, name: str) -> bytes:
    try:
        return blob.sections[name]
    except KeyError:
        raise DamagedError(f"blob has no section {name!r}") from None
