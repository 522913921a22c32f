"""What a model's held-out predictions are worth. Each metric is a function of patient weights, so that value and interval share one path.

The headline counts pairs of one test fold and one centre alone, summed over folds: risks of models fitted on different folds are not on one
scale, and pairs of two centres measure how well the centre is guessed. Pairs across the centres of a fold are shown apart, on the random
rung, where the centre-only control shows what that is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis import require_survival
from prognosis.validation import pairs
from prognosis.validation.bootstrap import interval
from prognosis.validation.part import Part
from prognosis.validation.rung import Prediction, Rung

TAU_QUANTILE = 0.8
"""Of the training patients' event times: Uno's tau where the target declares no horizon."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric of one model: its value under patient weights of shape (B, n), and how many pairs it rests on (None: it counts patients)."""

    values: Callable[[np.ndarray], np.ndarray]
    pairs: int | None = None

    def plain(self, n: int) -> float:
        """The value with every patient counted once."""
        return float(self.values(np.ones((1, n)))[0])

    def to_json(self, weights: np.ndarray) -> dict[str, Any]:
        """Value, interval over the weights' rows, and pairs; None for what is not defined."""
        low, high = interval(self.values(weights))
        told = {"value": self.plain(weights.shape[1]), "low": low, "high": high}
        return {name: none_if_nan(value) for name, value in told.items()} | ({} if self.pairs is None else {"pairs": self.pairs})


def headline(kind: str) -> str:
    """The metric that models are compared by."""
    return "c_index" if kind == "survival" else "auc"


def none_if_nan(value: float) -> float | None:
    """The value, or None for JSON where it is not defined."""
    return value if np.isfinite(value) else None


def within_groups(part: Part, rung: Rung) -> list[Hashable]:
    """The test fold and centre of each patient, None without a prediction. Patients without a centre are compared with each other."""
    return [(fold, centre) if fold >= 0 else None for fold, centre in zip(rung.fold_of.tolist(), part.centre, strict=True)]


def across_groups(rung: Rung) -> list[Hashable]:
    """The test fold of each patient, whatever the centre; None without a prediction."""
    return [fold if fold >= 0 else None for fold in rung.fold_of.tolist()]


def ranking(part: Part, score: np.ndarray, groups: list[Hashable], weight: np.ndarray | None = None) -> Metric:
    """C-index (survival; Uno's with `weight`) or AUC (binary) of a score over the pairs of each group."""
    if part.kind == "survival":
        blocks = pairs.survival_pairs(part.time_days, part.happened, score, groups, weight)
    else:
        blocks = pairs.label_pairs(part.happened, score, groups)
    return Metric(lambda weights: pairs.index(blocks, weights), pairs.count(blocks))


def ranked(part: Part, rung: Rung, within: np.ndarray, across: np.ndarray, horizon_days: float | None) -> dict[str, Metric]:
    """The metrics that take nothing but a score, by name: of a model's risk, or of a true predictor.

    Args:
        within, across: the score inside a centre and, on the random rung, across the centres of a fold.
        horizon_days: pairs are counted once more with those alone whose first event is no later.
    """
    name = headline(part.kind)
    groups = within_groups(part, rung)
    found = {name: ranking(part, within, groups)}
    if part.kind == "survival" and horizon_days is not None:
        found["c_index_at_horizon"] = ranking(part, within, groups, (part.time_days <= horizon_days).astype(float))
    if rung.name == "random":
        found[f"{name}_across_centres"] = ranking(part, across, across_groups(rung))
    return found


def metrics_of(
    part: Part, rung: Rung, prediction: Prediction, null: Prediction, taus: np.ndarray, horizon_days: float | None
) -> dict[str, Metric]:
    """Every metric of one model on one rung by its name.

    Args:
        prediction: the model's.
        null: that of the model that tells everybody the same; what the Brier score is compared with.
        taus: of the rung's folds; see `taus_of`.
        horizon_days: at which probabilities of a survival target hold.
    """
    found = ranked(part, rung, prediction.risk, prediction.risk, horizon_days)
    if part.kind == "survival":
        found["uno_c"] = ranking(part, prediction.risk, within_groups(part, rung), uno_weights(part, rung, taus))
        loss = _survival_loss(part, rung, horizon_days) if horizon_days is not None else None
        if loss is not None:
            found |= _brier(loss(prediction.probability), loss(null.probability))
        return found
    found |= _classification(part.happened, prediction)
    truth = part.happened.astype(float)
    return found | _brier((prediction.probability - truth) ** 2, (null.probability - truth) ** 2)


def taus_of(part: Part, rung: Rung, horizon_days: float | None) -> np.ndarray:
    """Uno's tau in days of each fold, from its training patients: the horizon, or a quantile of event times, within their follow-up."""
    taus = []
    for fold in rung.folds:
        time, event = part.time_days[fold.train], part.happened[fold.train]
        wanted = horizon_days if horizon_days is not None else np.quantile(time[event], TAU_QUANTILE) if event.any() else np.nan
        taus.append(min(wanted, time.max()))
    return np.array(taus)


