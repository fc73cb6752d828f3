"""Rate-distortion curves, and how many bytes one saves over another (Bjøntegaard 2001, with monotone interpolation).

A curve is drawn through a codec's results for one picture, PCHIP both ways: score by the logarithm of the rate, and the reverse. The
BD rate is the mean difference of log rates over the scores that both curves reach between two rates. It is taken picture by picture
and the log ratios are averaged, so each picture counts the same, and a codec that needs half of the bytes for one picture and twice as
many for another comes out even; a curve of means would join rates of easy pictures with scores of hard ones. Only where one side is
published as means alone are means compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

LEAST_SHARE = 0.5  # of the range of rates: a mean over a corner of it says nothing of the rest
_GRID = 96  # rates at which an envelope looks at its curves

Curve = Sequence[tuple[float, float]]  # rates, in any unit, and scores: more is better
Rates = tuple[float, float]


def frontier(results: Iterable[tuple[float, float]]) -> Curve:
    """The results with better scores than all that have a lower rate."""
    best = -math.inf
    kept = []
    for rate, score in sorted(results, key=lambda result: (result[0], -result[1])):
        if score > best:
            kept.append((rate, score))
            best = score
    return kept


def envelope(curves: Iterable[Curve]) -> Curve:
    """At each rate the best of what the curves give there, each only over the rates that it has. One curve: its frontier."""
    kept = [curve for curve in map(frontier, curves) if len(curve) > 1]
    if len(kept) < 2:
        return kept[0] if kept else []
    rates = np.geomspace(min(curve[0][0] for curve in kept), max(curve[-1][0] for curve in kept), _GRID)
    found = [point for curve in kept for point in curve]
    for curve in kept:
        within = rates[(rates > curve[0][0]) & (rates < curve[-1][0])]
        found += zip(within.tolist(), Interpolated(curve).scores(within.tolist()), strict=True)
    return frontier(found)


def log_rate_ratio(anchor: Curve, test: Curve, rates: Rates, least_share: float = LEAST_SHARE) -> float | None:
    """The mean of ln(rate of test / rate of anchor) at equal scores.

    None where they have fewer than `least_share` of what lies between the two rates in common, by the logarithm.
    """
    if min(len(frontier(anchor)), len(frontier(test))) < 2:
        return None
    curves = Interpolated(anchor), Interpolated(test)
    low, high = rates
    worst, best = max(curve.score(low) for curve in curves), min(curve.score(high) for curve in curves)
    if not worst < best:
        return None
    spans = [math.log(min(curve.rate(best), high) / max(curve.rate(worst), low)) for curve in curves]
    if min(spans) < least_share * math.log(high / low):
        return None
    of_anchor, of_test = (curve.mean_log_rate(worst, best) for curve in curves)
    return of_test - of_anchor


def mean_percent(log_ratios: Sequence[float]) -> float:
    """-50: half of the bytes."""
    return 100 * math.expm1(float(np.mean(log_ratios)))


class Interpolated:
    """Raises ValueError of fewer than two results on the frontier."""

    def __init__(self, results: Curve) -> None:
        kept = frontier(results)
        if len(kept) < 2:
            raise ValueError(f"a curve of {len(kept)} points")
        rates, scores = np.array(kept).T
        self._rates, self._scores = rates, scores
        self._score = PchipInterpolator(np.log(rates), scores)
        self._log_rate = PchipInterpolator(scores, np.log(rates))

    def score(self, rate: float) -> float:
        """At this rate, or the nearest that the curve has."""
        return float(self._score(math.log(min(max(rate, self._rates[0]), self._rates[-1]))))

    def scores(self, rates: Sequence[float]) -> list[float]:
        return [self.score(rate) for rate in rates]

    def rate(self, score: float) -> float:
        """At this score, or the nearest that the curve has."""
        return math.exp(self._log_rate(min(max(score, self._scores[0]), self._scores[-1])))

    def mean_log_rate(self, worst: float, best: float) -> float:
        """Over scores that the curve has."""
        return float(self._log_rate.integrate(worst, best)) / (best - worst)
