"""Metrics of held-out predictions against scikit-survival, scikit-learn and hand counts."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_cohort

from prognosis.cohort import Survival
from prognosis.validation.folds import outer_folds
from prognosis.validation.metrics import all_metrics, difference
from prognosis.validation.part import Part
from prognosis.validation.rung import Prediction, Rung


def rung_of(part: Part, name: str, seed: int = 0) -> Rung:
    """A rung whose model and null were never fitted: predictions made up, thresholds different from fold to fold."""
    random = np.random.default_rng(seed)
    folds = outer_folds(name, part.centre, part.happened, 0)
    fold_of = np.full(len(part), -1)
    for number, fold in enumerate(folds):
        fold_of[fold.test] = number
    n = len(part)
    model = Prediction(random.normal(size=n) + part.happened, random.random(n), 0.4 + 0.1 * fold_of, np.zeros(n))
    null = Prediction(np.zeros(n), np.full(n, 0.5), np.full(n, 0.5), np.zeros(n))
    return Rung(name, folds, {}, {"null": null, "model": model}, {}, fold_of)


def value(metric) -> float:
    return metric.plain(90)


def test_survival_metrics():
    from sksurv.metrics import brier_score, concordance_index_censored
    from sksurv.util import Surv

    part = Part.of(make_cohort(n=90, centres=2))
    rung = rung_of(part, "centre")
    metrics, prediction = all_metrics(part, rung, 300.0), rung.predictions["model"]
    pairs = [concordance_index_censored(part.happened[f.test], part.time_days[f.test], prediction.risk[f.test]) for f in rung.folds]
    assert value(metrics["model"]["c_index"]) == pytest.approx(sum(p[1] + p[3] / 2 for p in pairs) / sum(p[1] + p[2] + p[3] for p in pairs))
    assert value(metrics["null"]["c_index"]) == 0.5
    outcome = Surv.from_arrays(part.happened, part.time_days)
    folds = [
        brier_score(outcome[f.train], outcome[f.test], 1 - prediction.probability[f.test, None], [300.0])[1][0] * len(f.test)
        for f in rung.folds
    ]
    assert value(metrics["model"]["brier"]) == pytest.approx(sum(folds) / 90)
    ratio = value(metrics["model"]["brier"]) / value(metrics["null"]["brier"])
    assert value(metrics["model"]["prediction_accuracy"]) == pytest.approx(1 - ratio)


def test_a_hospital_without_an_event_before_the_horizon():
    from sksurv.metrics import brier_score
    from sksurv.util import Surv

    part = Part.of(make_cohort(n=90, centres=2))
    quiet = (part.centre == part.centre[0]) & (part.time_days <= 300)
    part = replace(part, outcome=Survival(part.time_days, part.happened & ~quiet))
    rung = rung_of(part, "centre")
    outcome, prediction = Surv.from_arrays(part.happened, part.time_days), rung.predictions["model"]
    folds = [
        brier_score(outcome[f.train], outcome[f.test], 1 - prediction.probability[f.test, None], [300.0])[1][0] * len(f.test)
        for f in rung.folds
    ]
    assert value(all_metrics(part, rung, 300.0)["model"]["brier"]) == pytest.approx(sum(folds) / 90)


def test_pairs_at_the_horizon_are_those_of_follow_up_that_ends_there():
    from autoseg.evaluation.ranking import concordance

    part = Part.of(make_cohort(n=90, centres=2))
    rung = rung_of(part, "centre")
    metric = all_metrics(part, rung, 200.0)["model"]["c_index_at_horizon"]
    ended = part.happened & (part.time_days <= 200)
    expected = concordance(np.minimum(part.time_days, 200), ended, rung.predictions["model"].risk, list(part.centre))
    assert value(metric) == pytest.approx(expected.index)
    assert metric.pairs == expected.comparable


def test_binary_metrics():
    from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

    part = Part.of(make_cohort("binary", n=90, centres=3))
    rung = rung_of(part, "random")
    metrics, prediction = all_metrics(part, rung, None)["model"], rung.predictions["model"]
    called = prediction.probability >= prediction.threshold
    assert value(metrics["balanced_accuracy"]) == pytest.approx(balanced_accuracy_score(part.happened, called))
    assert value(metrics["sensitivity"]) == pytest.approx(called[part.happened].mean())
    assert value(metrics["brier"]) == pytest.approx(brier_score_loss(part.happened, prediction.probability))
    by_fold = [(roc_auc_score(part.happened[f.test], prediction.risk[f.test]), f) for f in rung.folds]
    pairs = np.array([part.happened[f.test].sum() * (~part.happened[f.test]).sum() for f in rung.folds])
    assert value(metrics["auc_across_centres"]) == pytest.approx((np.array([a for a, _ in by_fold]) * pairs).sum() / pairs.sum())
    groups = {(fold, centre) for fold, centre in zip(rung.fold_of.tolist(), part.centre, strict=True)}
    within = [np.array([(f, c) == group for f, c in zip(rung.fold_of, part.centre, strict=True)]) for group in groups]
    assert metrics["auc"].pairs == sum(part.happened[rows].sum() * (~part.happened[rows]).sum() for rows in within)


def test_risks_of_different_folds_are_never_compared():
    """A shift of all risks of one fold changes nothing."""
    part = Part.of(make_cohort(n=90, centres=3))
    rung = rung_of(part, "random")
    before = value(all_metrics(part, rung, None)["model"]["c_index"])
    rung.predictions["model"].risk[rung.fold_of == 1] += 100
    assert value(all_metrics(part, rung, None)["model"]["c_index"]) == pytest.approx(before, abs=1e-12)


def test_a_model_does_not_differ_from_itself():
    part = Part.of(make_cohort(n=90))
    one = all_metrics(part, rung_of(part, "random"), None)["model"]["c_index"]
    other = all_metrics(part, rung_of(part, "random", seed=1), None)["model"]["c_index"]
    weights = np.random.default_rng(0).integers(0, 3, (20, 90)).astype(float)
    assert difference(one, one).to_json(weights) == {"value": 0.0, "low": 0.0, "high": 0.0, "pairs": one.pairs}
    assert difference(one, other).to_json(weights)["value"] == pytest.approx(value(one) - value(other))


def test_a_horizon_beyond_the_follow_up_has_no_brier_score():
    part = Part.of(make_cohort(n=90))
    assert "brier" not in all_metrics(part, rung_of(part, "centre"), 1e7)["model"]
