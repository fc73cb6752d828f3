"""Blobs that must decode, and blobs that must be refused, whatever changes."""

from __future__ import annotations

import hashlib
import io
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdfs import errors
from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT
from sdfs.codec.codec import Codec
from sdfs.codec.coding.learned_coder import LearnedCoder
from tests.vectors.reference import Weights, decode_latents

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text())
BAD = json.loads((HERE / "bad.json").read_text())
LATENT = [name for name in GOLDEN if name.startswith("latent")]
WEIGHTS = resources.files("sdfs").joinpath("codec/weights/bundled.safetensors")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return Codec(device="cpu", dtype=request.param)


def blob(name: str) -> bytes:
    return (HERE / "golden" / f"{name}.sdfs").read_bytes()


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_blob_renders_at_its_size(codec: Codec, name: str) -> None:
    render = codec.decode(blob(name))
    assert len(render) == GOLDEN[name]["rendered_size"]
    if GOLDEN[name]["sha256"]:
        assert hashlib.sha256(render).hexdigest() == GOLDEN[name]["sha256"]


@pytest.mark.parametrize("name", LATENT)
def test_a_golden_render_is_a_picture_of_its_size(codec: Codec, name: str) -> None:
    header = container.parse(blob(name)).header
    with Image.open(io.BytesIO(codec.decode(blob(name)))) as picture:
        picture.load()
        assert picture.size == (header["width"], header["height"])


@pytest.mark.parametrize("name", LATENT)
def test_the_reference_decoder_reads_the_same_latents(name: str) -> None:
    from safetensors.torch import load

    with resources.as_file(WEIGHTS) as path:
        header, reference, short = decode_latents(blob(name), Weights(path))
        coder = LearnedCoder(load(path.read_bytes()))
    parsed = container.parse(blob(name))
    assert parsed.preamble.kind == KIND_LATENT
    rows, columns = -(-header["height"] // 16), -(-header["width"] // 16)
    latents = coder.decode(parsed.sections["latents"], rows, columns, header["quality"])
    np.testing.assert_array_equal(latents.values, np.array(reference).transpose(1, 2, 0))
    np.testing.assert_array_equal(latents.short, np.array(short, bool))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_blob_is_refused(codec: Codec, name: str) -> None:
    with pytest.raises(getattr(errors, BAD[name])):
        codec.decode((HERE / "bad" / f"{name}.sdfs").read_bytes())
