"""The inner loop: which penalty, and which threshold, chosen from training patients alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prognosis.errors import FitError
from prognosis.models.cox import partial_log_likelihood, rows_of
from prognosis.models.encode import Encoder
from prognosis.models.logistic import levelled_log_likelihood
from prognosis.models.pipeline import Penalty, fit_model, ridge_penalties
from prognosis.validation.folds import Fold, inner_folds
from prognosis.validation.part import Part

PENALTIES = (0.01, 0.05, 0.25, 1.0, 4.0, 16.0)
"""What the inner loop chooses from, in units of the information in the data; see `fit_cox` and `fit_logistic`."""

FALLBACK = Penalty(1.0, 1.0)
"""The penalty where no inner fold can be scored."""


@dataclass(frozen=True)
class Selection:
    """What the inner loop chose.

    Attributes:
        penalty: the one with the highest held-out likelihood.
        scores: (penalty, mean held-out log likelihood an event or patient); empty where there was nothing to choose.
        threshold: the probability with the best balanced accuracy on held-out inner patients; None for survival.
        folds: the inner folds' names.
    """

    penalty: Penalty
    scores: tuple[tuple[Penalty, float], ...]
    threshold: float | None
    folds: tuple[str, ...]

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def select(part: Part, columns: Sequence[str], rung: str, seed: Sequence[int]) -> Selection:
    """The penalty and threshold for a training part.

    Args:
        part: the training patients, and no others.
        columns: of the model; none: there is no penalty to choose.
        rung: whether the inner loop holds out centres; see `inner_folds`.
        seed: of the inner folds.
    """
    folds = tuple(inner_folds(rung, tuple(part.centre), part.happened, seed))
    candidates = _candidates(part, columns)
    risks = _held_out(part, tuple(columns), candidates, folds)
    usable = _scores(part, folds, risks, part.strata(columns))
    # Of equal scores the larger penalty: it promises less.
    penalty = max(usable, key=lambda one: (usable[one], one.established, one.others)) if usable else FALLBACK
    threshold = _threshold(part, risks[penalty]) if part.kind == "binary" else None
    return Selection(penalty, tuple(usable.items()) if len(candidates) > 1 else (), threshold, tuple(fold.name for fold in folds))


def best_threshold(positive: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the highest balanced accuracy of "positive from here on"; of equal ones the middle one.

    Args:
        positive: labels, shape (n,), n > 0.
        probability: shape (n,).
    """
    values = np.unique(probability)
    candidates = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    ill, well = np.sort(probability[positive]), np.sort(probability[~positive])
    sensitivity = 1 - np.searchsorted(ill, candidates, side="left") / max(1, len(ill))
    specificity = np.searchsorted(well, candidates, side="left") / max(1, len(well))
    balanced = sensitivity + specificity
    best = candidates[balanced >= balanced.max() - 1e-12]
    return float(best[len(best) // 2])


def _candidates(part: Part, columns: Sequence[str]) -> tuple[Penalty, ...]:
    """What there is to choose from: established columns are shrunk as much as the others or less; of one kind alone, all alike."""
    if not columns:
        return (FALLBACK,)
    if len(part.established(columns)) in (0, len(columns)):
        return tuple(Penalty(value, value) for value in PENALTIES)
    return tuple(Penalty(one, other) for one in PENALTIES for other in PENALTIES[1:] if other >= one)


def _held_out(part: Part, columns: tuple[str, ...], penalties: Sequence[Penalty], folds: Sequence[Fold]) -> dict[Penalty, np.ndarray]:
    """penalty -> each patient's risk from the inner fold that held it out; nan where that fold could not be fitted."""
    risks = {penalty: np.full(len(part), np.nan) for penalty in penalties}
    established = part.established(columns)
    for fold in folds:
        train = part.take(fold.train)
        encoder = Encoder.fit(train.frame, train.kinds, columns)
        matrix, held_out = encoder.matrix(train.frame), encoder.matrix(part.frame.iloc[fold.test])
        for penalty, risk in risks.items():
            with suppress(FitError):  # no event, one class, or no convergence: the fold says nothing about this penalty
                strengths = ridge_penalties(encoder, established, penalty)
                risk[fold.test] = fit_model(part.kind, matrix, train.outcome, strengths, train.strata(columns)).risk(held_out)
    return risks


def _threshold(part: Part, log_odds: np.ndarray) -> float:
    from scipy.special import expit

    known = np.isfinite(log_odds)
    if not known.any():
        return float(part.happened.mean())
    return best_threshold(part.happened[known], expit(log_odds[known]))


def _scores(part: Part, folds: Sequence[Fold], risks: Mapping[Penalty, np.ndarray], strata: np.ndarray | None) -> dict[Penalty, float]:
    """The score of each penalty that could be fitted wherever any could, so that all are scored on the same patients."""
    fitted = {penalty: [fold for fold in folds if np.isfinite(risk[fold.test]).all()] for penalty, risk in risks.items()}
    most = max(map(len, fitted.values()))
    scores = {penalty: _likelihood(part, fitted[penalty], risk, strata) for penalty, risk in risks.items() if len(fitted[penalty]) == most}
    return {penalty: score for penalty, score in scores.items() if math.isfinite(score)}


def _likelihood(part: Part, folds: Sequence[Fold], risk: np.ndarray, strata: np.ndarray | None) -> float:
    """Mean log likelihood of held-out patients, compared within one inner fold and one stratum; -inf where nobody can be scored.

    Survival: the partial likelihood, an event. Binary: the likelihood, a patient, each stratum at the level that suits it best: the
    prevalence of a new hospital is not what a penalty can know.
    """
    total, count = 0.0, 0
    for fold in folds:
        for rows in (fold.test[chosen] for chosen in rows_of(None if strata is None else strata[fold.test], len(fold.test))):
            if part.kind == "binary":
                total += levelled_log_likelihood(part.happened[rows], risk[rows])
                count += len(rows)
            else:
                total += partial_log_likelihood(part.time_days[rows], part.happened[rows], risk[rows])
                count += int(part.happened[rows].sum())
    return total / count if count else -math.inf
