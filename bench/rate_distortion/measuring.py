"""Pictures through the codecs: their curves, and each codec's best within a limit of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.rate_distortion.codecs import Codec, Pixels, codecs
from bench.rate_distortion.scores import Features, Judge, Scores
from sdfs.settings import Effort

SIDE = 512  # pixels, and
LIMIT_BYTES = 4_970  # what Stable Diffusion's latents took for that in 2022 (M. Bühlmann)


@dataclass(frozen=True)
class Result:
    picture: str
    codec: str
    setting: float
    pixels: int
    data: bytes
    scores: Scores

    @property
    def rate(self) -> float:
        """Bits a pixel."""
        return 8 * len(self.data) / self.pixels

    @property
    def fits(self) -> bool:
        return len(self.data) <= LIMIT_BYTES

    def as_dict(self) -> dict[str, Any]:
        where = {"picture": self.picture, "codec": self.codec, "setting": self.setting}
        return where | {"bytes": len(self.data), "bits_per_pixel": self.rate} | asdict(self.scores)


@dataclass(frozen=True)
class Measured:
    """Of one picture."""

    curves: list[Result]  # of the whole picture, if that was asked for
    limited: list[Result]  # of SIDE x SIDE pixels of it: each codec's best within LIMIT_BYTES, or its smallest


def best_within(limit: int, settings: Sequence[float], encode: Callable[[float], bytes]) -> tuple[float, bytes]:
    """The last of `settings`, the coarsest first, whose file has at most `limit` bytes, and the file; else the first and its file.

    Expects more bytes of later settings; where that fails here and there, the setting after the one found does not fit all the same.
    """
    found = settings[0], encode(settings[0])
    fits, too_large = 0, len(settings)
    while len(found[1]) <= limit and too_large - fits > 1:
        middle = (fits + too_large) // 2
        data = encode(settings[middle])
        if len(data) <= limit:
            fits, found = middle, (settings[middle], data)
        else:
            too_large = middle
    return found


def square(path: Path) -> Pixels:
    """SIDE x SIDE: the middle of the photo, scaled so that its shorter side is that."""
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    scale = SIDE / min(rgb.size)
    rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.LANCZOS)
    left, top = (rgb.width - SIDE) // 2, (rgb.height - SIDE) // 2
    return np.array(rgb.crop((left, top, left + SIDE, top + SIDE)))


class Bench:
    def __init__(self, effort: Effort, curves: bool) -> None:
        self._codecs = codecs(effort)
        self._with_curves = curves
        self._features = Features()

    def measure(self, path: Path) -> Measured:
        curves = list(self._curves(path)) if self._with_curves else []
        return Measured(curves, list(self._limited(path)))

    def _curves(self, path: Path) -> Iterator[Result]:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))
        judge = Judge(pixels, self._features)
        for codec in self._codecs:
            for setting in codec.steps:
                yield result_of(path.stem, codec, setting, codec.encode(pixels, setting), judge)

    def _limited(self, path: Path) -> Iterator[Result]:
        pixels = square(path)
        judge = Judge(pixels, self._features)
        for codec in self._codecs:
            setting, data = best_within(LIMIT_BYTES, codec.settings, partial(codec.encode, pixels))
            yield result_of(path.stem, codec, setting, data, judge)


def result_of(name: str, codec: Codec, setting: float, data: bytes, judge: Judge) -> Result:
    decoded = codec.decode(data)
    return Result(name, codec.name, setting, decoded.shape[0] * decoded.shape[1], data, judge.scores(decoded))


_bench: Bench  # of a worker


def _start_worker(effort: Effort, curves: bool) -> None:
    global _bench
    torch.set_num_threads(1)
    _bench = Bench(effort, curves)


def _measure(path: Path) -> Measured:
    return _bench.measure(path)


def measure_all(paths: Iterable[Path], effort: Effort, jobs: int, *, curves: bool) -> Iterator[Measured]:
    """In order, with so many processes of one thread each."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (effort, curves)) as workers:
        yield from workers.map(_measure, paths)
