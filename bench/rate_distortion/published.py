"""What others have published of Kodak: `published.json`, figures with their sources.

Rates and scores there are means over the 24 pictures at each step of quality, so ours are averaged in the same way. HM, VTM and AV1
were compared with pictures already converted to 8 bits of YCbCr, which flatters them a little: 0.02 dB at 30 dB, 0.09 at 36. kMAC a
pixel are of decoders, as each paper counts them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.rate_distortion.codecs import Codec
from bench.rate_distortion.curves import Curve, Interpolated, Rates, log_rate_ratio, mean_percent
from bench.rate_distortion.pictures import Picture
from bench.rate_distortion.results import Results
from bench.rate_distortion.scores import SCORES
from bench.rate_distortion.tables import RANGES, markdown

FIELDS = {"psnr": "psnr", "ms_ssim_rgb": "ms_ssim", "lpips": "lpips_alex", "dists": "dists"}  # ours, theirs
BD_RATES = ("psnr", "ms_ssim_rgb")
DISTANCES = ("lpips", "dists")
DISTANCE_AT = 0.15  # bits a pixel


@dataclass(frozen=True)
class Published:
    name: str
    kmac: str | float | None
    points: Sequence[Mapping[str, float]]

    def curve(self, score: str) -> Curve:
        scale, name = SCORES[score].scale, FIELDS[score]
        return [(point["bpp"], scale(point[name])) for point in self.points if name in point]


def published() -> list[Published]:
    entries: list[dict[str, Any]] = json.loads(Path(__file__).with_name("published.json").read_text())
    return [Published(entry["name"], entry["kmac_per_pixel"], entry["points"]) for entry in entries]


def mean_values(results: Results, pictures: Sequence[Picture], codec: Codec, score: str) -> Curve:
    """At each step that was measured of all pictures the mean rate and, on its scale, the mean score: averaged first, as others do."""
    points = []
    for step in codec.steps:
        at_step = [result for picture in pictures for result in results.of(picture, codec) if result.key.setting == step]
        values = [value for result in at_step if (value := result.scores.get(score)) is not None]
        if len(values) == len(pictures):
            points.append((float(np.mean([result.rate for result in at_step])), SCORES[score].scale(float(np.mean(values)))))
    return points


def published_table(results: Results, pictures: Sequence[Picture], codec: Codec) -> str:
    """BD rates of the codec to what is published of Kodak, and distances at one rate."""
    heads = [f"{SCORES[score].label}, {low}–{high} bpp" for score in BD_RATES for low, high in RANGES]
    at = [f"{SCORES[score].label} at {DISTANCE_AT} bpp" for score in DISTANCES]
    own = {score: mean_values(results, pictures, codec, score) for score in FIELDS}
    rows = [[f"{codec.name} on {len(pictures)} pictures of Kodak to", *heads, *at, "kMAC a pixel"]]
    for other in published():
        rates = [_percent(own[score], other.curve(score), rates) for score in BD_RATES for rates in RANGES]
        rows.append([other.name, *rates, *(distance_at(other.curve(score)) for score in DISTANCES), f"{other.kmac or '–'}"])
    rows.append([f"itself: {codec.name}", *["–"] * len(heads), *(distance_at(own[score]) for score in DISTANCES), ""])
    return markdown(rows)


def _percent(own: Curve, other: Curve, rates: Rates) -> str:
    ratio = log_rate_ratio(other, own, rates)
    return "–" if ratio is None else f"{mean_percent([ratio]):+.1f} %".replace("-", "−")


def distance_at(curve: Curve) -> str:
    """Of a curve of distances on their scale, what they are at DISTANCE_AT, if the curve has that rate."""
    if len(curve) < 2 or not curve[0][0] <= DISTANCE_AT <= curve[-1][0]:
        return "–"
    return f"{10 ** (-Interpolated(curve).score(DISTANCE_AT) / 10):.3f}"
