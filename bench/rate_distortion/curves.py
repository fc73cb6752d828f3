"""Rate-distortion curves, and how many bytes one saves over another (Bjøntegaard 2001, with monotone interpolation).

A curve is drawn through a codec's results for one picture, PCHIP both ways: score by the logarithm of the rate, and the reverse. The
BD rate is the mean difference of log rates over the scores that both curves reach between the rates LOW and HIGH. It is taken picture
by picture and the log ratios are averaged, so each picture counts the same, and a codec that needs half of the bytes for one picture
and twice as many for another comes out even; a curve of means would join rates of easy pictures with scores of hard ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

LOW, HIGH = 0.1, 0.6  # bits a pixel

Curve = Sequence[tuple[float, float]]  # rates, in any unit, and scores: more is better


def frontier(results: Iterable[tuple[float, float]]) -> Curve:
    """The results with better scores than all that have a lower rate."""
    best = -math.inf
    kept = []
    for rate, score in sorted(results, key=lambda result: (result[0], -result[1])):
        if score > best:
            kept.append((rate, score))
            best = score
    return kept


def log_rate_ratio(anchor: Curve, test: Curve, low: float = LOW, high: float = HIGH) -> float | None:
    """The mean of ln(rate of test / rate of anchor) at equal scores; None where they reach no score in common between these rates."""
    a, b = _Interpolated(anchor), _Interpolated(test)
    worst, best = (max(a.score(low), b.score(low)), min(a.score(high), b.score(high)))
    if not worst < best:
        return None
    return (b.log_rates_over(worst, best) - a.log_rates_over(worst, best)) / (best - worst)


def mean_percent(log_ratios: Sequence[float]) -> float:
    """-50: half of the bytes."""
    return 100 * math.expm1(float(np.mean(log_ratios)))


class _Interpolated:
    def __init__(self, results: Curve) -> None:
        """Of at least two results on the frontier."""
        rates, scores = np.array(frontier(results)).T
        self._least, self._most = rates[0], rates[-1]
        self._score = PchipInterpolator(np.log(rates), scores)
        self._log_rate = PchipInterpolator(scores, np.log(rates))

    def score(self, rate: float) -> float:
        """At this rate, or the nearest that it reaches."""
        return float(self._score(math.log(min(max(rate, self._least), self._most))))

    def log_rates_over(self, worst: float, best: float) -> float:
        return float(self._log_rate.integrate(worst, best))
