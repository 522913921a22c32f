"""One rung of the ladder: every model fitted on each fold's training patients and asked about those held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis.errors import FitError
from prognosis.models.pipeline import Fitted, Pipeline
from prognosis.models.registry import Model
from prognosis.validation.folds import Fold
from prognosis.validation.part import Part
from prognosis.validation.selection import Selection, select


@dataclass(frozen=True, eq=False)
class FoldFit:
    """One model fitted on one fold's training patients.

    Attributes:
        fitted, selection: the pipeline, and what its inner loop chose.
        cut: the median risk of the training patients; above it a patient is in the high-risk group.
    """

    fitted: Fitted
    selection: Selection
    cut: float

    def state(self) -> dict[str, Any]:
        """Everything that was learned, as JSON: what test patients must not change."""
        return {"pipeline": self.fitted.state(), "selection": self.selection.state(), "cut": self.cut}


@dataclass(frozen=True, eq=False)
class Prediction:
    """One model's word on the patients of a rung, from the fold that held each out; nan where there is none.

    Attributes:
        risk: log hazard ratio or log odds, shape (n,); risks of different folds are not on one scale.
        probability: of being positive, or of the event before the horizon; nan without a horizon.
        threshold: from which probability a patient counts as positive (binary).
        cut: from which risk a patient counts as high-risk.
    """

    risk: np.ndarray
    probability: np.ndarray
    threshold: np.ndarray
    cut: np.ndarray


@dataclass(frozen=True, eq=False)
class Rung:
    """A rung's folds, fits and predictions.

    Attributes:
        fits: model -> one fit a fold, None where the fold could not be fitted.
        problems: fold -> why it could not be fitted; its patients have no prediction from any model.
        fold_of: row -> number of the fold that held it out, or -1.
    """

    name: str
    folds: tuple[Fold, ...]
    fits: Mapping[str, tuple[FoldFit | None, ...]]
    predictions: Mapping[str, Prediction]
    problems: Mapping[str, str]
    fold_of: np.ndarray


def fit_fold(train: Part, columns: Sequence[str], rung: str, seed: Sequence[int]) -> FoldFit:
    """A model fitted on a fold's training patients: inner loop, then a fit on all of them.

    Args:
        train: the training patients; nobody else's data get in here.

    Raises:
        FitError: no event, one class, or no convergence.
    """
    selection = select(train, columns, rung, seed)
    pipeline = Pipeline(train.kind, tuple(columns), train.established(columns), selection.penalty)
    fitted = pipeline.fit(train.frame, train.kinds, train.outcome, train.strata(columns))
    return FoldFit(fitted, selection, float(np.median(fitted.risk(train.frame))))


def run_rung(
    name: str, part: Part, folds: tuple[Fold, ...], models: Mapping[str, Model], seed: int, horizon_days: float | None = None
) -> Rung:
    """Every model fitted and asked on each fold.

    Args:
        name: "centre" or "random".
        part: all patients.
        folds: over the rows of `part`.
        models: those to fit.
        seed: of the inner folds.
        horizon_days: of the probability of an event (survival).
    """
    fits: dict[str, list[FoldFit | None]] = {model: [] for model in models}
    problems: dict[str, str] = {}
    fold_of = np.full(len(part), -1)
    for number, fold in enumerate(folds):
        train = part.take(fold.train)
        try:
            # A fold counts for all models or for none: they are compared on the same pairs.
            fitted = {key: fit_fold(train, model.columns(part.groups), name, (seed, number)) for key, model in models.items()}
        except FitError as error:
            problems[fold.name] = str(error)
            for key in models:
                fits[key].append(None)
            continue
        fold_of[fold.test] = number
        for key, fit in fitted.items():
            fits[key].append(fit)
    predictions = {key: _predict(part, folds, fits[key], horizon_days) for key in models}
    return Rung(name, folds, {key: tuple(value) for key, value in fits.items()}, predictions, problems, fold_of)


def _predict(part: Part, folds: Sequence[Fold], fits: Sequence[FoldFit | None], horizon_days: float | None) -> Prediction:
    risk, probability, threshold, cut = (np.full(len(part), np.nan) for _ in range(4))
    for fold, fit in zip(folds, fits, strict=True):
        if fit is None:
            continue
        rows = part.frame.iloc[fold.test]
        risk[fold.test] = fit.fitted.risk(rows)
        cut[fold.test] = fit.cut
        if part.kind == "binary":
            probability[fold.test] = fit.fitted.probability(rows)
            threshold[fold.test] = fit.selection.threshold
        elif horizon_days is not None:
            probability[fold.test] = 1 - fit.fitted.survival(rows, [horizon_days])[:, 0]
    return Prediction(risk, probability, threshold, cut)
