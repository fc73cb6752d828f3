"""Picture file bytes to blob and back: the whole way of a picture, apart from where it is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, Blob
from sdfs.blob.metadata import MAX_METADATA_BYTES, unpack_metadata
from sdfs.blob.signatures import HEAD_BYTES, picture_format
from sdfs.codec import patches
from sdfs.codec.making import Making, kept_sections, largest_render, marker_of, origin, render_for, render_of, to_grey
from sdfs.codec.memory_budget import MemoryBudget
from sdfs.codec.pictures import alpha, as_jpeg, behind
from sdfs.codec.pictures.exact import unwrap_exact, wrap_exact
from sdfs.codec.pictures.formats.shared import MAX_PIXELS
from sdfs.codec.pictures.picture import Picture, find_marker, probe, render
from sdfs.codec.resident.loading import Models
from sdfs.errors import DamagedError, DoesNotFit, KnownRender, PictureError, SdfsError, Unsuitable
from sdfs.settings import EncodeSettings, Memory

METADATA_COPIES = 3  # inflated, and in a render as it is made
DECODE_BYTES = 20  # for each pixel, besides what a tile takes: measured with photos of 12 and 48 MP


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
        """A blob: latents where they keep the promise of the settings, else the file exactly.

        A picture that breaks the promise of the settings is tried at more. Where the pixels are those that a reader of
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
            return kept or Making(data, picture, settings).blob(self._models.named(settings.model))
        except Unsuitable as reason:
            return pack_exact(data, str(reason))

    def convert(self, data: bytes, settings: EncodeSettings) -> bytes:
        """A blob of a HEIC or AVIF file: latents whose render is a JPEG; where they will not do, the file exactly. "format" tells which.

        Raises NotAPicture; ModelMissing, ModelError.
        """
        try:
            picture, size = as_jpeg.convert(data)
            return Making(data, picture, settings, size).blob(self._models.named(settings.model))
        except Unsuitable as reason:
            return pack_exact(data, str(reason))

    def check(self, data: bytes) -> None:
        """Raise NotAPicture where a file is no whole picture."""
        with contextlib.suppress(Unsuitable):
            probe(data)

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
                picture, marker = self._decode_latents(parsed, model), marker_of(parsed.header)
                try:
                    return render(picture, size, marker)
                except DoesNotFit:
                    if model is None:
                        raise
                    return render(picture, None, marker)
        except (ArithmeticError, LookupError, TypeError, ValueError, PictureError) as error:
            raise DamagedError(f"latent blob: {type(error).__name__}: {error}") from error

    def _keep_latents(self, data: bytes, picture: Picture, reference: bytes) -> bytes | None:
        """The reference's latents with the metadata of `data`; None where the pixels are not the reference's."""
        try:
            blob = container.parse(reference)
            decoded = self._decode_latents(blob) if blob.preamble.kind == KIND_LATENT else None
        except (SdfsError, ArithmeticError, LookupError, TypeError, ValueError):
            return None  # a reference that is damaged, or of another model, is none
        if decoded is None or (decoded.format, decoded.pixels.shape) != (picture.format, picture.pixels.shape):
            return None
        header = blob.header | origin(data)
        try:
            fitted, rendered, seen = render_for(picture, decoded.pixels, len(data), marker_of(header))
        except Unsuitable:
            return None
        if not np.array_equal(seen, picture.pixels):
            return None
        header |= render_of(fitted, rendered)
        coded = {name: blob.sections[name] for name in ("latents", "patches") if name in blob.sections}
        try:
            packed = container.pack(KIND_LATENT, len(rendered), header, coded | kept_sections(picture))
        except ValueError:  # what the reference's header holds besides fits no other
            return None
        return packed if len(packed) < len(data) else None

    def _decode_latents(self, blob: Blob, instead: str | None = None) -> Picture:
        header = blob.header
        (width, height), quality = _claimed_size(header), int(header["quality"])
        if not 0 <= quality <= 100:
            raise DamagedError(f"latent blob claims quality {quality}")
        rgb = self._models.of_blob(header, instead=instead).decode(_section(blob, "latents"), header, height, width)
        if "patches" in blob.sections:
            rgb = patches.apply(blob.sections["patches"], rgb)
        picture = Picture(
            header["format"],
            to_grey(rgb) if header["grey"] else rgb,
            header["recipe"],
            unpack_metadata(_section(blob, "metadata"), _claimed_metadata(header)),
            behind.unpack(blob.sections["behind"], int(header["behind_size"])) if "behind" in blob.sections else b"",
            alpha.unpack(blob.sections["alpha"], height, width) if "alpha" in blob.sections else None,
        )
        if blob.preamble.rendered_size > largest_render(picture):
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


def _marker_of(blob: bytes) -> bytes | None:
    try:
        return marker_of(container.parse(blob).header)
    except (SdfsError, LookupError):
        return None


def pack_exact(data: bytes, reason: str) -> bytes:
    """A blob that keeps every bit of a file."""
    kind, payload = wrap_exact(data)
    header = {
        **origin(data),
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
