"""What the terminal shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

from bench.rate_distortion.curves import HIGH, LOW, log_rate_ratio, mean_percent
from bench.rate_distortion.measuring import LIMIT_BYTES, SIDE, Result
from bench.rate_distortion.scores import METRICS

OURS = "SDFS"


@dataclass(frozen=True)
class BdRate:
    """What SDFS needs more (or, negative, less) than another codec for the same score."""

    codec: str
    metric: str
    percent: float | None
    pictures: int  # where the two curves meet between LOW and HIGH


def names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.codec for result in results))


def others(results: Sequence[Result]) -> list[str]:
    return [name for name in names(results) if name != OURS]


def bd_rates(results: Sequence[Result]) -> list[BdRate]:
    return [_bd_rate(results, codec, metric) for codec in others(results) for metric in METRICS]


def _bd_rate(results: Sequence[Result], codec: str, metric: str) -> BdRate:
    pictures = dict.fromkeys(result.picture for result in results)

    def curve(picture: str, codec: str) -> list[tuple[float, float]]:
        return [(r.rate, METRICS[metric].of(r.scores)) for r in results if (r.picture, r.codec) == (picture, codec)]

    ratios = [log_rate_ratio(curve(picture, codec), curve(picture, OURS)) for picture in pictures]
    found = [ratio for ratio in ratios if ratio is not None]
    return BdRate(codec, metric, mean_percent(found) if found else None, len(found))


def bd_table(rates: Sequence[BdRate]) -> Table:
    title = f"BD rate of {OURS}, {LOW} … {HIGH} bits a pixel: bytes against the other's at equal score (pictures)"
    table = _table("", *(metric.name for metric in METRICS.values()), title=title)
    for codec in dict.fromkeys(rate.codec for rate in rates):
        cells = (f"{r.percent:+.1f} % ({r.pictures})" if r.percent is not None else "–" for r in rates if r.codec == codec)
        table.add_row(codec, *cells)
    return table


def curve_table(results: Sequence[Result]) -> Table:
    """Means over the pictures at each step of quality."""
    table = _table("codec", "setting", "bits a pixel", *(metric.label for metric in METRICS.values()), title="means of all pictures")
    for (codec, setting), (rate, *scores) in mean_points(results).items():
        table.add_row(codec, f"{setting:g}", f"{rate:.3f}", *(f"{score:.2f}" for score in scores))
    return table


def mean_points(results: Sequence[Result]) -> dict[tuple[str, float], list[float]]:
    """Of each codec and setting: the mean rate, and the mean of each of METRICS."""
    rows: dict[tuple[str, float], list[list[float]]] = {}
    for result in results:
        row = [result.rate, *(metric.of(result.scores) for metric in METRICS.values())]
        rows.setdefault((result.codec, result.setting), []).append(row)
    return {key: np.mean(values, 0).tolist() for key, values in rows.items()}


def limited_table(results: Sequence[Result], metric: str) -> Table:
    codecs = names(results)
    title = f"{METRICS[metric].label}, {SIDE} x {SIDE} in {LIMIT_BYTES:,} bytes (or the smallest file, bytes)"
    table = _table("picture", *codecs, title=title)
    for picture in dict.fromkeys(result.picture for result in results):
        of_codec = {r.codec: r for r in results if r.picture == picture}
        best = max((r for r in of_codec.values() if r.fits), key=lambda r: METRICS[metric].of(r.scores), default=None)
        table.add_row(picture, *(_cell(of_codec[codec], metric, of_codec[codec] is best) for codec in codecs))
    return table


def _cell(result: Result, metric: str, best: bool) -> str:
    score = f"{METRICS[metric].of(result.scores):.2f}"
    if not result.fits:
        return f"({len(result.data):,})"
    return f"[bold]{score} *[/bold]" if best else score


def wins_table(results: Sequence[Result]) -> Table:
    """SDFS against each other codec, on the pictures that both get into LIMIT_BYTES."""
    columns = [f"{metric.name}: won, by" for metric in METRICS.values()]
    title = f"{OURS} against the others: {SIDE} x {SIDE} in {LIMIT_BYTES:,} bytes"
    table = _table("", "pictures that fit", *columns, title=title)
    ours = {r.picture: r for r in results if r.codec == OURS}
    for codec in names(results):
        theirs = [r for r in results if r.codec == codec]
        pairs = [(ours[r.picture], r) for r in theirs if r.fits and ours[r.picture].fits and codec != OURS]
        table.add_row(codec, f"{sum(r.fits for r in theirs)} of {len(theirs)}", *(_won(pairs, metric) for metric in METRICS))
    return table


def _won(pairs: Sequence[tuple[Result, Result]], metric: str) -> str:
    ahead = [METRICS[metric].of(ours.scores) - METRICS[metric].of(other.scores) for ours, other in pairs]
    return f"{sum(a > 0 for a in ahead)} of {len(ahead)}, {np.mean(ahead):+.2f}" if ahead else "–"


def _table(*columns: str, title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
