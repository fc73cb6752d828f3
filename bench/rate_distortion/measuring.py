"""Pictures through codecs: their curves, and each codec's best within a limit of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context

import torch
from rich.console import Console
from rich.progress import track

from bench.rate_distortion.codecs import Code, Codec, Pixels
from bench.rate_distortion.pictures import Picture
from bench.rate_distortion.results import Key, Result, Results, key_of
from bench.rate_distortion.scores import Judge


@dataclass(frozen=True)
class _Task:
    key: Key
    picture: Picture
    codec: Codec
    setting: float
    scores: tuple[str, ...]

    def run(self) -> Result:
        pixels = self.picture.load()
        data, decoded = self.codec.code(pixels, self.setting)
        if decoded.shape != pixels.shape:
            raise ValueError(f"{self.codec.name} made {decoded.shape} of {self.picture.path}, which is {pixels.shape}")
        return Result(self.key, pixels.shape[0] * pixels.shape[1], len(data), _judge(self.picture).scores(decoded, self.scores))


@lru_cache(2)
def _judge(picture: Picture) -> Judge:
    return Judge(picture.load())


def measure(pictures: Iterable[Picture], codecs: Sequence[Codec], scores: Sequence[str], results: Results, jobs: int = 0) -> None:
    """Add to `results` what they lack. `jobs`: processes of one thread each; 0: in this process, where codecs need not be picklable."""
    tasks = list(_missing(pictures, codecs, scores, results))
    for result in track(_run(tasks, jobs), "measuring", len(tasks), console=Console(stderr=True), transient=True):
        results.add(result)


def _missing(pictures: Iterable[Picture], codecs: Sequence[Codec], scores: Sequence[str], results: Results) -> Iterator[_Task]:
    for picture in pictures:
        for codec in codecs:
            for setting in codec.steps:
                key = key_of(picture, codec, setting)
                if missing := results.missing(key, scores):
                    yield _Task(key, picture, codec, setting, missing)


def _run(tasks: Sequence[_Task], jobs: int) -> Iterator[Result]:
    if not jobs or not tasks:
        yield from (task.run() for task in tasks)
        return
    workers = ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker)
    try:
        for done in as_completed([workers.submit(task.run) for task in tasks]):
            yield done.result()
    finally:
        workers.shutdown(cancel_futures=True)  # who stops a run does not wait until all of it is measured


def _start_worker() -> None:
    torch.set_num_threads(1)


def best_within(limit: int, settings: Sequence[float], code: Code, pixels: Pixels) -> tuple[float, bytes, Pixels]:
    """The last of `settings`, the coarsest first, whose file has at most `limit` bytes, the file, and its pixels; else of the first.

    Expects more bytes of later settings; where that fails here and there, the setting after the one found does not fit all the same.
    """
    found = settings[0], *code(pixels, settings[0])
    fits, too_large = 0, len(settings)
    while len(found[1]) <= limit and too_large - fits > 1:
        middle = (fits + too_large) // 2
        data, decoded = code(pixels, settings[middle])
        if len(data) <= limit:
            fits, found = middle, (settings[middle], data, decoded)
        else:
            too_large = middle
    return found
