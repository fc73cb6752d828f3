"""Curves: the means over a set's pictures at each step of quality, a figure for each score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.rate_distortion.codecs import OURS, Codec
from bench.rate_distortion.curves import Curve
from bench.rate_distortion.pictures import Picture
from bench.rate_distortion.results import Results
from bench.rate_distortion.scores import SCORES

COLOURS = ("#999999", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9")  # Okabe and Ito's
OUR_COLOUR = "#D55E00"
RATES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # ticks, bits a pixel


def draw(results: Results, pictures: Sequence[Picture], codecs: Sequence[Codec], scores: Sequence[str], folder: Path) -> None:
    """`folder`/SCORE.svg, the same for the same results."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "sdfs", "svg.fonttype": "none"}):
        for score in scores:
            figure = _figure({codec.name: mean_curve(results, pictures, codec, score) for codec in codecs}, SCORES[score].axis)
            figure.suptitle(f"Means of {len(pictures)} pictures", fontsize=10)
            figure.savefig(folder / f"{score}.svg", metadata={"Date": None})


def mean_curve(results: Results, pictures: Sequence[Picture], codec: Codec, score: str) -> Curve:
    """At each step that was measured of all pictures: the mean rate, and the mean of the score on its scale."""
    points = []
    for step in codec.steps:
        at_step = [result for picture in pictures for result in results.of(picture, codec) if result.key.setting == step]
        values = [value for result in at_step if (value := result.scores.get(score)) is not None]
        if len(values) == len(pictures):
            rate = float(np.mean([result.rate for result in at_step]))
            points.append((rate, float(np.mean([SCORES[score].scale(value) for value in values]))))
    return points


def _figure(curves: dict[str, Curve], axis: str) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    colours = iter(COLOURS * len(curves))
    for name, curve in curves.items():
        ours = name == OURS
        if curve:
            colour = OUR_COLOUR if ours else next(colours)
            axes.plot(*zip(*curve, strict=True), marker="o", markersize=3, label=name, color=colour, linewidth=2.2 if ours else 1.2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("bits a pixel")
    axes.set_ylabel(axis)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