def uno_weights(part: Part, rung: Rung, taus: np.ndarray) -> np.ndarray:
    """1 / G(t)^2 of each held-out patient with an event before its fold's tau, else 0; G is the training patients' censoring.

    Source: Uno et al., "On the C-statistics for evaluating overall adequacy of risk prediction procedures", Statistics in Medicine 2011.
    """
    weight = np.zeros(len(part))
    for number, (fold, tau) in enumerate(zip(rung.folds, taus, strict=True)):
        rows = fold.test[(rung.fold_of[fold.test] == number) & part.happened[fold.test] & (part.time_days[fold.test] < tau)]
        if len(rows):
            weight[rows] = _uncensored(part, fold.train, part.time_days[rows]) ** -2.0
    return weight


def _uncensored(part: Part, train: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The chance of not being censored before each time, from training patients; times must not exceed their follow-up."""
    if not len(times):  # a small hospital without an early event; scikit-survival refuses to be asked for nothing
        return np.empty(0)
    require_survival()
    from sksurv.nonparametric import CensoringDistributionEstimator
    from sksurv.util import Surv

    fitted = CensoringDistributionEstimator().fit(Surv.from_arrays(part.happened[train], part.time_days[train]))
    return fitted.predict_proba(times)


def _survival_loss(part: Part, rung: Rung, horizon: float) -> Callable[[np.ndarray], np.ndarray] | None:
    """The inverse-probability-of-censoring weighted squared error at the horizon; nan rows where a fold's follow-up ends before.

    Source: Graf et al., "Assessment and comparison of prognostic classification schemes for survival data", Statistics in Medicine 1999.
    """
    weight = np.full(len(part), np.nan)
    for number, fold in enumerate(rung.folds):
        rows = fold.test[rung.fold_of[fold.test] == number]
        if not len(rows) or part.time_days[fold.train].max() <= horizon:
            continue
        time, event = part.time_days[rows], part.happened[rows]
        before = (time <= horizon) & event
        weight[rows] = np.where(before | (time > horizon), 1.0, 0.0)
        weight[rows[before]] /= _uncensored(part, fold.train, time[before])
        weight[rows[time > horizon]] /= _uncensored(part, fold.train, np.array([horizon]))[0]
    if not np.isfinite(weight).any():
        return None
    truth = (part.happened & (part.time_days <= horizon)).astype(float)
    return lambda probability: weight * (probability - truth) ** 2


def _brier(loss: np.ndarray, null: np.ndarray) -> dict[str, Metric]:
    """The Brier score, and by how much it is below that of the model that tells everybody the same (index of prediction accuracy)."""
    known = np.isfinite(loss) & np.isfinite(null)

    def mean(weights: np.ndarray, losses: np.ndarray) -> np.ndarray:
        return _ratio(weights[:, known] @ losses[known], weights[:, known].sum(axis=1))

    return {
        "brier": Metric(lambda weights: mean(weights, loss)),
        "prediction_accuracy": Metric(lambda weights: 1 - _ratio(mean(weights, loss), mean(weights, null))),
    }


def _classification(positive: np.ndarray, prediction: Prediction) -> dict[str, Metric]:
    """Balanced accuracy and its parts, each patient judged by the threshold of its own fold's inner loop."""
    known = np.isfinite(prediction.probability)
    called = known & (prediction.probability >= np.where(known, prediction.threshold, 2.0))

    def share(weights: np.ndarray, right: np.ndarray, among: np.ndarray) -> np.ndarray:
        return _ratio(weights[:, right & among].sum(axis=1), weights[:, among].sum(axis=1))

    def sensitivity(weights: np.ndarray) -> np.ndarray:
        return share(weights, called, known & positive)

    def specificity(weights: np.ndarray) -> np.ndarray:
        return share(weights, ~called, known & ~positive)

    return {
        "balanced_accuracy": Metric(lambda weights: (sensitivity(weights) + specificity(weights)) / 2),
        "sensitivity": Metric(sensitivity),
        "specificity": Metric(specificity),
    }


def difference(one: Metric, other: Metric) -> Metric:
    """How much the first is above the second on the same patients and pairs."""
    return Metric(lambda weights: one.values(weights) - other.values(weights), one.pairs)


def all_metrics(part: Part, rung: Rung, horizon_days: float | None) -> Mapping[str, Mapping[str, Metric]]:
    """model -> metric's name -> metric, of a rung that holds the model "null"."""
    taus = taus_of(part, rung, horizon_days) if part.kind == "survival" else np.full(len(rung.folds), np.nan)
    null = rung.predictions["null"]
    return {name: metrics_of(part, rung, prediction, null, taus, horizon_days) for name, prediction in rung.predictions.items()}


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
