"""Weighted pairs: counting a patient twice is the same as listing it twice; Uno's weights are scikit-survival's."""

import numpy as np
import pytest
from cohorts import make_cohort

from autoseg.evaluation.ranking import auc, concordance
from prognosis.validation.bootstrap import interval, resample_weights
from prognosis.validation.folds import outer_folds
from prognosis.validation.metrics import taus_of, uno_weights
from prognosis.validation.pairs import count, index, label_pairs, survival_pairs
from prognosis.validation.part import Part
from prognosis.validation.rung import Rung


def patients(n=60, seed=0):
    random = np.random.default_rng(seed)
    groups = [None if k == 0 else ("fold", k % 3) for k in range(n)]
    return random.integers(1, 40, n).astype(float), random.random(n) < 0.6, random.normal(size=n).round(1), groups


def test_ones_give_the_plain_index():
    time, event, risk, groups = patients()
    rows = [row for row, group in enumerate(groups) if group is not None]
    known = [groups[row] for row in rows]
    expected = concordance(time[rows], event[rows], risk[rows], known)
    blocks = survival_pairs(time, event, risk, groups)
    assert index(blocks, np.ones((1, 60)))[0] == pytest.approx(expected.index, abs=1e-14)
    assert count(blocks) == expected.comparable
    labels = label_pairs(event, risk, groups)
    assert index(labels, np.ones((1, 60)))[0] == pytest.approx(auc(event[rows], risk[rows], known).index, abs=1e-14)


def test_a_weight_is_as_good_as_listing_the_patient_that_often():
    time, event, risk, groups = patients()
    weights = np.random.default_rng(1).integers(0, 4, (3, 60)).astype(float)
    told = index(survival_pairs(time, event, risk, groups), weights)
    for value, weight in zip(told, weights, strict=True):
        rows = [row for row in np.repeat(np.arange(60), weight.astype(int)) if groups[row] is not None]
        expected = concordance(time[rows], event[rows], risk[rows], [groups[row] for row in rows])
        assert value == pytest.approx(expected.index, abs=1e-12)


def test_no_pairs_no_index():
    assert np.isnan(index((), np.ones((2, 5)))).all()
    assert np.isnan(index(survival_pairs(np.ones(3), np.ones(3, bool), np.arange(3.0), [0, 0, 0]), np.ones((1, 3)))).all()


def test_unpredicted_patients_are_in_no_pair():
    time, event, risk, groups = patients()
    lacking = risk.copy()
    lacking[5:20] = np.nan
    kept = [None if 5 <= row < 20 else group for row, group in enumerate(groups)]
    assert count(survival_pairs(time, event, lacking, groups)) == count(survival_pairs(time, event, risk, kept))


@pytest.mark.parametrize("horizon", [600.0, None])
def test_uno_is_scikit_survivals(horizon):
    from sksurv.metrics import concordance_index_ipcw
    from sksurv.util import Surv

    part = Part.of(make_cohort(n=90, centres=2))
    folds = outer_folds("centre", part.centre, part.happened, 0)
    rung = Rung("centre", folds, {}, {}, {}, np.where(part.centre == "H0", 0, 1))
    risk = np.random.default_rng(0).normal(size=90) - part.time_days / 800
    taus = taus_of(part, rung, horizon)
    weight = uno_weights(part, rung, taus)
    outcome = Surv.from_arrays(part.happened, part.time_days)
    for number, fold in enumerate(folds):
        train_events = part.time_days[fold.train][part.happened[fold.train]]
        assert taus[number] == (600.0 if horizon else pytest.approx(np.quantile(train_events, 0.8)))
        theirs = concordance_index_ipcw(outcome[fold.train], outcome[fold.test], risk[fold.test], tau=taus[number])[0]
        groups = [0 if row in fold.test else None for row in range(90)]
        ours = index(survival_pairs(part.time_days, part.happened, risk, groups, weight), np.ones((1, 90)))[0]
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_tau_stays_within_the_training_follow_up():
    part = Part.of(make_cohort(n=40, centres=2))
    folds = outer_folds("centre", part.centre, part.happened, 0)
    rung = Rung("centre", folds, {}, {}, {}, np.where(part.centre == "H0", 0, 1))
    taus = taus_of(part, rung, 1e6)
    assert taus.tolist() == [part.time_days[fold.train].max() for fold in folds]
    assert np.isfinite(uno_weights(part, rung, taus)).all()


def test_every_centre_is_drawn_as_often_as_it_has_patients():
    centre = ["A"] * 10 + ["B"] * 3 + [""]
    weights = resample_weights(centre, 50, 0)
    assert weights.shape == (50, 14)
    assert (weights[:, :10].sum(axis=1) == 10).all()
    assert (weights[:, 10:13].sum(axis=1) == 3).all()
    assert (weights[:, 13] == 1).all()
    assert weights.std() > 0.5
    np.testing.assert_array_equal(weights, resample_weights(centre, 50, 0))


def test_intervals():
    assert interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert np.isnan(interval(np.array([1.0, np.nan]))).all()  # half the samples have no value: no interval
    assert np.isnan(interval(np.full(4, np.nan))).all()
