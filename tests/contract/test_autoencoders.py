"""What every autoencoder promises. The bundled one, with the package's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sdfs.autoencoders import Autoencoder
from sdfs.autoencoders.bundled import CELL, CHANNELS, FACTOR, HALO, Decoder, Encoder, corrected, lapped_basis
from sdfs.autoencoders.runner import BundledAutoencoder
from sdfs.autoencoders.tiles import spans

CPU = torch.device("cpu")


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean(np.square(a.astype(float) - b)))))


def test_latents_have_the_promised_shape(autoencoder: Autoencoder, photo: NDArray[np.uint8]) -> None:
    latents = autoencoder.encode(photo[:100, :130], 50)
    assert latents.shape == (autoencoder.channels, -(-100 // autoencoder.factor), -(-130 // autoencoder.factor))
    assert latents.dtype == np.float32


@pytest.mark.parametrize("shape", [(64, 64), (65, 127), (100, 400), (481, 321)])
def test_a_picture_comes_back_in_its_size(autoencoder: Autoencoder, photo: NDArray[np.uint8], shape: tuple[int, int]) -> None:
    picture = photo[: shape[0], : shape[1]]
    decoded = autoencoder.decode(autoencoder.encode(picture, 90), 90, *picture.shape[:2])
    assert decoded.shape == picture.shape
    assert decoded.dtype == np.uint8
    assert psnr(decoded, picture) > 30


def test_a_grey_picture_has_next_to_nothing_in_the_higher_frequencies_of_chroma(autoencoder: Autoencoder, photo: NDArray[np.uint8]) -> None:
    """Where something is left of it after quantisation, there are dashes of green and magenta in the picture."""
    grey = np.repeat(photo[:256, :256, 1:2] // 4, 3, axis=2)
    latents = autoencoder.encode(grey, 20)[corrected(CHANNELS)[:, 0, 0].numpy() == 0]
    assert len(latents) == 51
    assert np.abs(latents).max() < 20  # a step is over 300


def test_tiles_leave_no_seams(autoencoder: Autoencoder, weights: dict[str, torch.Tensor], photo: NDArray[np.uint8]) -> None:
    small, picture = BundledAutoencoder(weights, "", CPU, torch.float32, tile=4), photo[:200, :150]
    whole = autoencoder.encode(picture, 50)
    assert np.abs(small.encode(picture, 50) - whole).max() < 1e-3
    height, width = picture.shape[:2]
    difference = small.decode(whole, 50, height, width).astype(int) - autoencoder.decode(whole, 50, height, width)
    assert np.abs(difference).max() <= 1


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most_positions: int, device: str = "cpu") -> list[int]:
    """The device has no memory for tiles of more than so many latent positions per side. Returns what is tried."""
    tried: list[int] = []
    cells = Decoder.cells

    def limited(self: Decoder, latents: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        tried.append(latents.shape[2])
        if latents.shape[2] > most_positions and latents.device.type == device:
            raise torch.OutOfMemoryError("no memory is left")
        return cells(self, latents, q)

    monkeypatch.setattr(Decoder, "cells", limited)
    return tried


def test_tiles_become_smaller_where_memory_is_short(
    weights: dict[str, torch.Tensor], photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = BundledAutoencoder(weights, "", CPU, torch.float32)
    latents = autoencoder.encode(photo, 50)
    decoded = autoencoder.decode(latents, 50, 512, 512)
    tried = short_of_memory(monkeypatch, 26)
    again = autoencoder.decode(latents, 50, 512, 512)
    assert np.abs(again.astype(int) - decoded).max() <= 1
    assert tried[:4] == [32, 32, 30, 18]  # 512 pixels in tiles of 96, 48, 24 and 12 positions, with halos of 6
    tried.clear()
    autoencoder.decode(latents, 50, 512, 512)
    assert max(tried) <= 26


def test_the_cpu_is_used_where_the_smallest_tile_does_not_fit_on_the_device(
    autoencoder: Autoencoder, weights: dict[str, torch.Tensor], photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 0, "meta")
    latents = autoencoder.encode(photo[:64, :64], 50)
    decoded = BundledAutoencoder(weights, "", torch.device("meta"), torch.float32).decode(latents, 50, 64, 64)
    assert np.abs(decoded.astype(int) - autoencoder.decode(latents, 50, 64, 64)).max() <= 1


def test_memory_that_does_not_suffice_for_the_smallest_tile_is_an_error(
    weights: dict[str, torch.Tensor], photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = BundledAutoencoder(weights, "", CPU, torch.float32)
    short_of_memory(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        autoencoder.decode(autoencoder.encode(photo[:64, :64], 50), 50, 64, 64)


@pytest.mark.parametrize(("noise", "warnings"), [(0.0, 0), (1.0, 1)])
def test_a_number_format_that_is_wrong_here_is_not_used(
    noise: float, warnings: int, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cells = Decoder.cells

    def inexact(self: Decoder, latents: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return cells(self, latents, q) + (noise if self.out.weight.dtype == torch.bfloat16 else 0)

    monkeypatch.setattr(Decoder, "cells", inexact)
    BundledAutoencoder(weights, "", CPU, torch.bfloat16)
    assert [message.endswith("float32 is used") for message in caplog.messages] == [True] * warnings


def test_the_transform_is_orthonormal() -> None:
    basis = lapped_basis(16)
    np.testing.assert_allclose(basis @ basis.T, np.eye(16), atol=1e-12)
    np.testing.assert_allclose(basis[:, :16] @ basis[:, 16:].T, 0, atol=1e-12)  # neighbouring blocks do not see each other


def test_an_untrained_autoencoder_already_transforms() -> None:
    """Smooth pictures survive up to the border, where the latents continue by symmetry."""
    ramp = (torch.linspace(0, 1, 128)[:, None] * torch.linspace(0, 1, 192)).expand(1, 3, 128, 192)
    quality = torch.tensor([50.0])
    with torch.no_grad():
        assert (Decoder()(Encoder()(ramp, quality), quality) - ramp).abs().max() < 1e-3


def test_the_shifted_synthesis_is_the_transposed_convolution() -> None:
    decoder = Decoder()
    latents = torch.randn(1, CHANNELS, 5, 7)
    with torch.no_grad():
        plain = torch.nn.functional.conv_transpose2d(latents, decoder.kernels, stride=FACTOR, padding=8)
        inner = slice(FACTOR, -FACTOR)
        pixels = 255 * torch.nn.functional.pixel_shuffle(decoder.linear(latents), CELL)
        torch.testing.assert_close(pixels[..., inner, inner], plain[..., inner, inner], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("length", "tile", "halo"), [(1, 4, 2), (9, 4, 2), (8, 4, 1), (100, 7, 3)])
def test_spans_cover_everything_once(length: int, tile: int, halo: int) -> None:
    covered = [i for span in spans(length, tile, halo) for i in range(length)[span.inner]]
    assert covered == list(range(length))
    for span in spans(length, tile, halo):
        assert list(range(length)[span.outer])[span.kept] == list(range(length)[span.inner])


def test_no_pixel_depends_on_latents_beyond_the_halo() -> None:
    torch.manual_seed(0)
    decoder = Decoder()
    for layer in decoder.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.05)
    latents = (torch.randn(1, CHANNELS, 15, 15) * 10).requires_grad_()
    block = decoder(latents, torch.tensor([50.0]))[0, :, 7 * FACTOR : 8 * FACTOR, 7 * FACTOR : 8 * FACTOR]
    (gradient,) = torch.autograd.grad(block.square().sum(), latents)
    reach = torch.nonzero(gradient.abs().sum((0, 1)))
    assert reach.min() >= 7 - HALO // FACTOR
    assert reach.max() <= 7 + HALO // FACTOR
