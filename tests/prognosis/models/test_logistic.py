"""Ridge logistic regression against its own optimality conditions and hand counts."""

import math

import numpy as np
import pytest
from scipy.optimize import fsolve

from prognosis.errors import FitError
from prognosis.models.logistic import (
    LEVEL_DEVIATION,
    Logistic,
    calibrated_intercept,
    fit_logistic,
    levelled_log_likelihood,
    log_likelihood,
)


def patients(n=120, seed=0):
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(n, 3))
    return matrix, random.random(n) < 1 / (1 + np.exp(-matrix[:, 0] - 1))


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_maximises_the_penalised_likelihood(penalty):
    matrix, positive = patients()
    model = fit_logistic(matrix, positive, penalty)
    residual = positive - 1 / (1 + np.exp(-(matrix @ model.coefficients + model.intercept)))
    information = len(positive) * positive.mean() * (1 - positive.mean())
    np.testing.assert_allclose(matrix.T @ residual, penalty * information * model.coefficients, atol=1e-4)
    assert residual.sum() == pytest.approx(0, abs=1e-4)  # the intercept is not penalised


def test_each_column_has_its_penalty_and_strata_their_levels():
    """Optimality: the residuals' products with the columns are the penalties' pull, those with a level that of its prior."""
    matrix, positive = patients()
    penalty = np.array([0.01, 0.3, 2.0])
    strata = np.array(["", "A", "B"], dtype=object)[np.arange(len(positive)) % 3]
    found = fit_logistic(matrix, positive, penalty, strata).coefficients
    information = len(positive) * positive.mean() * (1 - positive.mean())

    def residual(levels):
        shift = levels[np.searchsorted(["", "A", "B"], strata.astype(str))]
        return positive - 1 / (1 + np.exp(-(matrix @ found + shift)))

    # The levels: one free common shift, and a deviation of each stratum with a normal prior.
    def conditions(levels):
        common, deviations = levels[0], levels[1:]
        sums = [residual(common + deviations)[strata == name].sum() for name in ("", "A", "B")]
        return [sum(sums), *(np.array(sums) - deviations / LEVEL_DEVIATION**2)]

    levels = fsolve(conditions, np.zeros(4), xtol=1e-12)
    np.testing.assert_allclose(matrix.T @ residual(levels[0] + levels[1:]), penalty * information * found, atol=1e-4)


def test_a_level_takes_what_only_tells_the_hospital():
    """A column that differs between hospitals of different prevalence, and tells nothing within them."""
    random = np.random.default_rng(1)
    hospital = np.repeat([0, 1], 300)
    positive = random.random(600) < np.where(hospital, 0.8, 0.2)
    matrix = (hospital + 0.3 * random.normal(size=600))[:, None]
    assert fit_logistic(matrix, positive, 0.01).coefficients[0] > 1
    apart = fit_logistic(matrix, positive, 0.01, hospital)
    assert abs(apart.coefficients[0]) < 0.5
    assert apart.probability(matrix).mean() == pytest.approx(positive.mean())


def test_a_stratum_of_one_class_is_no_trouble():
    matrix, positive = patients()
    strata = np.where(positive & (matrix[:, 1] > 0), "all positive", "others")
    assert np.isfinite(fit_logistic(matrix, positive, 0.1, strata).coefficients).all()


@pytest.mark.parametrize("shift", [0.0, 300.0, -3.0])
def test_intercept_gives_the_prevalence(shift):
    matrix, positive = patients()
    log_odds = 3 * matrix[:, 0] + shift
    found = calibrated_intercept(positive, log_odds)
    assert (1 / (1 + np.exp(-(log_odds + found)))).mean() == pytest.approx(positive.mean(), abs=1e-9)
    assert calibrated_intercept(positive, np.full(len(positive), shift)) == pytest.approx(
        math.log(positive.mean() / (1 - positive.mean())) - shift
    )


def test_levelled_likelihood_is_the_best_over_all_shifts():
    matrix, positive = patients()
    best = max(log_likelihood(positive, matrix[:, 0] + shift) for shift in np.linspace(-3, 5, 4001))
    assert levelled_log_likelihood(positive, matrix[:, 0]) == pytest.approx(best, abs=1e-4)
    assert levelled_log_likelihood(positive, matrix[:, 0] + 50) == pytest.approx(best, abs=1e-4)
    assert levelled_log_likelihood(np.ones(3, bool), np.zeros(3)) == 0.0


def test_without_columns_everybody_has_the_prevalence():
    model = fit_logistic(np.zeros((4, 0)), np.array([True, False, False, False]), 1.0)
    np.testing.assert_allclose(model.probability(np.zeros((2, 0))), 0.25)


def test_likelihood_by_hand():
    assert log_likelihood(np.array([True, False]), np.array([0.0, math.log(3)])) == pytest.approx(math.log(0.5) + math.log(0.25))
    assert log_likelihood(np.array([True]), np.array([-1000.0])) == -1000.0


def test_one_class_and_nonsense_are_errors():
    matrix, positive = patients()
    with pytest.raises(FitError, match="all 120 training patients are positive"):
        fit_logistic(matrix, np.ones(120, dtype=bool), 1.0)
    with pytest.raises(FitError, match="did not converge"):
        fit_logistic(matrix * 1e300, positive, 1.0)


def test_state_comes_back():
    model = fit_logistic(*patients(), 0.1)
    assert Logistic.from_state(model.state()).state() == model.state()
