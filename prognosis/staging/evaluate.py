"""How well stages are told at a hospital that the model has not seen: balanced accuracy beside chance and tumour volumes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis.errors import FitError
from prognosis.features.masks import SAW_PATIENT
from prognosis.models.registry import HEADLINE, MODELS
from prognosis.staging.cohort import Staged
from prognosis.staging.model import StageModel, fit_stages
from prognosis.validation.bootstrap import LABEL, RESAMPLES, interval, resample_weights
from prognosis.validation.folds import Fold, outer_folds
from prognosis.validation.nested import one_thread
from prognosis.validation.part import Part

COMPARED = (HEADLINE, "volume")
NOBODY = -1
"""The class of a patient whom no fold could say anything about."""


@dataclass(frozen=True, eq=False)
class StageEvaluation:
    """Held-out predictions of each model.

    Attributes:
        rung: "centre" or "random".
        predicted: model -> number of each patient's class, (n,); `NOBODY` where there is none.
        problems: fold -> why it could not be fitted.
        saw_centre: whether the networks behind the masks had seen the held-out hospitals; None where no masks were used.
        saw_patient: whether they had learned from masks by networks that had seen the patients; None where not known.
    """

    staged: Staged
    rung: str
    predicted: dict[str, np.ndarray]
    problems: dict[str, str]
    seed: int
    saw_centre: bool | None
    saw_patient: bool | None = None

    def balanced_accuracy(self, model: str) -> dict[str, float | None]:
        """Value and interval."""
        weights = resample_weights(self.staged.cohort.centre, RESAMPLES, self.seed)
        ones = np.ones((1, len(self.staged.classes)))
        value = balanced_accuracy(self.staged.classes, self.predicted[model], ones)[0]
        low, high = interval(balanced_accuracy(self.staged.classes, self.predicted[model], weights))
        return {name: None if math.isnan(one) else float(one) for name, one in (("value", value), ("low", low), ("high", high))}

    @property
    def chance(self) -> float:
        """What the same stage for everybody reaches."""
        return 1 / len(set(self.staged.classes.tolist()))

    def to_json(self) -> dict[str, Any]:
        """Everything, without names of patients."""
        names, centres = self.staged.stage.classes, np.asarray(self.staged.cohort.centre, dtype=object)
        best = self.predicted[HEADLINE]
        return {
            "stage": self.staged.stage.name,
            "rung": self.rung,
            "patients": self.staged.count(),
            "balanced_accuracy": {model: self.balanced_accuracy(model) for model in self.predicted},
            "interval": LABEL,
            "chance": self.chance,
            "confusion": {
                name: {other: int(((self.staged.classes == i) & (best == j)).sum()) for j, other in enumerate(names)}
                for i, name in enumerate(names)
            },
            "by_centre": {
                str(centre): _number(balanced_accuracy(self.staged.classes, best, (centres == centre)[None].astype(float))[0])
                for centre in sorted(set(centres))
            },
            "problems": dict(self.problems),
            "segmentation_saw_centre": self.saw_centre,
            "segmentation_saw_patient": self.saw_patient,
            "seed": self.seed,
        }

    def text(self) -> str:
        """What may be said."""
        where = "at a hospital that the model has not seen" if self.rung == "centre" else "at the hospitals of the training patients"
        counts = ", ".join(f"{name} {count}" for name, count in self.staged.count().items())
        lines = [f"{self.staged.stage.title} {where} ({counts}): balanced accuracy"]
        titles = {HEADLINE: "all predictors", "volume": "tumour volumes only"}
        lines += [f"  {titles[model]:<20} {_shown(self.balanced_accuracy(model))}" for model in self.predicted]
        lines.append(f"  {'one stage for all':<20} {self.chance:.2f}")
        if self.saw_centre:
            lines.append("  the networks that drew the masks had seen these hospitals, or may have: at a new one the masks may be worse")
        if self.saw_patient:
            lines.append(f"  {SAW_PATIENT}")
        lines += [f"  fold {name} says nothing: {why}" for name, why in self.problems.items()]
        return "\n".join(lines)


def balanced_accuracy(known: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that some patient has, one a row of weights, shape (B,); patients without a prediction count for nothing.

    Args:
        known, predicted: numbers of classes, shape (n,); `NOBODY` where nothing was predicted.
        weights: shape (B, n).
    """
    recalls = []
    for index in sorted(set(known.tolist())):
        among = (known == index) & (predicted != NOBODY)
        total = weights[:, among].sum(axis=1)
        right = weights[:, among & (predicted == index)].sum(axis=1)
        recalls.append(np.where(total > 0, right / np.where(total > 0, total, 1.0), np.nan))
    there = np.stack(recalls)
    counts = np.isfinite(there).sum(axis=0)
    return np.where(counts > 0, np.nansum(there, axis=0) / np.maximum(counts, 1), np.nan)


@one_thread()
def evaluate_stages(staged: Staged, seed: int = 0, saw_centre: bool | None = None, saw_patient: bool | None = None) -> StageEvaluation:
    """Every patient staged by a model that was fitted without it: whole hospitals held out where two are known, else at random.

    Raises:
        FitError: no fold could be fitted.
    """
    part = Part.of(staged.cohort)
    rung = "centre" if outer_folds("centre", staged.cohort.centre, part.happened, seed) else "random"
    folds = outer_folds(rung, staged.cohort.centre, part.happened, seed)
    models = {name: columns for name in COMPARED if (columns := MODELS[name].columns(part.groups))}
    predicted = {name: np.full(len(part), NOBODY) for name in models}
    problems: dict[str, str] = {}
    for number, fold in enumerate(folds):
        try:
            told = {name: _held_out(staged, part, fold, columns, rung, (seed, number)) for name, columns in models.items()}
        except FitError as error:
            problems[fold.name] = str(error)
            continue
        for name, values in told.items():
            predicted[name][fold.test] = values
    if len(problems) == len(folds):
        raise FitError(f"{staged.stage.title}: no fold could be fitted: {'; '.join(problems.values())}")
    return StageEvaluation(staged, rung, predicted, problems, seed, saw_centre, saw_patient)


@one_thread()
def fit_final_stages(staged: Staged, seed: int = 0) -> StageModel:
    """The model that goes into use, fitted on every patient; raises as `fit_stages`."""
    part = Part.of(staged.cohort)
    columns = MODELS[HEADLINE].columns(part.groups)
    return fit_stages(part, staged.classes, staged.stage.classes, columns, "centre", (seed, len(part)))


def _held_out(staged: Staged, part: Part, fold: Fold, columns: Sequence[str], rung: str, seed: Sequence[int]) -> np.ndarray:
    model = fit_stages(part.take(fold.train), staged.classes[fold.train], staged.stage.classes, columns, rung, seed)
    return model.predict(part.frame.iloc[fold.test])


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _shown(value: dict[str, float | None]) -> str:
    if value["value"] is None:
        return "n/a"
    interval_told = "" if value["low"] is None or value["high"] is None else f" ({value['low']:.2f} to {value['high']:.2f})"
    return f"{value['value']:.2f}{interval_told}"
