"""Concordance and AUC as counts of pairs, against hand counts, scikit-survival and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation import ranking
from autoseg.evaluation.ranking import Pairs, auc, concordance


def test_pairs_counted_by_hand():
    # events at 1 and 3; row 0 precedes 3 others, row 2 precedes row 3 only
    time, event = [1, 2, 3, 4], [1, 0, 1, 0]
    assert concordance(time, event, [4, 3, 2, 1]) == Pairs(4.0, 4)
    assert concordance(time, event, [1, 2, 3, 4]) == Pairs(0.0, 4)
    assert concordance(time, event, [1, 1, 1, 1]) == Pairs(2.0, 4)
    assert concordance(time, event, [4, 3, 2, 1], groups=["a", "a", "b", "b"]) == Pairs(2.0, 2)


def test_tied_times():
    # two events at one time are not comparable; an event precedes the censored one of the same time
    assert concordance([5, 5, 5], [1, 1, 0], [3, 2, 1]) == Pairs(2.0, 2)
    assert concordance([5, 5], [1, 1], [3, 2]).comparable == 0


def test_auc_counted_by_hand():
    assert auc([1, 1, 0, 0], [0.9, 0.4, 0.4, 0.1]) == Pairs(3.5, 4)
    assert auc([1, 0, 1, 0], [2, 1, 5, 9], groups=[0, 0, 1, 1]) == Pairs(1.0, 2)
    assert math.isnan(auc([1, 1], [0.1, 0.2]).index)


def test_counts_add_up_over_groups():
    assert Pairs(1.5, 3) + Pairs(2.0, 2) == Pairs(3.5, 5)
    assert Pairs(3.5, 5).index == 0.7


patients = st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(-3, 3), st.sampled_from("ab")), min_size=2, max_size=25)


@settings(deadline=None, max_examples=60)
@given(patients)
def test_agrees_with_scikit_survival(rows):
    from sksurv.metrics import concordance_index_censored

    time, event, risk, groups = (np.array(column) for column in zip(*rows, strict=True))
    pairs = concordance(time, event, risk)
    if pairs.comparable:  # scikit-survival raises or divides by zero where there is none
        index, concordant, discordant, tied, _ = concordance_index_censored(event, time.astype(float), risk.astype(float))
        assert pairs.comparable == concordant + discordant + tied
        assert pairs.concordant == concordant + tied / 2
        assert pairs.index == pytest.approx(index, abs=1e-12)
    parts = [concordance(time[groups == g], event[groups == g], risk[groups == g]) for g in "ab"]
    assert concordance(time, event, risk, groups) == parts[0] + parts[1]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30))
def test_agrees_with_scikit_learn(rows):
    from sklearn.metrics import roc_auc_score

    label, score = (np.array(column) for column in zip(*rows, strict=True))
    pairs = auc(label, score)
    if pairs.comparable:
        assert pairs.index == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    else:
        assert len(set(label)) == 1


def test_blocks_count_the_same(monkeypatch):
    random = np.random.default_rng(0)
    time, event, risk = random.integers(1, 30, 80), random.random(80) < 0.5, random.normal(size=80).round(1)
    whole = concordance(time, event, risk)
    monkeypatch.setattr(ranking, "_BLOCK", 200)
    assert concordance(time, event, risk) == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1, 0], [np.nan, 1]), "row 0: nan cannot be ranked"),
        (([1, np.inf], [1, 0], [0, 1]), "row 1: inf cannot be ranked"),
        (([1, 2, 3], [1, 0], [0, 1]), "one length"),
        (([1, 2], [2, 0], [0, 1]), "true or false"),
        (([[1, 2]], [1, 0], [0, 1]), "shape"),
        (([1, 2], [1, 0], [0, 1], ["a"]), "1 labels for 2 rows"),
    ],
)
def test_refuses_what_cannot_be_ranked(arguments, message):
    with pytest.raises(ValueError, match=message):
        concordance(*arguments)
