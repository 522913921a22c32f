"""Intervals: patients drawn again within their centre, predictions as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def resample_weights(centre: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """How often each patient is drawn, shape (resamples, n); each row draws every centre's patients as often as it has some."""
    centres = np.asarray(centre, dtype=object)
    random = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(centres)))
    for name in sorted(set(centres)):
        rows = np.flatnonzero(centres == name)
        weights[:, rows] = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    return weights


def interval(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval of a statistic's bootstrap values; (nan, nan) where over a tenth of the samples has none."""
    known = values[np.isfinite(values)]
    if len(known) < 0.9 * len(values) or not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
