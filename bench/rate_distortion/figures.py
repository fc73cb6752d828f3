"""Curves: the means over all pictures at each step of quality, a figure for each score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.rate_distortion.measuring import Result
from bench.rate_distortion.scores import METRICS
from bench.rate_distortion.tables import OURS, mean_points, names

COLOURS = {"JPEG": "#999999", "WebP": "#E69F00", "AVIF": "#0072B2", "JPEG XL": "#009E73", OURS: "#D55E00"}  # Okabe and Ito's
RATES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # ticks, bits a pixel


def draw(results: Sequence[Result], folder: Path) -> None:
    """`folder`/METRIC.png and .svg, the same for the same results."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = len({result.picture for result in results})
    with mpl.rc_context({"svg.hashsalt": "sdfs", "svg.fonttype": "none"}):
        for index, key in enumerate(METRICS):
            figure = _figure(results, key, index)
            figure.suptitle(f"Means of {pictures} pictures", fontsize=10)
            figure.savefig(folder / f"{key}.png", dpi=120)
            figure.savefig(folder / f"{key}.svg", metadata={"Date": None})


def _figure(results: Sequence[Result], key: str, index: int) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    means = mean_points(results)
    for codec in names(results):
        points = [(rate, scores[index]) for (name, _), (rate, *scores) in means.items() if name == codec]
        axes.plot(
            *zip(*points, strict=True), marker="o", markersize=3, color=COLOURS[codec], linewidth=2.2 if codec == OURS else 1.2, label=codec
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("bits a pixel")
    axes.set_ylabel(METRICS[key].label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
