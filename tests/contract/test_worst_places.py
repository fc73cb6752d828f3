"""No block of a picture comes back worse than its quality promises, whatever the picture and whatever the autoencoder does to it."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT
from sdfs.codec.autoencoders import lapped, layout
from sdfs.codec.autoencoders.layout import DETAIL_CHANNELS, Latents
from sdfs.codec.autoencoders.restoration import Restoration
from sdfs.codec.autoencoders.runner import BundledAutoencoder
from sdfs.codec.codec import Codec
from sdfs.codec.quality.scores import Bound, Scores, worst_place
from sdfs.settings import DEFAULTS, EncodeSettings

Pixels = NDArray[np.uint8]
QUALITIES = (0, 25, 50, 75, 90, 100)
LEAST = Scores(DEFAULTS.min_psnr, DEFAULTS.min_ms_ssim)
SIDE = 96  # pixels, of a drawing
SATURATED = [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(h / 16, 1, v)) for h in range(16) for v in (0.25, 0.5, 0.75, 1)]
SEARCHES = 40  # of three pictures each


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec("cpu")


def ground(colour: tuple[int, ...], side: int = SIDE) -> Pixels:
    return np.full((side, side, 3), colour, np.uint8)


def drawings(first: tuple[int, ...], second: tuple[int, ...], side: int) -> Iterator[tuple[str, Pixels]]:
    """Of two colours, one fact each."""
    y, x = np.mgrid[:side, :side]

    def where(mask: NDArray[np.bool_]) -> Pixels:
        return np.where(mask[..., None], np.array(second, np.uint8), ground(first, side))

    yield "two halves", where(x >= side // 2)
    yield "a step off the grid", where(y >= side // 2 + 3)
    yield "a slanting edge", where(2 * x + y > 1.4 * side)
    for cell in (1, 2, 4, 8, 16):
        yield f"a checker of {cell}", where((x // cell + y // cell) % 2 == 0)
    yield "a line", where(y == side - 12)
    yield "a slanting line", where((x + 3 * y) // 3 == side - 20)
    yield "dots", where((x % 29 == 11) & (y % 31 == 7))
    yield "a dot", where((x == 8) & (y == side - 9))
    part = (x / (side - 1))[..., None]
    yield "a ramp", np.rint(np.array(first) * (1 - part) + np.array(second) * part).astype(np.uint8)
    yield "steps", np.rint(np.array(first) * (1 - part // 0.125 / 8) + np.array(second) * (part // 0.125 / 8)).astype(np.uint8)


def with_photo(drawing: Pixels, photo: Pixels) -> Pixels:
    """In the upper right: the file is then large enough to become latents."""
    picture, side = drawing.copy(), len(drawing) // 2
    picture[: side - 5, side + 3 :] = photo[60 : 60 + side - 5, 150 : 150 + side - 3]
    return picture


def png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def check(codec: Codec, pixels: Pixels, quality: int) -> bool:
    """Whether it became latents; asserts that a reader gets what was promised."""
    source = png(pixels)
    blob = codec.encode(source, EncodeSettings(quality))
    read = codec.decode(blob)
    parsed = container.parse(blob)
    if parsed.preamble.kind != KIND_LATENT:
        assert read == source
        return False
    with Image.open(io.BytesIO(read)) as picture:
        place = worst_place(pixels, np.asarray(picture), Bound.asked(quality, LEAST))
    assert place.excess <= 1, place
    assert place.as_dict().items() <= parsed.header["scores"].items()
    return True


def test_drawings_are_within_the_bound_or_kept_exactly(codec: Codec, photo: Pixels) -> None:
    flat = [ground(colour) for colour in ((0, 0, 0), (127, 127, 127), (128, 128, 128), (255, 255, 255), (255, 0, 0), (0, 128, 0))]
    drawn = [drawing for _, drawing in drawings((255, 255, 255), (20, 60, 160), SIDE)]
    became = [check(codec, with_photo(drawing, photo), q) for q in (25, 90) for drawing in (*flat, *drawn)]
    assert any(became)
    assert not all(became)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("quality", QUALITIES)
def test_every_grey_and_saturated_colour_is_within_the_bound_or_kept_exactly(codec: Codec, photo: Pixels, quality: int) -> None:
    colours = [*((grey,) * 3 for grey in range(256)), *SATURATED]
    assert len(colours) == 256 + 64
    assert sum(check(codec, with_photo(ground(colour), photo), quality) for colour in colours)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("quality", QUALITIES)
def test_every_drawing_is_within_the_bound_or_kept_exactly(codec: Codec, photo: Pixels, quality: int) -> None:
    pairs = [
        ((255,) * 3, (0,) * 3),
        ((127,) * 3, (255, 0, 0)),
        ((200, 220, 240), (10, 60, 200)),
        ((0, 0, 0), (20, 20, 20)),
        ((120,) * 3, (136,) * 3),
    ]
    for first, second in pairs:
        for _, drawing in drawings(first, second, 2 * SIDE):
            check(codec, with_photo(drawing, photo), quality)


@pytest.mark.parametrize("at", [(0, 0), (40, 70), (99, 131)])
def test_what_an_autoencoder_spoils_in_one_place_another_coder_codes(
    at: tuple[int, int], codec: Codec, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of the whole picture do not see it."""
    decode = BundledAutoencoder.decode

    def spoiling(self: BundledAutoencoder, latents: Latents, quality: int, height: int, width: int) -> Pixels:
        decoded = decode(self, latents, quality, height, width).copy()
        decoded[at[0] : at[0] + 9, at[1] : at[1] + 9] = (255, 0, 0)
        return decoded

    monkeypatch.setattr(BundledAutoencoder, "decode", spoiling)
    source = png(photo[:108, 100:240])
    blob = codec.encode(source, EncodeSettings(75))
    assert container.parse(blob).header.get("autoencoder") in (None, "avif", "jpegxl")
    with Image.open(io.BytesIO(codec.decode(blob))) as picture:
        assert worst_place(photo[:108, 100:240], np.asarray(picture), Bound.asked(75, LEAST)).excess <= 1


