"""A picture on its way into a latent blob: which coder, at which quality, so that what a reader gets keeps the promise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT
from sdfs.blob.metadata import MAX_METADATA_BYTES, pack_metadata
from sdfs.codec.choosing import LETTERS, Asked, Plan, plan, to_rgb
from sdfs.codec.patches import Patch, pack, put
from sdfs.codec.pictures import alpha, behind
from sdfs.codec.pictures.picture import Picture, fit, pixels_of_render, render
from sdfs.codec.quality.sample import SIDE, Corner, Judgement, Sample
from sdfs.codec.quality.scores import LUMA, Bound, Place, Scores, compare, worst_place
from sdfs.codec.quality.text import squares_with_text
from sdfs.codec.resident.image_codecs import AVIF, LOSSLESS
from sdfs.codec.resident.model import HASH_DIGITS, ResidentModel
from sdfs.errors import DoesNotFit, Unsuitable
from sdfs.settings import BUNDLED, Effort, EncodeSettings

LARGEST_SHARE = 0.7  # of the bytes that latents replace, those that they may take
QUALITY_STEP = 5  # a picture that breaks its promise is tried again at so much more quality
QUALITY_TRIES = 3
START, AVIF_START = 74, 50  # qualities that are tried first
PATCH_START = 70
MOST_PATCHED = 0.25  # of a picture's squares: where more have letters, all of it is coded so that they can be read
MOST_LETTERS = 8  # squares of text that are looked at besides the others


class Making:
    """One picture on its way into a blob."""

    def __init__(self, data: bytes, picture: Picture, settings: EncodeSettings, size: int | None = None) -> None:
        """`size`: bytes of a render, where it is not to have the size of `data`."""
        self._data, self._picture, self._settings = data, picture, settings
        self._size = len(data) if size is None else size
        self._asked = Asked(settings.quality)
        self._least = Scores(settings.min_psnr, settings.min_ms_ssim)
        self._bound = Bound.asked(settings.quality, self._least)
        self._kept = kept_sections(picture)
        self._replaced = len(data) - len(picture.behind) - len(picture.metadata)

    def blob(self, model: ResidentModel) -> bytes:
        """The smallest blob that keeps the promise. Raises Unsuitable with the reason why the picture is to stay exact."""
        if self._size > largest_render(self._picture):
            raise Unsuitable(f"{self._size} bytes are more than its pixels need")
        pixels, refusals = self._picture.pixels, []
        sample = Sample(pixels, squares_with_text(pixels, MOST_LETTERS))
        for one in self._plans(model, sample):
            try:
                return self._blob(one, sample)
            except Unsuitable as reason:
                refusals.append(f"{one.coder.id} {reason}")
        raise Unsuitable("; ".join(refusals))

    def _plans(self, model: ResidentModel, sample: Sample) -> list[Plan]:
        """What may code the picture, the fewest bytes first. Raises Unsuitable."""
        if self._settings.model != BUNDLED:
            return [Plan(model, self._settings.quality, 0)]  # no quality of such a model keeps a promise
        coders: list[tuple[ResidentModel, int]] = [(model, START), (AVIF, AVIF_START)]
        patches = self._patches(sample)
        asked = replace(self._asked, letters=not patches)
        found = [plan(coder, sample, asked, self._seen, start) for coder, start in coders]
        plans = [replace(one, patches=patches) for one in found if one is not None]
        if self._picture.is_lossless:
            lossless = LOSSLESS.encode(to_rgb(sample.picture), 0, Effort.FAST)
            plans.append(Plan(LOSSLESS, 100, len(lossless.section) / sample.share))
        if not plans:
            raise Unsuitable(f"no quality gives a score of {self._settings.quality}")
        return sorted(plans, key=lambda one: one.size)

    def _patches(self, sample: Sample) -> tuple[Patch, ...]:
        """Squares with letters, where they are few, so that not all of the picture has to be as good as they."""
        pixels = self._picture.pixels
        if len(sample.letters) > MOST_PATCHED * pixels.shape[0] * pixels.shape[1] / SIDE**2 or len(sample.letters) == MOST_LETTERS:
            return ()
        patches = []
        for corner, square in sample.letters.items():
            asked = Asked(max(self._settings.quality, LETTERS) + 1)
            found = plan(AVIF, Sample(square), asked, self._seen, PATCH_START)
            if found is None:
                return ()
            encoded = AVIF.encode(to_rgb(square), found.quality, self._settings.effort)
            patches.append(Patch(corner, encoded.pixels, encoded.section))
        return tuple(patches)

    def _blob(self, one: Plan, sample: Sample) -> bytes:
        """Raises Unsuitable where what a reader would get is too little, or takes too many bytes."""
        failed = ""
        for attempt in range(QUALITY_TRIES):
            quality = min(100, one.quality + attempt * QUALITY_STEP)
            blob, shortfall = self._tried(one, quality, sample, failed)
            if shortfall is None:
                return blob
            failed = f"{failed}quality {quality} {shortfall}; "
            if quality == 100:
                break
        raise Unsuitable(failed.removesuffix("; "))

    def _tried(self, one: Plan, quality: int, sample: Sample, failed: str) -> tuple[bytes, str | None]:
        """The blob, and what a reader would miss."""
        picture, grey = self._picture, self._picture.pixels.ndim == 2
        coder = one.coder
        encoded = coder.encode(to_rgb(picture.pixels), quality, self._settings.effort)
        decoded, sections = encoded.pixels, {"latents": encoded.section}
        if one.patches:
            decoded, sections["patches"] = put(one.patches, decoded), pack(one.patches)
        share = 1.0 if coder is LOSSLESS else LARGEST_SHARE
        if (taken := sum(map(len, sections.values()))) > share * self._replaced:
            raise Unsuitable(f"{failed}takes {taken} of {self._replaced} bytes at quality {quality}")
        header: dict[str, Any] = {
            **origin(self._data),
            "format": picture.format,
            "width": picture.pixels.shape[1],
            "height": picture.pixels.shape[0],
            "autoencoder": coder.id,
            "weights": coder.weights_sha256[:HASH_DIGITS],
            "asked": self._settings.quality,
            "quality": quality,
            "grey": grey,
            "latents_crc32": encoded.latents_crc32,
            **encoded.header,
        }
        fitted, rendered, seen = render_for(picture, to_grey(decoded) if grey else decoded, self._size, marker_of(header))
        scores, place = compare(picture.pixels, seen), worst_place(picture.pixels, seen, self._bound)
        judged = sample.judge(seen, [Corner(max(0, place.y - SIDE // 2), max(0, place.x - SIDE // 2))])
        header |= {"scores": scores.as_dict() | judged.as_dict() | place.as_dict(), **render_of(fitted, rendered)}
        blob = container.pack(KIND_LATENT, len(rendered), header, sections | self._kept)
        if len(blob) >= len(self._data):
            raise Unsuitable(f"{failed}takes {len(blob)} of {len(self._data)} bytes at quality {quality}")
        return blob, self._shortfall(scores, place, judged)

    def _shortfall(self, scores: Scores, place: Place, judged: Judgement) -> str | None:
        least = self._least
        if scores.psnr < least.psnr or scores.ms_ssim < least.ms_ssim:
            have, want = (f"{one.psnr:.4g} dB, MS-SSIM {one.ms_ssim:.4g}" for one in (scores, least))
            return f"gives PSNR {have}: want {want}"
        if place.excess > 1:
            return f"is {place.excess:.2f} times as far off as it may be {place}"
        if self._settings.model == BUNDLED and self._asked.excess(judged) < 0:
            return f"gives a score of {judged}"
        return None

    def _seen(self, decoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What a reader gets of decoded pixels, of any size."""
        pixels = to_grey(decoded) if self._picture.pixels.ndim == 2 else decoded
        if self._picture.format != "jpeg":  # what others quantise they do not quantise in the same way at another size
            return pixels
        other = replace(self._picture, pixels=pixels, behind=b"")
        return pixels_of_render(render(other, None, b""), other)


