"""The integers that a blob decodes to are the same however they are computed; pixels are nearly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import resources

import numpy as np
import pytest
import torch

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, Blob
from sdfs.blob.metadata import pack_metadata
from sdfs.codec.autoencoders import lapped, layout
from sdfs.codec.autoencoders.interface import Pixels
from sdfs.codec.autoencoders.layout import CHANNELS, Analysed, Latents
from sdfs.codec.autoencoders.runner import LARGEST_ERROR, TILE, BundledAutoencoder
from sdfs.codec.codec import Codec
from sdfs.codec.coding import learned_coder
from sdfs.codec.coding.generic_coder import GenericCoder
from sdfs.codec.coding.learned_coder import LearnedCoder, Worth
from sdfs.codec.resident.model import latents_crc32
from sdfs.settings import Effort, EncodeSettings
from tests.support.threads import threads
from tests.vectors import reference
from tests.vectors.make import picture
from tests.vectors.reference import Weights, decode_latents
from tests.vectors.test_generic_golden import GOLDEN as SECTIONS
from tests.vectors.test_generic_golden import section
from tests.vectors.test_golden import LATENT, WEIGHTS, blob

CPU = torch.device("cpu")
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@contextmanager
def denormals_flushed() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def without_onednn() -> Iterator[None]:
    (before, *_) = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before)


WAYS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "1 thread": lambda: threads(1),
    "2 threads": lambda: threads(2),
    "4 threads": lambda: threads(4),
    "without oneDNN": without_onednn,
    "denormals flushed": denormals_flushed,
    "for training": torch.enable_grad,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    with WAYS[request.param]():
        yield


def decoded(coder: LearnedCoder, blob: Blob) -> Latents:
    rows, columns = (-(-blob.header[side] // 16) for side in ("height", "width"))
    return coder.decode(blob.sections["latents"], rows, columns, blob.header["quality"])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", LATENT)
def test_a_golden_blob_holds_the_same_integers(name: str, coder: LearnedCoder) -> None:
    golden = container.parse(blob(name))
    assert decoded(coder, golden).crc32() == golden.header["latents_crc32"]


@pytest.mark.usefixtures("way")
def test_golden_sections_of_other_autoencoders_hold_the_same_integers() -> None:
    coder = GenericCoder()
    for name, golden in SECTIONS.items():
        assert latents_crc32(coder.decode(section(name), *golden["shape"])) == golden["latents_crc32"], name


def test_blobs_decoded_at_once_hold_the_same_integers(coder: LearnedCoder) -> None:
    blobs = [container.parse(blob(name)) for name in LATENT] * 4
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda blob: decoded(coder, blob).crc32(), blobs)
        assert list(found) == [blob.header["latents_crc32"] for blob in blobs]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("quality", [0, 45, 100])
def test_a_decoder_elsewhere_gets_what_the_encoder_said(quality: int, coder: LearnedCoder) -> None:
    analysed = spread_latents(11, 9)
    data, latents = coder.encode(analysed, quality, even(11, 9))
    with threads(1):
        assert coder.decode(data, 11, 9, quality).crc32() == latents.crc32()


def spread_latents(rows: int, columns: int) -> Analysed:
    """Of all magnitudes, more of the small ones."""
    random = np.random.default_rng(2)
    latents = (random.normal(size=(rows, columns, CHANNELS)) ** 5 * 20).astype(np.float32)
    return Analysed(latents, random.random((rows, columns)) < 0.4)


def even(rows: int, columns: int) -> Worth:
    return np.full((rows, columns), 4, np.float32)


def assert_reference_agrees(coder: LearnedCoder, analysed: Analysed, quality: int) -> None:
    rows, columns = analysed.short.shape
    data, latents = coder.encode(analysed, quality, even(rows, columns))
    checksum = latents.crc32()
    header = {"height": 16 * rows, "width": 16 * columns, "quality": quality, "latents_crc32": checksum, "metadata_size": 0}
    packed = container.pack(KIND_LATENT, 0, header, {"latents": data, "metadata": pack_metadata(b"")})
    with resources.as_file(WEIGHTS) as path:
        _, values, short = decode_latents(packed, Weights(path))
    np.testing.assert_array_equal(np.array(values).transpose(1, 2, 0), latents.values)
    np.testing.assert_array_equal(short, latents.short)


def test_the_reference_decoder_puts_slices_together_in_the_same_way(coder: LearnedCoder, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (learned_coder, reference):
        monkeypatch.setattr(module, "SLICE", 4)
    assert_reference_agrees(coder, spread_latents(5, 6), 50)


def test_the_reference_decoder_clamps_and_escapes_in_the_same_way(coder: LearnedCoder) -> None:
    analysed = spread_latents(3, 4)
    analysed.latents[1, 2, [0, 5, 31, 132, 300]] = 1e9, -1e9, 3e4, -3e4, 1e9
    assert_reference_agrees(coder, analysed, 100)


@pytest.mark.parametrize("quality", [1, 33, 84, 85])
def test_the_reference_decoder_reads_any_quality(coder: LearnedCoder, quality: int) -> None:
    """Whose tables lie between levels."""
    assert_reference_agrees(coder, spread_latents(2, 3), quality)


def test_tables_are_those_of_the_reference_decoder_at_every_quality(coder: LearnedCoder, weights: dict[str, torch.Tensor]) -> None:
    names = [name.removeprefix("prior.").removesuffix(".levels") for name in weights if name.endswith(".levels")]
    with resources.as_file(WEIGHTS) as path:
        reference_weights = Weights(path)
    for name in names:
        table = coder._prior.get_submodule(name)
        for quality in range(layout.QUALITIES):
            q = layout.fineness(quality)
            assert q == reference.fineness(quality)
            found = table(torch.tensor([q])).flatten() * 256
            assert found.tolist() == reference_weights.table_8(name, q), (name, quality)


@pytest.mark.parametrize("quality", [20, 90])
def test_the_reference_decoder_undoes_the_transform(quality: int) -> None:
    random = np.random.default_rng(3)
    values, short = random.integers(-300, 300, (CHANNELS, 3, 4)), random.random((3, 4)) < 0.5
    steps = torch.exp2(layout.log2_steps(torch.tensor([layout.fineness(quality)])))[:, :, None, None]
    coefficients = layout.to_coefficients(torch.from_numpy(values)[None].float() / 16 * steps)
    found = lapped.inverse(coefficients, torch.from_numpy(short)[None])[0].numpy()
    np.testing.assert_allclose(found, reference.components(values.tolist(), short.tolist(), quality), atol=2e-6 * np.abs(found).max())


@pytest.mark.parametrize(("made_with", "read_with"), [("bfloat16", "float32"), ("float32", "bfloat16")])
@pytest.mark.parametrize("effort", Effort)
def test_a_blob_made_in_one_number_format_is_read_in_another(made_with: str, read_with: str, effort: Effort) -> None:
    """Its checksum over the integers would fail otherwise."""
    data = picture("odd", "PNG")
    packed = Codec("cpu", made_with).encode(data, EncodeSettings(50, effort=effort))
    assert container.parse(packed).preamble.kind == KIND_LATENT
    assert len(Codec("cpu", read_with).decode(packed)) == len(data)


NETWORKS: dict[str, tuple[torch.dtype, int, Callable[[], AbstractContextManager[object]], int]] = {  # …, what may differ
    "tiles of 2": (torch.float32, 2, nullcontext, 1),
    "4 threads": (torch.float32, TILE, lambda: threads(4), 1),
    "without oneDNN": (torch.float32, TILE, without_onednn, 1),
    "bfloat16": (torch.bfloat16, TILE, nullcontext, LARGEST_ERROR),
    "bfloat16, tiles of 2": (torch.bfloat16, 2, nullcontext, LARGEST_ERROR),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_pixels_are_nearly_the_same(
    network: str, autoencoder: BundledAutoencoder, coder: LearnedCoder, weights: dict[str, torch.Tensor]
) -> None:
    dtype, tile, way, allowed = NETWORKS[network]
    other = BundledAutoencoder(weights, "", CPU, dtype, tile=tile)
    for name in LATENT:
        wanted = pixels(autoencoder, coder, name).astype(int)
        with way():
            assert np.abs(pixels(other, coder, name) - wanted).max() <= allowed


def pixels(autoencoder: BundledAutoencoder, coder: LearnedCoder, name: str) -> Pixels:
    golden = container.parse(blob(name))
    height, width, quality = (golden.header[key] for key in ("height", "width", "quality"))
    return autoencoder.decode(decoded(coder, golden), quality, height, width)


@on_cuda
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_blob_made_on_one_device_is_read_on_another(devices: tuple[str, str], dtype: str) -> None:
    data = picture("face", "PNG")
    packed = Codec(devices[0], dtype).encode(data, EncodeSettings(50))
    assert len(Codec(devices[1], dtype).decode(packed)) == len(data)


@on_cuda
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1), (torch.bfloat16, LARGEST_ERROR), (torch.float16, LARGEST_ERROR)])
def test_pixels_are_nearly_the_same_on_a_gpu(
    dtype: torch.dtype, allowed: int, autoencoder: BundledAutoencoder, coder: LearnedCoder, weights: dict[str, torch.Tensor]
) -> None:
    other = BundledAutoencoder(weights, "", torch.device("cuda"), dtype)
    for name in LATENT:
        assert np.abs(pixels(other, coder, name).astype(int) - pixels(autoencoder, coder, name)).max() <= allowed
