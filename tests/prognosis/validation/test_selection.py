"""The inner loop: thresholds against brute force, penalties where the answer is known, folds that cannot be fitted."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_cohort
from hypothesis import given, settings
from hypothesis import strategies as st

from prognosis.models.pipeline import Penalty
from prognosis.validation.part import Part
from prognosis.validation.selection import FALLBACK, PENALTIES, best_threshold, select


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=20).filter(lambda rows: len({r[0] for r in rows}) == 2))
def test_no_other_threshold_is_better(rows):
    positive, probability = (np.array(column) for column in zip(*rows, strict=True))
    probability = probability / 6

    def balanced_accuracy(threshold):
        called = probability >= threshold
        return (called[positive].mean() + (~called[~positive]).mean()) / 2

    best = max(balanced_accuracy(candidate) for candidate in np.linspace(-0.01, 1.01, 104))
    assert balanced_accuracy(best_threshold(positive, probability)) == pytest.approx(best)


def test_noise_gets_the_strongest_penalty_and_signal_a_weak_one():
    noise, signal = (select(Part.of(make_cohort(n=90, signal=s, seed=3)), ("texture",), "random", (0,)) for s in (0.0, 3.0))
    assert noise.penalty.others > signal.penalty.others
    assert noise.penalty.others >= 4
    assert [penalty for penalty, _ in signal.scores] == [Penalty(value, value) for value in PENALTIES]
    assert dict(signal.scores)[signal.penalty] == max(score for _, score in signal.scores)


def test_established_columns_and_the_others_have_each_their_penalty():
    """Volume, age and stage tell the outcome; of twenty further image features none does."""
    cohort = make_cohort(n=150, signal=2.0, seed=3)
    noise = {f"noise_{k}": column for k, column in enumerate(np.random.default_rng(0).normal(size=(20, 150)))}
    part = Part.of(cohort)
    part = replace(
        part,
        frame=part.frame.assign(**noise).drop(columns=["texture", "noise"]),
        kinds=part.kinds | dict.fromkeys(noise, "numeric"),
        groups={"age": "clinical", "stage": "clinical", "volume_total_ml": "volume"} | dict.fromkeys(noise, "image"),
    )
    selection = select(part, tuple(part.groups), "centre", (0,))
    assert all(penalty.established <= penalty.others for penalty, _ in selection.scores)
    assert selection.penalty.established < selection.penalty.others


def test_hospitals_of_different_prevalence_are_not_what_a_penalty_is_chosen_by():
    """Shifting the outcome odds of whole hospitals leaves the scores' order to what tells patients of one hospital apart."""
    part = Part.of(make_cohort("binary", n=300, prevalence_shift=1.5, signal=0.0, seed=2))
    about_hospital = part.frame.assign(texture=np.where(part.centre == "H2", 3.0, 0.0) + part.frame["noise"])
    selection = select(replace(part, frame=about_hospital), ("texture",), "centre", (0,))
    assert selection.penalty.others >= 4


def test_without_columns_there_is_nothing_to_choose():
    selection = select(Part.of(make_cohort("binary", n=40)), (), "random", (0,))
    assert selection.scores == ()
    assert 0 < selection.threshold < 1


def test_inner_folds_that_cannot_be_fitted_say_nothing():
    """One positive patient: the inner fold that holds it out has one class left to fit on."""
    part = Part.of(make_cohort("binary", n=30))
    part.outcome.positive[:] = False
    part.outcome.positive[3] = True
    selection = select(part, ("texture",), "random", (0,))
    assert selection.penalty in [Penalty(value, value) for value in PENALTIES]
    part.outcome.positive[3] = False
    nothing = select(part, ("texture",), "random", (0,))
    assert (nothing.penalty, nothing.scores, nothing.threshold) == (FALLBACK, (), 0.0)