def origin(data: bytes) -> dict[str, Any]:
    return {"original_size": len(data), "original_sha256": hashlib.sha256(data).hexdigest()}


def render_of(picture: Picture, rendered: bytes) -> dict[str, Any]:
    known: dict[str, Any] = {
        "recipe": picture.recipe,
        "render": hashlib.sha256(rendered).hexdigest()[:HASH_DIGITS],
        "metadata_size": len(picture.metadata),
    }
    return known | ({"behind_size": len(picture.behind)} if picture.behind else {})


def kept_sections(picture: Picture) -> dict[str, bytes]:
    """The sections of a picture's blob that hold what stays as it was. Raises Unsuitable: no reader takes so much."""
    if len(picture.metadata) > MAX_METADATA_BYTES:
        raise Unsuitable(f"{len(picture.metadata)} bytes of metadata are more than {MAX_METADATA_BYTES}")
    sections = {"metadata": pack_metadata(picture.metadata)}
    if picture.behind:
        sections["behind"] = behind.pack(picture.behind)
    if picture.alpha is not None:
        sections["alpha"] = alpha.pack(picture.alpha)
    return sections


def render_for(picture: Picture, decoded: NDArray[np.uint8], size: int, marker: bytes) -> tuple[Picture, bytes, NDArray[np.uint8]]:
    """The picture as decoded, with the recipe by which its render has `size` bytes; that render; the pixels that a reader of it sees."""
    try:
        fitted, rendered = fit(replace(picture, pixels=decoded), size, marker)
    except DoesNotFit as reason:
        raise Unsuitable(str(reason)) from reason
    return fitted, rendered, pixels_of_render(rendered, picture)


def largest_render(picture: Picture) -> int:
    """No file that becomes latents is larger than this, so that no blob can have a reader allocate more."""
    return 8 * picture.pixels.shape[0] * picture.pixels.shape[1] + len(picture.metadata) + len(picture.behind) + (1 << 16)


def to_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(pixels @ LUMA).astype(np.uint8)


def marker_of(header: Mapping[str, Any]) -> bytes:
    return container.latent_id(header).encode()
