"""A picture's way into a blob and out again."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sdfs.blob import container
from sdfs.blob.container import KIND_JXL, KIND_LATENT, KIND_LZ4, KIND_RAW
from sdfs.codec.codec import Codec
from sdfs.codec.making import LARGEST_SHARE
from sdfs.codec.quality.sample import Sample
from sdfs.codec.quality.scores import Bound, Scores, compare, worst_place
from sdfs.errors import DamagedError, ModelError, NotAPicture, StoreTooNew
from sdfs.settings import EncodeSettings

LATENT_FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 92},
    "PNG": {},
    "WEBP": {"quality": 95},
    "BMP": {},
    "TIFF": {},
}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(device="cpu", dtype="float32")


def saved(pixels: NDArray[np.uint8], pillow_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, pillow_format, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize(
    ("pillow_format", "grey"), [*((name, False) for name in LATENT_FORMATS), ("JPEG", True), ("PNG", True), ("TIFF", True)]
)
def test_a_photo_comes_out_in_its_format(codec: Codec, photo: NDArray[np.uint8], pillow_format: str, grey: bool) -> None:
    pixels = photo[:300, :420]
    source = saved(pixels[..., 1] if grey else pixels, pillow_format, **LATENT_FORMATS[pillow_format])
    blob = container.parse(packed := codec.encode(source, EncodeSettings(50)))
    assert blob.preamble.kind == KIND_LATENT, blob.header
    assert len(packed) <= LARGEST_SHARE * len(source)
    render = codec.decode(packed)
    assert len(render) == blob.preamble.rendered_size == len(source)
    before, after = opened(source), opened(render)
    assert (after.format, after.mode, after.size) == (before.format, before.mode, before.size)
    scores = compare(np.asarray(before), np.asarray(after))
    place = worst_place(np.asarray(before), np.asarray(after), Bound.asked(50, Scores(22.0, 0.94)))
    judged = Sample(np.asarray(before)).judge(np.asarray(after))
    wanted = scores.as_dict() | place.as_dict() | {"score": judged.score}
    assert {name: blob.header["scores"][name] for name in wanted} == pytest.approx(wanted, abs=0.06)
    assert judged.score >= 50
    assert hashlib.sha256(render).hexdigest().startswith(blob.header["render"])


@pytest.mark.parametrize(("pillow_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"})])
@pytest.mark.parametrize("under", [0, 255])
def test_opacity_comes_out_as_it_was(
    codec: Codec, photo: NDArray[np.uint8], pillow_format: str, options: dict[str, Any], under: int
) -> None:
    ramp = np.tile(np.arange(-20, 300).clip(0, 255).astype(np.uint8), (256, 1))
    pixels = np.dstack([np.where(ramp[..., None] > 0, photo[:256, :320], under).astype(np.uint8), ramp])
    source = saved(pixels, pillow_format, **options)
    blob = container.parse(packed := codec.encode(source, EncodeSettings(50)))
    assert blob.preamble.kind == KIND_LATENT, blob.header
    assert len(packed) < len(source) / 4
    render = codec.decode(packed)
    assert len(render) == len(source)
    assert np.array_equal(np.asarray(opened(render))[..., 3], ramp)


def test_a_palette_comes_out_as_it_was(codec: Codec, photo: NDArray[np.uint8]) -> None:
    out = io.BytesIO()
    Image.fromarray(photo[:256, :320]).quantize(256).save(out, "PNG")
    blob = container.parse(packed := codec.encode(out.getvalue(), EncodeSettings(50)))
    assert blob.preamble.kind == KIND_LATENT, blob.header
    render = opened(codec.decode(packed))
    assert (render.mode, render.getpalette()) == ("P", opened(out.getvalue()).getpalette())


def test_a_copy_of_a_render_with_opacity_loses_nothing_again(codec: Codec, photo: NDArray[np.uint8]) -> None:
    ramp = np.tile(np.arange(-20, 300).clip(0, 255).astype(np.uint8), (256, 1))
    source = saved(np.dstack([np.where(ramp[..., None] > 0, photo[:256, :320], 0).astype(np.uint8), ramp]), "PNG")
    blob = codec.encode(source, EncodeSettings(50))
    again = codec.encode(codec.decode(blob), EncodeSettings(50), reference=blob)
    assert container.parse(again).sections["latents"] == container.parse(blob).sections["latents"]


def test_more_metadata_than_a_reader_takes_are_kept_exactly(
    codec: Codec, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdfs.codec.making.MAX_METADATA_BYTES", 20)
    source = saved(photo[:256, :256], "PNG")
    blob = container.parse(codec.encode(source, EncodeSettings(50)))
    assert (blob.preamble.kind, "metadata" in blob.header["reason"]) == (KIND_RAW, True)


def test_more_quality_is_more_bytes_and_a_better_score(codec: Codec, photo: NDArray[np.uint8]) -> None:
    source = saved(photo, "PNG")
    blobs = [codec.encode(source, EncodeSettings(q)) for q in (40, 60, 80)]
    assert [len(b) for b in blobs] == sorted(len(b) for b in blobs)
    scores = [container.parse(b).header["scores"]["psnr"] for b in blobs]
    assert scores == sorted(scores)


def test_a_picture_that_fails_the_gate_gets_more_quality(codec: Codec, photo: NDArray[np.uint8]) -> None:
    grain = np.random.default_rng(0).normal(0, 16, photo.shape)
    grainy = np.clip(photo + grain, 0, 255).astype(np.uint8)
    assert container.parse(codec.encode(saved(grainy, "PNG"), EncodeSettings(30))).header["quality"] > 30


def test_noise_is_kept_exactly(codec: Codec) -> None:
    source = saved(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8), "JPEG", quality=40)
    packed = codec.encode(source, EncodeSettings(50))
    assert container.parse(packed).preamble.kind in (KIND_JXL, KIND_RAW)
    assert codec.decode(packed) == source


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "1"])
def test_pictures_beyond_the_whitelist_are_kept_exactly(codec: Codec, photo: NDArray[np.uint8], mode: str) -> None:
    picture = Image.fromarray(photo[:128, :128])
    picture = Image.new("I;16", (128, 128), 4000) if mode == "I;16" else picture.convert(mode)
    out = io.BytesIO()
    picture.save(out, "TIFF" if mode == "CMYK" else "PNG")
    packed = codec.encode(out.getvalue(), EncodeSettings(50))
    blob = container.parse(packed)
    assert blob.preamble.kind in (KIND_LZ4, KIND_RAW)
    assert blob.header["reason"]
    assert codec.decode(packed) == out.getvalue()


def test_a_jpeg_kept_exactly_is_transcoded(codec: Codec, photo: NDArray[np.uint8]) -> None:
    source = saved(photo[:60, :400], "JPEG", quality=95)  # too small for latents
    packed = codec.encode(source, EncodeSettings(50))
    assert container.parse(packed).preamble.kind == KIND_JXL
    assert codec.decode(packed) == source


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff\xe0 no picture"])
def test_what_is_no_picture_is_refused(codec: Codec, data: bytes) -> None:
    with pytest.raises(NotAPicture):
        codec.encode(data, EncodeSettings(50))


def test_a_truncated_picture_is_refused(codec: Codec, photo: NDArray[np.uint8]) -> None:
    source = saved(photo, "JPEG", quality=90)
    with pytest.raises(NotAPicture):
        codec.encode(source[: len(source) // 2], EncodeSettings(50))


def test_what_is_encoded_and_decoded_at_once_is_the_same_as_one_after_the_other(codec: Codec, photo: NDArray[np.uint8]) -> None:
    source = saved(photo[:256, :256], "JPEG", quality=92)
    blob = codec.encode(source, EncodeSettings(50))
    render = codec.decode(blob)
    with ThreadPoolExecutor(2) as threads:
        encode = threads.submit(codec.encode, source, EncodeSettings(50))
        decodes = [threads.submit(codec.decode, blob) for _ in range(3)]
        assert encode.result() == blob
        assert {decode.result() for decode in decodes} == {render}


@pytest.fixture(scope="module")
def latent_blob(codec: Codec, photo: NDArray[np.uint8]) -> bytes:
    return codec.encode(saved(photo[:96, :128], "PNG"), EncodeSettings(50))


def changed(blob: bytes, section: dict[str, bytes] | None = None, **header: Any) -> bytes:
    """The blob with other header values or sections, and right checksums."""
    parsed = container.parse(blob)
    return container.pack(parsed.preamble.kind, parsed.preamble.rendered_size, parsed.header | header, parsed.sections | (section or {}))


@pytest.mark.parametrize(
    "header",
    [
        {"width": 1 << 30},
        {"height": 1 << 15, "width": 1 << 15},
        {"width": -5},
        {"height": "tall"},
        {"quality": 101},
        {"quality": None},
        {"latents_crc32": 0},
        {"metadata_size": 1 << 50},
        {"metadata_size": -1},
        {"metadata_size": 1},
        {"format": "gif"},
        {"recipe": {}},
        {"recipe": None},
    ],
    ids=str,
)
def test_a_header_that_lies_is_damage(codec: Codec, latent_blob: bytes, header: dict[str, Any]) -> None:
    with pytest.raises(DamagedError):
        codec.decode(changed(latent_blob, **header))


@pytest.mark.parametrize("key", ["original_sha256", "format", "width", "quality", "recipe", "autoencoder", "weights", "grey"])
def test_a_missing_key_is_damage(codec: Codec, latent_blob: bytes, key: str) -> None:
    parsed = container.parse(latent_blob)
    del parsed.header[key]
    with pytest.raises(DamagedError):
        codec.decode(container.pack(KIND_LATENT, parsed.preamble.rendered_size, parsed.header, parsed.sections))


@pytest.mark.parametrize("section", [{"latents": b""}, {"latents": bytes(50)}, {"metadata": b"not deflated"}], ids=str)
def test_a_section_that_is_broken_is_damage(codec: Codec, latent_blob: bytes, section: dict[str, bytes]) -> None:
    with pytest.raises(DamagedError):
        codec.decode(changed(latent_blob, section))


def test_other_weights_are_not_decoded_with_these(codec: Codec, latent_blob: bytes) -> None:
    with pytest.raises(ModelError, match="weights 0123456789abcdef"):
        codec.decode(changed(latent_blob, weights="0123456789abcdef"))


def test_a_rendered_size_that_is_impossible_is_damage(codec: Codec, latent_blob: bytes) -> None:
    parsed = container.parse(latent_blob)
    with pytest.raises(DamagedError):
        codec.decode(container.pack(KIND_LATENT, 100, parsed.header, parsed.sections))


def test_an_exact_blob_of_the_wrong_size_is_damage(codec: Codec) -> None:
    with pytest.raises(DamagedError):
        codec.decode(container.pack(KIND_RAW, 3, {}, {"file": b"four"}))


def test_a_newer_blob_says_so(codec: Codec, latent_blob: bytes) -> None:
    newer = bytearray(latent_blob)
    newer[8] = 2
    with pytest.raises((StoreTooNew, DamagedError)):
        codec.decode(bytes(newer))
