"""bench.gpu, where there is no GPU: tiny tiles on the CPU."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench.gpu.__main__ import main
from bench.gpu.measure import QUICK
from bench.gpu.models import FORMATS, LINEAR_FLOP
from sdfs.codec.autoencoders.lapped import BANDS, COMPONENTS, FACTOR
from sdfs.codec.autoencoders.layout import DETAIL
from sdfs.codec.autoencoders.restoration import Restoration
from sdfs.codec.autoencoders.runner import LARGEST_ERROR


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    path = tmp_path_factory.mktemp("bench") / "gpu.json"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where other programs run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench.gpu", "--device", "cpu", "--quick", "--json", str(path)])
        main()
    yield json.loads(path.read_text())
    torch.set_num_threads(threads)


def test_every_network_is_timed_in_every_format_at_every_size(report: dict[str, Any]) -> None:
    timed = {(s["model"], s["network"], s["format"], s["tile"], s["batch"]) for s in report["speeds"]}
    formats = [format.name for format in FORMATS]
    assert timed == {
        (model, *rest)
        for model, tiles in QUICK.tiles.items()
        for rest in itertools.product(("encoder", "decoder"), formats, tiles, QUICK.batches)
    }


def test_the_operations_are_those_of_the_layers(report: dict[str, Any]) -> None:
    """And of the transform's blocks, filters and colours."""
    (side,) = QUICK.tiles["bundled"]
    positions = side // FACTOR
    restoration, counted = Restoration(), [0]
    for layer in restoration.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, out: counted.append(2 * layer.weight.numel() * out.shape[2] * out.shape[3]))
    short, one = torch.zeros(1, positions, positions, dtype=torch.bool), torch.ones(1)
    restoration(torch.zeros(1, COMPONENTS, side, side), torch.zeros(1, DETAIL, positions, positions), short, one, one)
    borders = 2 * (positions - 1) * side * FACTOR  # samples beside borders between rows, and between columns
    transform = 2 * COMPONENTS * (side**2 * (BANDS + COMPONENTS) + borders * 2 * FACTOR)
    found = {(s["network"], s["flop"] / s["batch"]) for s in report["speeds"] if s["model"] == "bundled"}
    assert found == {("encoder", transform), ("decoder", transform + sum(counted))}
    assert transform <= LINEAR_FLOP * side**2


def test_every_format_has_a_ceiling(report: dict[str, Any]) -> None:
    assert list(report["ceilings"]) == [format.name for format in FORMATS]
    assert min(report["ceilings"].values()) > 0


def test_float32_is_no_different_from_itself(report: dict[str, Any]) -> None:
    assert {d["levels"] for d in report["differences"] if d["format"] == "fp32"} == {0.0}


def test_16_bits_differ_from_float32_by_less_than_the_engine_allows(report: dict[str, Any]) -> None:
    levels = {
        (d["network"], d["format"]): d["levels"]
        for d in report["differences"]
        if d["model"] == "bundled" and d["format"] in ("bf16", "fp16")
    }
    assert levels["encoder", "bf16"] == levels["encoder", "fp16"] == 0  # no network
    assert 0 < levels["decoder", "bf16"] < LARGEST_ERROR
    assert 0 < levels["decoder", "fp16"] < LARGEST_ERROR


def test_what_is_not_measured_is_said(report: dict[str, Any]) -> None:
    assert report["skipped"] == ["compile, graph: measured on CUDA devices only"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_it_says_how_to_try_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.gpu"])
    with pytest.raises(SystemExit, match="--device cpu --quick"):
        main()
