"""What was measured, kept as lines of JSON, so that a run goes on where another one stopped and no codec is measured twice.

A line holds scores of one picture through one version of one codec at one setting. Lines add up: a later one may hold other scores of
the same. Several programs may add to a file at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.rate_distortion.codecs import Codec
from bench.rate_distortion.curves import Curve, envelope
from bench.rate_distortion.pictures import Picture
from bench.rate_distortion.scores import SCORES, VERSION


@dataclass(frozen=True)
class Key:
    picture: str  # `Picture.sha256`
    codec: str
    version: str
    setting: float


@dataclass(frozen=True)
class Result:
    key: Key
    pixels: int
    size: int  # bytes
    scores: Mapping[str, float | None]

    @property
    def rate(self) -> float:
        """Bits a pixel."""
        return 8 * self.size / self.pixels


def key_of(picture: Picture, codec: Codec, setting: float) -> Key:
    return Key(picture.sha256, codec.name, codec.version, setting)


class Results:
    def __init__(self, path: Path | None = None) -> None:
        """`path`: the file, made when the first result is added. None: in memory alone."""
        self._path = path
        self._found: dict[Key, Result] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            try:
                record = json.loads(line)
                if record.pop("scores_version") == VERSION:
                    self._merge(Result(Key(**record.pop("key")), **record))
            except (ValueError, LookupError, TypeError):
                continue  # cut off when a run was stopped

    def add(self, result: Result) -> None:
        self._merge(result)
        if self._path is None or not result.key.version:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"scores_version": VERSION, **asdict(result)}) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())  # one call, so that lines of two programs do not mix
        finally:
            os.close(descriptor)

    def missing(self, key: Key, names: Iterable[str]) -> tuple[str, ...]:
        """Those scores that are not there."""
        have = self._found[key].scores if key in self._found else {}
        return tuple(name for name in names if name not in have)

    def of(self, picture: Picture, codec: Codec) -> list[Result]:
        """At the steps of its curve, as far as they are there."""
        keys = (key_of(picture, codec, step) for step in codec.steps)
        return [self._found[key] for key in keys if key in self._found]

    def curve(self, picture: Picture, codecs: Iterable[Codec], score: str) -> Curve:
        """Rates and the score on its scale, at each rate the best of the codecs."""
        return envelope(_points(self.of(picture, codec), score) for codec in codecs)

    def _merge(self, result: Result) -> None:
        old = self._found.get(result.key)
        scores = {**old.scores, **result.scores} if old else result.scores
        self._found[result.key] = Result(result.key, result.pixels, result.size, scores)


def _points(results: Iterable[Result], score: str) -> Curve:
    values = ((result.rate, result.scores.get(score)) for result in results)
    return [(rate, SCORES[score].scale(value)) for rate, value in values if value is not None]
