"""How well a score ranks outcomes: concordance of survival times and area under the ROC curve, both as counts of pairs.

Counts add up where indices do not: pairs that were compared within one fold or one centre are summed, and the index taken of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TIED = 1e-8
"""Risks that lie no further apart than this count as tied, as in scikit-survival."""

_BLOCK = 1 << 22  # pairs compared at once: bounds the memory to a few MB for tens of thousands of patients


@dataclass(frozen=True)
class Pairs:
    """Pairs of patients whose order is known, and how many of them a score puts in that order.

    Attributes:
        concordant: pairs in the right order; a pair with tied scores counts 1/2.
        comparable: all pairs whose order is known.
    """

    concordant: float
    comparable: int

    @property
    def index(self) -> float:
        """The share of concordant pairs (C-index or AUC); nan where there is no comparable pair."""
        return self.concordant / self.comparable if self.comparable else math.nan

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(self.concordant + other.concordant, self.comparable + other.comparable)


def concordance(time: Any, event: Any, risk: Any, groups: Sequence[Any] | None = None) -> Pairs:
    """Harrell's pairs: the patient with an event and the shorter time should have the higher risk.

    A patient with an event is comparable with everyone of a longer time, and with those censored at the same time.

    Args:
        time: times to event or censoring, shape (n,).
        event: whether the event was seen, shape (n,).
        risk: higher means earlier, shape (n,).
        groups: n hashable labels; only pairs inside one group count. None for one group of all.

    Raises:
        ValueError: the shapes differ, or a time or risk is not finite.

    Source: Harrell et al., "Multivariable prognostic models", Statistics in Medicine 1996.
    """
    time, event, risk = _checked(time, float), _checked(event, bool), _checked(risk, float)
    _require_same_length(time, event, risk)
    return sum((_concordance(time[rows], event[rows], risk[rows]) for rows in group_rows(groups, len(time))), Pairs(0.0, 0))


def auc(label: Any, score: Any, groups: Sequence[Any] | None = None) -> Pairs:
    """Pairs of one positive and one negative; concordant where the positive has the higher score. Their index is the AUC.

    Args:
        label: whether positive, shape (n,).
        score: higher means more likely positive, shape (n,).
        groups: as for `concordance`.

    Raises:
        ValueError: the shapes differ, or a score is not finite.
    """
    label, score = _checked(label, bool), _checked(score, float)
    _require_same_length(label, score)
    return sum((_auc(label[rows], score[rows]) for rows in group_rows(groups, len(label))), Pairs(0.0, 0))


def comparable_pairs(time: np.ndarray, event: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Whether row i's event comes before whatever befell column j: a bool array of shape (len(rows), n); all rows where none are named."""
    rows = np.arange(len(time)) if rows is None else rows
    later = time[None, :] > time[rows, None]
    censored_then = (time[None, :] == time[rows, None]) & ~event[None, :]
    return (later | censored_then) & event[rows, None]


def ordered_pairs(risk: np.ndarray, rows: np.ndarray | None = None, *, tied: float = TIED) -> np.ndarray:
    """1 where row i has a higher risk than column j, 1/2 where they tie, else 0: a float array of shape (len(rows), n)."""
    rows = np.arange(len(risk)) if rows is None else rows
    difference = risk[rows, None] - risk[None, :]
    return np.where(np.abs(difference) <= tied, 0.5, difference > 0)


def group_rows(groups: Sequence[Any] | None, n: int) -> Iterator[np.ndarray]:
    """The row numbers of each group, in order of first appearance; one group of all n rows for None.

    Raises:
        ValueError: there is not one label a row.
    """
    if groups is None:
        yield np.arange(n)
        return
    if len(groups) != n:
        raise ValueError(f"groups has {len(groups)} labels for {n} rows")
    rows: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    for members in rows.values():
        yield np.array(members)


def _concordance(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> Pairs:
    events = np.flatnonzero(event)
    pairs = Pairs(0.0, 0)
    step = max(1, _BLOCK // max(1, len(time)))
    for start in range(0, len(events), step):
        rows = events[start : start + step]
        comparable = comparable_pairs(time, event, rows)
        pairs += Pairs(float(ordered_pairs(risk, rows)[comparable].sum()), int(comparable.sum()))
    return pairs


def _auc(label: np.ndarray, score: np.ndarray) -> Pairs:
    positive, negative = score[label], np.sort(score[~label])
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return Pairs(float(below.sum()) / 2, len(positive) * len(negative))


def _checked(values: Any, kind: type) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"one value a patient is expected, found an array of shape {values.shape}")
    if kind is bool and not np.isin(values, (0, 1)).all():
        raise ValueError("events and labels must be true or false (1 or 0)")
    values = values.astype(kind)
    if kind is float and not np.isfinite(values).all():
        raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(values))[0])}: {values[~np.isfinite(values)][0]} cannot be ranked")
    return values


def _require_same_length(*arrays: np.ndarray) -> None:
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"arrays of one length are expected, found {[len(array) for array in arrays]}")
