"""Speed, operations, memory and differences, on one device."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.autoencoder_cost import SD_1
from bench.gpu.models import EXACT, FORMATS, TF32, Format, Model, Network, autoencoder_kl, bundled, inputs

CONTRAST = 0.25  # standard deviation of a photo of 0 … 1
LEAST_ROUNDS, ENOUGH_SECONDS = 3, 3.0
_MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    matrix: int  # the side of those that give the ceiling
    tiles: dict[str, tuple[int, ...]]  # pixels, per side
    batches: tuple[int, ...]
    rounds: int
    kl: dict[str, Any]  # the configuration of the AutoencoderKL


FULL = Sizes(8192, {"bundled": (512, 1024, 1536), "AutoencoderKL": (512, 1024)}, (1, 4, 8), 11, SD_1)
QUICK = Sizes(
    64,
    {"bundled": (32,), "AutoencoderKL": (16,)},
    (1, 2),
    1,
    SD_1 | {"block_out_channels": (8,) * 4, "norm_num_groups": 4, "layers_per_block": 1},
)


@dataclass(frozen=True)
class Speed:
    model: str
    network: str  # encoder, decoder
    mode: str  # eager, compile, graph
    format: str
    tile: int  # pixels, per side
    batch: int
    seconds: float
    megapixels_a_second: float
    flop: float
    share: float  # of what the matrix units reach
    working_mib: float | None  # the peak of the device's memory, beyond weights and input


@dataclass(frozen=True)
class Difference:
    model: str
    network: str
    format: str
    levels: float  # the largest, of 0 … 255
    psnr: float  # dB


@dataclass
class Report:
    device: str
    torch: str
    ceilings: dict[str, float] = field(default_factory=dict)  # FLOP/s, by format
    speeds: list[Speed] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Bench:
    def __init__(self, device: torch.device, sizes: Sizes) -> None:
        self._device, self._sizes, self._cuda = device, sizes, device.type == "cuda"
        self.report = Report(torch.cuda.get_device_name(device) if self._cuda else device.type, torch.__version__)

    def run(self) -> Report:
        for format in FORMATS:
            with format.set():
                self.report.ceilings[format.name] = self._ceiling(format.dtype)
        if not self._cuda:
            self.report.skipped.append("compile, graph: measured on CUDA devices only")
        self._measure("bundled", partial(bundled, self._device))
        self._measure("AutoencoderKL", partial(autoencoder_kl, self._device, config=self._sizes.kl))
        return self.report

    def _measure(self, name: str, make: Callable[[Format], Model]) -> None:
        exact = make(EXACT)
        given = {side: inputs(exact, self._device, side, max(self._sizes.batches)) for side in self._sizes.tiles[name]}
        for format in FORMATS:
            with format.set():
                try:
                    model = make(format)
                except ValueError as error:
                    self.report.skipped.append(str(error))
                    continue
                pixels, latents = next(iter(given.values()))
                self._compare(name, format, exact, model, pixels[:1], latents[:1])
                for side, (pixels, latents) in given.items():
                    self._speeds((name, "encoder"), format, model.encoder, pixels, side, model.linear_flop)
                    self._speeds((name, "decoder"), format, model.decoder, latents, side, model.linear_flop)

    def _speeds(self, what: tuple[str, str], format: Format, call: Network, x: Tensor, side: int, linear_flop: float) -> None:
        for batch in self._sizes.batches:
            self._speed((*what, "eager"), format, lambda _: call, x[:batch], side, linear_flop)
        if self._cuda and format == FORMATS[0]:  # what the engine uses there
            self._speed((*what, "compile"), format, lambda _: _compiled(call), x[:1], side, linear_flop)
            self._speed((*what, "graph"), format, lambda x: _graph(call, x), x[:1], side, linear_flop)

    @torch.inference_mode()
    def _speed(
        self, what: tuple[str, str, str], format: Format, prepare: Callable[[Tensor], Network], x: Tensor, side: int, linear_flop: float
    ) -> None:
        pixels = len(x) * side * side
        try:
            flop = _flop(prepare(x), x) if what[2] == "eager" else self._flop_of(what, side)
            seconds, working_mib = self._seconds(prepare, x)
        except Exception as error:  # a compiler may not be there, or memory not suffice: the others count
            reason = next(iter(str(error).strip().splitlines()), "")
            self.report.skipped.append(f"{', '.join(what)}, {format.name}, {side}, batch {len(x)}: {type(error).__name__}: {reason}")
            return
        exact_flop = min(flop, linear_flop * pixels)
        exact = self.report.ceilings[(TF32 if format.tf32 else EXACT).name]
        least_seconds = exact_flop / exact + (flop - exact_flop) / self.report.ceilings[format.name]
        self.report.speeds.append(
            Speed(
                *what,
                format=format.name,
                tile=side,
                batch=len(x),
                seconds=seconds,
                megapixels_a_second=pixels / 1e6 / seconds,
                flop=flop,
                share=least_seconds / seconds,
                working_mib=working_mib,
            )
        )

    def _flop_of(self, what: tuple[str, str, str], side: int) -> float:
        """Of the same network, eager: a graph's and a compiler's cannot be counted."""
        return next(s.flop for s in self.report.speeds if (s.model, s.network, s.tile, s.batch) == (*what[:2], side, 1))

    @torch.inference_mode()
    def _compare(self, name: str, format: Format, exact: Model, model: Model, pixels: Tensor, latents: Tensor) -> None:
        decoded, encoded = model.decoder(latents), model.encoder(pixels)
        with EXACT.set():
            pairs = {
                "decoder": (decoded, exact.decoder(latents)),
                "encoder": (exact.decoder(encoded), exact.decoder(exact.encoder(pixels))),
            }
        for network, (picture, wanted) in pairs.items():
            scale = 255 if name == "bundled" else 255 * CONTRAST / float(wanted.std())
            levels = ((picture - wanted) * scale).double()
            psnr = 10 * math.log10(255**2 / max(float(levels.square().mean()), 1e-12))
            self.report.differences.append(Difference(name, network, format.name, float(levels.abs().max()), psnr))

    @torch.inference_mode()
    def _ceiling(self, dtype: torch.dtype) -> float:
        """FLOP/s of a large matrix product."""
        side = self._sizes.matrix
        a, b = (torch.randn(side, side, device=self._device).to(dtype) for _ in range(2))
        return 2 * side**3 / self._seconds(lambda _: lambda x: x @ b, a)[0]

    def _seconds(self, prepare: Callable[[Tensor], Network], x: Tensor) -> tuple[float, float | None]:
        """The median, and the memory it takes, in MiB."""
        before = 0
        if self._cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
        call = prepare(x)
        taken: list[float] = []
        for _ in range(2):  # the first one warms up
            taken.clear()
            while len(taken) < min(LEAST_ROUNDS, self._sizes.rounds) or (len(taken) < self._sizes.rounds and sum(taken) < ENOUGH_SECONDS):
                self._wait()
                begin = time.perf_counter()
                call(x)
                self._wait()
                taken.append(time.perf_counter() - begin)
        peak = (torch.cuda.max_memory_allocated(self._device) - before) / _MIB if self._cuda else None
        return statistics.median(taken), peak

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._device)


def _flop(call: Network, x: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        call(x)
    return float(counter.get_total_flops())


def _compiled(call: Network) -> Network:
    torch.compiler.reset()  # else what was compiled for other tiles and formats counts towards a limit, beyond which nothing is
    compiled: Network = torch.compile(call, dynamic=False)
    return compiled


def _graph(call: Network, x: Tensor) -> Network:
    """Replays what `call` does with `x`, whatever it is given."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(LEAST_ROUNDS):
            call(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(x)

    def replay(_: Tensor) -> Tensor:
        graph.replay()
        return result

    return replay
