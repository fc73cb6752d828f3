"""Sections of latents that must decode to the same integers, whatever changes."""

from __future__ import annotations

import json
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from sdfs.codec.coding.generic_coder import GenericCoder, Head
from tests.vectors import generic_reference
from tests.vectors.reference import Weights, leb128

HERE = Path(__file__).parent / "generic"
GOLDEN = json.loads((HERE / "index.json").read_text())
WEIGHTS = resources.files("sdfs").joinpath("codec/weights/generic.safetensors")


@pytest.fixture(scope="module")
def coder() -> GenericCoder:
    return GenericCoder()


@pytest.fixture(scope="module")
def weights() -> Weights:
    with resources.as_file(WEIGHTS) as path:
        return Weights(path)


def section(name: str) -> bytes:
    return (HERE / f"{name}.section").read_bytes()


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_section_decodes_to_its_latents(coder: GenericCoder, name: str) -> None:
    quantised = coder.decode(section(name), *GOLDEN[name]["shape"])
    assert zlib.crc32(quantised.astype("<i2").tobytes()) == GOLDEN[name]["latents_crc32"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_reference_decoder_reads_the_same_latents(coder: GenericCoder, weights: Weights, name: str) -> None:
    shape = GOLDEN[name]["shape"]
    reference = generic_reference.decode_section(section(name), weights, *shape)
    np.testing.assert_array_equal(coder.decode(section(name), *shape), np.array(reference))


@pytest.mark.parametrize("name", GOLDEN)
def test_the_reference_decoder_has_the_same_steps_and_rotation(name: str) -> None:
    channels = GOLDEN[name]["shape"][0]
    reference = generic_reference.Head(section(name), channels)
    head, length = Head.parse(section(name), channels)
    assert length == reference.length
    np.testing.assert_allclose(head.undo(np.eye(channels, dtype=np.float32)), reference.matrix(), atol=1e-5)


def test_the_golden_sections_have_all_flags() -> None:
    assert {section(name)[0] for name in GOLDEN} == {0, 1, 2, 3}


def test_a_golden_section_has_escapes() -> None:
    data, at = section("outliers"), Head.parse(section("outliers"), 2)[1]
    assert leb128(data, leb128(data, at)[1])[0] > 0
