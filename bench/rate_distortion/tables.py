"""What is shown, as tables of Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bench.rate_distortion.codecs import AVIF_USUAL, Codec
from bench.rate_distortion.curves import Rates, log_rate_ratio, mean_percent
from bench.rate_distortion.noise import edge_ratio
from bench.rate_distortion.pictures import Picture, Sets
from bench.rate_distortion.results import Result, Results
from bench.rate_distortion.scores import NOISE, SCORES

RANGES: Sequence[Rates] = ((0.1, 0.6), (0.6, 1.5))  # bits a pixel
NOISE_AT = 50  # quality, the default

Families = Mapping[str, Sequence[Codec]]


def families(codecs: Sequence[Codec]) -> Families:
    found: dict[str, list[Codec]] = {}
    for codec in codecs:
        found.setdefault(codec.family, []).append(codec)
    return found


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the heading; all columns but the first are figures."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])).replace("|  |", "| |")


def bd_rate(
    results: Results, pictures: Sequence[Picture], anchor: Sequence[Codec], test: Sequence[Codec], score: str, rates: Rates
) -> tuple[float | None, int]:
    """Percent that `test` needs more, or, negative, less; and of how many pictures, which are those where the curves meet."""
    ratios = (log_rate_ratio(results.curve(p, anchor, score), results.curve(p, test, score), rates) for p in pictures)
    found = [ratio for ratio in ratios if ratio is not None]
    return (mean_percent(found) if found else None), len(found)


def bd_table(results: Results, sets: Sets, anchors: Families, tests: Families, scores: Sequence[str]) -> str:
    rows = [["BD rate", "bits a pixel", *(SCORES[score].label for score in scores)]]
    for name, pictures in sets.items():
        for test in tests:
            for anchor in anchors:
                for rates in RANGES:
                    cells = [_percent(*bd_rate(results, pictures, anchors[anchor], tests[test], s, rates), len(pictures)) for s in scores]
                    rows.append([f"{name} ({len(pictures)}): {test} to {anchor}", "{}–{}".format(*rates), *cells])
    return markdown(rows)


def _percent(percent: float | None, found: int, of: int) -> str:
    if percent is None:
        return "–"
    return f"{percent:+.1f} %".replace("-", "−") + (f" ({found})" if found < of else "")


def noise_table(results: Results, sets: Sets, tests: Families, usual: Codec, original: Codec) -> str:
    """Means over the pictures that have such ground, of codecs at NOISE_AT and of AVIF, as it is set up usually, at the same rate."""
    rows = [[f"noise at quality {NOISE_AT}", "bits a pixel", "flat: original", "flat", "flat: AVIF", "edge, × original", "edge: AVIF, ×"]]
    for name, pictures in sets.items():
        for test, codecs in tests.items():
            found = [_noise(results, picture, codecs[0], usual, original) for picture in pictures]
            means = [_mean([one[column] for one in found if one]) for column in range(6)]
            rows.append([f"{name}: {test}", *("–" if mean is None else f"{mean:.2f}" for mean in means)])
    return markdown(rows)


def _noise(results: Results, picture: Picture, codec: Codec, usual: Codec, original: Codec) -> list[float | None]:
    """Rate, flat noise of the original, of the codec, of AVIF, edge noise of codec and AVIF as multiples; none, if it was not measured."""
    here = next((result for result in results.of(picture, codec) if result.key.setting == NOISE_AT), None)
    if here is None:
        return []
    was = results.of(picture, original)[0].scores
    rival = {name: _at_rate(results.of(picture, usual), name, here.rate) for name in NOISE}
    flat = [was["flat_noise"], here.scores["flat_noise"], rival["flat_noise"]]
    edge = was["edge_noise"]
    ratios = [
        None if edge is None or noise is None else edge_ratio(noise, edge) for noise in (here.scores["edge_noise"], rival["edge_noise"])
    ]
    return [here.rate, *flat, *ratios]


def _at_rate(results: Sequence[Result], name: str, rate: float) -> float | None:
    points = sorted((math.log(result.rate), value) for result in results if (value := result.scores.get(name)) is not None)
    return float(np.interp(math.log(rate), [log for log, _ in points], [value for _, value in points])) if points else None


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def usual_avif(codecs: Sequence[Codec]) -> Codec:
    return next(codec for codec in codecs if codec.name == AVIF_USUAL)