def test_what_is_spoilt_at_one_quality_only_is_tried_at_another(codec: Codec, photo: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = BundledAutoencoder.decode

    def spoiling(self: BundledAutoencoder, latents: Latents, quality: int, height: int, width: int) -> Pixels:
        decoded = decode(self, latents, quality, height, width).copy()
        decoded[:20, :20] = decoded[:20, :20] if quality > 60 else 0
        return decoded

    monkeypatch.setattr(BundledAutoencoder, "decode", spoiling)
    blob = container.parse(codec.encode(png(photo[:108, 100:240]), EncodeSettings(60)))
    assert (blob.preamble.kind, blob.header["quality"]) == (KIND_LATENT, 72)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_search_for_the_worst_picture_finds_none_beyond_the_bound(codec: Codec, photo: Pixels, weights: dict[str, torch.Tensor]) -> None:
    """By gradient ascent on the error of a block, from drawings, photos and noise; every few steps the picture is stored."""
    restoration = Restoration().requires_grad_(False)
    prefix = "restoration."
    restoration.load_state_dict({k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)})
    random = np.random.default_rng(0)
    for _ in range(SEARCHES):
        colours = random.integers(0, 256, (2, 3))
        starts = [drawing for _, drawing in drawings(tuple(colours[0]), tuple(colours[1]), SIDE)]
        start = with_photo(starts[random.integers(len(starts))], photo)
        noisy = start + random.normal(0, random.choice([0, 1, 8]), start.shape)
        pixels = torch.from_numpy(noisy.clip(0, 255)).float().permute(2, 0, 1)[None].requires_grad_()
        quality, (top, left) = int(random.choice(QUALITIES)), random.integers(0, SIDE - 16, 2)
        q = torch.tensor([layout.fineness(quality)])
        step, steps = torch.exp2(layout.log2_step(q)), torch.exp2(layout.log2_steps(q))[:, :, None, None]
        for round_ in range(9):
            if round_ % 4 == 0:
                stored = pixels.detach()[0].permute(1, 2, 0).numpy().round().astype(np.uint8)
                check(codec, stored, quality)
            components = lapped.to_components(pixels)
            short = lapped.choose(components.detach(), step)
            latents = layout.to_channels(lapped.forward(components, short)) / steps
            quantised = latents + (latents.round() - latents).detach()
            linear = lapped.inverse(layout.to_coefficients(quantised * steps), short)
            decoded = lapped.to_rgb(restoration(linear, quantised[:, DETAIL_CHANNELS], short, step, q))
            block = (decoded - pixels)[..., top : top + 16, left : left + 16]
            (gradient,) = torch.autograd.grad(block.square().sum(), pixels)
            with torch.no_grad():
                pixels.add_(gradient.sign() * random.choice([1, 4])).clamp_(0, 255)
