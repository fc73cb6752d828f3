"""What every autoencoder promises. The bundled one, with the package's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sdfs.autoencoders import Autoencoder, runner
from sdfs.autoencoders.bundled import CHANNELS, FACTOR, HALO, Decoder, Encoder, lapped_basis
from sdfs.autoencoders.tiles import spans


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


def test_tiles_leave_no_seams(autoencoder: Autoencoder, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = autoencoder.encode(photo, 50)
    decoded = autoencoder.decode(whole, 50, *photo.shape[:2])
    monkeypatch.setattr(runner, "TILE", 4)
    tiled = autoencoder.encode(photo, 50)
    assert np.abs(tiled - whole).max() < 0.5
    difference = autoencoder.decode(whole, 50, *photo.shape[:2]).astype(int) - decoded
    assert np.abs(difference).max() <= 1


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
        torch.testing.assert_close(decoder.linear(latents)[..., inner, inner], plain[..., inner, inner], atol=1e-4, rtol=1e-4)


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
