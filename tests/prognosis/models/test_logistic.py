"""Ridge logistic regression against its own optimality conditions and hand counts."""

import math

import numpy as np
import pytest

from prognosis.errors import FitError
from prognosis.models.logistic import Logistic, fit_logistic, log_likelihood


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
