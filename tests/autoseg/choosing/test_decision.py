"""The rule of choosing on tables of Dice that were made up."""

import math

import numpy as np
import pytest

from autoseg.choosing.choose import case_weights
from autoseg.choosing.decision import Candidate, decide, difference, label_means, score

NAN = math.nan
FLAT, FULL, BOTH, CASCADE = Candidate("2d", 1, 10), Candidate("3d", 1, 30), Candidate("2d+3d", 2, 40), Candidate("cascade", 2, 60)


def samples(cases: int) -> np.ndarray:
    return case_weights([f"P{index}" for index in range(cases)])


def choose(candidates, dice, **options):
    cases = len(next(iter(dice.values())))
    return decide(candidates, dice, samples(cases), **{"patients": cases, **options})


def column(*values) -> np.ndarray:
    return np.array(values, float)[:, None]


def test_a_score_is_the_mean_over_labels_of_the_mean_over_cases_that_have_one():
    """By hand: label 1 (0.8 + 0.6) / 2, label 2 0.5 alone, label 3 has none."""
    dice = np.array([[0.8, NAN, NAN], [0.6, 0.5, NAN]])
    assert score(dice) == pytest.approx((0.7 + 0.5) / 2)
    assert label_means(dice)[:2] == pytest.approx([0.7, 0.5])
    assert math.isnan(label_means(dice)[2])
    assert math.isnan(score(np.full((2, 1), NAN)))
    assert score(dice, np.array([3.0, 1.0])) == pytest.approx((0.75 + 0.5) / 2), "the first case three times"


def test_the_highest_of_the_simple_ones_wins():
    dice = {"2d": column(0.7, 0.8, 0.75), "3d": column(0.71, 0.8, 0.75)}
    decision = choose([FLAT, FULL], dice)
    assert decision.chosen == "3d"
    assert decision.scores == pytest.approx({"2d": 0.75, "3d": 2.26 / 3})
    assert decision.reasons == ("3d scores 0.7533, the best of 2 candidates with one network.",)
    assert list(decision.differences) == ["2d"]


@pytest.mark.parametrize("order", [[FLAT, FULL], [FULL, FLAT]])
def test_equal_scores_go_to_the_simpler_one(order):
    dice = {"2d": column(0.7, 0.8), "3d": column(0.8, 0.7)}
    assert choose(order, dice).chosen == "2d", "fewer parameters"
    same = [Candidate("b", 1, 5), Candidate("a", 1, 5)]
    assert choose(same, {"a": dice["2d"], "b": dice["3d"]}).chosen == "a", "then the name"


def test_more_networks_are_taken_only_if_the_interval_lies_above_0():
    single = np.linspace(0.6, 0.8, 20)[:, None]
    always = choose([FULL, BOTH], {"3d": single, "2d+3d": single + 0.01})
    assert always.chosen == "2d+3d"
    assert "It takes its place." in always.reasons[1]
    seldom = single + np.where(np.arange(20)[:, None] == 0, 0.2, 0.0)  # one patient alone: higher by 0.01 on average too
    unsure = choose([FULL, BOTH], {"3d": single, "2d+3d": seldom})
    assert unsure.chosen == "3d"
    assert unsure.differences["2d+3d"].value == pytest.approx(0.01)
    assert unsure.differences["2d+3d"].low == 0.0
    assert "does not take its place: the interval does not lie above 0" in unsure.reasons[1]


def test_equal_scores_of_more_networks_do_not_win():
    single = column(0.5, 0.6, 0.7)
    assert choose([BOTH, FULL], {"3d": single, "2d+3d": single}).chosen == "3d"


def test_the_best_of_those_with_as_many_networks_is_compared():
    single = np.linspace(0.6, 0.8, 10)[:, None]
    decision = choose([FULL, BOTH, CASCADE], {"3d": single, "2d+3d": single + 0.01, "cascade": single + 0.02})
    assert decision.chosen == "cascade"
    assert decision.differences["2d+3d"].value == pytest.approx(-0.01)


def test_fewer_than_five_patients_have_no_say_about_more_networks():
    dice = {"3d": np.full((5, 1), 0.5), "2d+3d": np.full((5, 1), 0.6)}
    assert choose([FULL, BOTH], dice).chosen == "2d+3d"
    few = choose([FULL, BOTH], dice, patients=4)
    assert few.chosen == "3d"
    assert "too few patients" in few.reasons[1]


def test_an_empty_label_counts_where_it_is_found_wrongly():
    """The first case has no node: one candidate finds none (no Dice), the other one claims some (0)."""
    right, wrong = np.array([[0.8, NAN], [0.8, 0.6]]), np.array([[0.8, 0.0], [0.8, 0.6]])
    assert difference(right, wrong, samples(2)).value == pytest.approx((0.6 - 0.3) / 2)
    assert choose([FLAT, FULL], {"2d": wrong, "3d": right}).chosen == "3d"


def test_what_is_asked_for_is_taken():
    dice = {"2d": column(0.1, 0.1), "3d": column(0.9, 0.9)}
    decision = choose([FLAT, FULL], dice, take="2d")
    assert decision.chosen == "2d"
    assert decision.reasons == ("2d was asked for.",)
    assert decision.differences["3d"].value == pytest.approx(0.8)
    with pytest.raises(ValueError, match="no candidate 'x'; there are: 2d, 3d"):
        choose([FLAT, FULL], dice, take="x")


def test_patients_are_drawn_with_all_their_cases():
    weights = case_weights(["A", "A", "B", "C"])
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all(), "as many patients as there are"
    assert len(np.unique(weights, axis=0)) == 10, "27 draws of three patients, 10 up to their order"


def test_the_interval_is_that_of_a_paired_bootstrap():
    """Against scipy's, of the same statistic."""
    from scipy.stats import bootstrap

    gains = np.random.default_rng(1).normal(0.02, 0.05, 30)
    base = np.linspace(0.5, 0.9, 30)
    found = difference((base + gains)[:, None], base[:, None], samples(30))
    expected = bootstrap((gains,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    assert found.value == pytest.approx(gains.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.003)
