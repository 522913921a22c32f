"""Ridge Cox regression against scikit-survival, its own optimality conditions and hand counts."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prognosis.errors import FitError
from prognosis.models.cox import Cox, breslow, fit_cox, partial_log_likelihood


def patients(n=80, columns=4, seed=0, ties=True):
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(n, columns))
    time = random.exponential(500 * np.exp(-matrix[:, 0]))
    return matrix, np.ceil(time / 50) * 50 if ties else time + 0.01, random.random(n) < 0.6


def test_partial_likelihood_by_hand():
    # at time 1 all three are at risk, at time 2 the last two
    risk = np.array([0.5, 0.0, -1.0])
    first = 0.5 - math.log(math.exp(0.5) + 1 + math.exp(-1))
    assert partial_log_likelihood(np.array([1.0, 2, 3]), np.array([True, True, False]), risk) == pytest.approx(
        first + 0 - math.log(1 + math.exp(-1))
    )
    # tied events share the risk set of their time (Breslow)
    tied = partial_log_likelihood(np.array([1.0, 1, 3]), np.array([True, True, False]), risk)
    assert tied == pytest.approx(0.5 - 2 * math.log(math.exp(0.5) + 1 + math.exp(-1)))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.floats(-2, 2)), min_size=2, max_size=12))
def test_partial_likelihood_term_by_term(rows):
    time, event, risk = (np.array(column) for column in zip(*rows, strict=True))
    terms = [risk[k] - math.log(np.exp(risk[time >= time[k]]).sum()) for k in range(len(time)) if event[k]]
    assert partial_log_likelihood(time.astype(float), event, risk) == pytest.approx(sum(terms), abs=1e-9)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
@pytest.mark.parametrize("strata", [None, "three"])
def test_maximises_the_penalised_partial_likelihood(penalty, strata):
    """The gradient of the criterion, by finite differences of the test's own formula, is 0 at the coefficients."""
    matrix, time, event = patients()
    strata = None if strata is None else np.array(["", "A", "B"], dtype=object)[np.arange(len(time)) % 3]
    same = np.ones((len(time), len(time)), bool) if strata is None else strata[:, None] == strata

    def criterion(coefficients):
        risk = matrix @ coefficients
        terms = [risk[k] - math.log(np.exp(risk[(time >= time[k]) & same[k]]).sum()) for k in np.flatnonzero(event)]
        return sum(terms) - penalty * event.sum() * (coefficients**2).sum() / 2

    found, step = fit_cox(matrix, time, event, penalty, strata).coefficients, 1e-4
    for k in range(matrix.shape[1]):
        change = step * np.eye(matrix.shape[1])[k]
        assert (criterion(found + change) - criterion(found - change)) / (2 * step) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("columns", [1, 4, 100])
def test_coefficients_are_scikit_survivals(ties, columns):
    """With a penalty for each column, more columns than patients included."""
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    matrix, time, event = patients(columns=columns, ties=ties)
    penalty = np.linspace(0.05, 2.0, columns)
    theirs = CoxPHSurvivalAnalysis(alpha=penalty * event.sum(), ties="breslow", tol=1e-13).fit(matrix, Surv.from_arrays(event, time))
    np.testing.assert_allclose(fit_cox(matrix, time, event, penalty).coefficients, theirs.coef_, atol=1e-7)


def test_strata_do_not_compare_patients_of_different_hospitals():
    """Every patient of hospital B relapses later and has a larger value; within hospitals the value raises the risk."""
    random = np.random.default_rng(4)
    value = random.normal(size=200)
    time = np.ceil(1000 * random.exponential(np.exp(-value)))
    hospital = np.repeat([0, 1], 100)
    matrix, shifted, event = (value + 5 * hospital)[:, None], time + 1e6 * hospital, np.ones(200, bool)
    assert fit_cox(matrix, shifted, event, 0.01).coefficients[0] < 0
    apart = fit_cox(matrix, shifted, event, 0.01, hospital).coefficients[0]
    assert 0.7 < apart < 1.3
    # What happens between hospitals changes nothing.
    assert fit_cox(value[:, None], time, event, 0.01, hospital).coefficients[0] == pytest.approx(apart, abs=1e-9)


def test_baseline_hazard_is_scikit_survivals():
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    matrix, time, event = patients()
    theirs = CoxPHSurvivalAnalysis(alpha=0.1 * event.sum()).fit(matrix, Surv.from_arrays(event, time))
    ours = fit_cox(matrix, time, event, 0.1)
    at = np.unique(time)[:-1]
    expected = np.array([[function(t) for t in at] for function in theirs.predict_survival_function(matrix[:5])])
    np.testing.assert_allclose(ours.survival(matrix[:5], at), expected, atol=1e-12)


def test_without_columns_everybody_has_the_nelson_aalen_hazard():
    time, event = np.array([1.0, 2, 2, 3, 4]), np.array([True, True, True, False, False])
    model = fit_cox(np.zeros((5, 0)), time, event, 1.0)
    np.testing.assert_allclose(model.hazard, [1 / 5, 1 / 5 + 2 / 4])
    np.testing.assert_array_equal(model.risk(np.zeros((3, 0))), np.zeros(3))


def test_survival_before_between_and_beyond():
    model = Cox(np.array([1.0]), np.array([10.0, 20.0]), np.array([0.1, 0.3]), 25.0)
    survival = model.survival(np.array([[0.0], [1.0]]), [5, 10, 19.9, 20, 25, 25.1])
    np.testing.assert_allclose(survival[0, :5], np.exp([0, -0.1, -0.1, -0.3, -0.3]))
    np.testing.assert_allclose(survival[1, :5], np.exp(np.e * np.array([0, -0.1, -0.1, -0.3, -0.3])))
    assert np.isnan(survival[:, 5]).all()


def test_an_absurd_risk_is_no_warning():
    model = Cox(np.array([1.0]), np.array([10.0]), np.array([0.1]), 25.0)
    np.testing.assert_array_equal(model.survival(np.array([[1e6], [-1e6]]), [5, 15]), [[1, 0], [1, 1]])


def test_stronger_penalties_shrink():
    matrix, time, event = patients()
    sizes = [np.abs(fit_cox(matrix, time, event, penalty).coefficients).sum() for penalty in (0.01, 0.25, 4.0, 1e6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-4


def test_an_only_event_at_the_very_end_says_nothing():
    matrix, time, event = np.arange(4.0)[:, None], np.array([1.0, 2, 3, 4]), np.array([False, False, False, True])
    assert fit_cox(matrix, time, event, 1.0).coefficients == [0.0]


def test_no_event_and_no_convergence_are_errors():
    matrix, time, _ = patients(10)
    with pytest.raises(FitError, match="no training patient had the event"):
        fit_cox(matrix, time, np.zeros(10, dtype=bool), 1.0)
    with pytest.raises(FitError, match="did not converge .10 patients, 10 events, 4 columns"):
        fit_cox(np.full((10, 4), 1e300) * matrix, time, np.ones(10, dtype=bool), 1e-12)


def test_state_survives_json_bit_by_bit():
    model = fit_cox(*patients(), 0.1)
    again = Cox.from_state(json.loads(json.dumps(model.state(), allow_nan=False)))
    assert again.state() == model.state()
    times, hazard = breslow(*patients()[1:], patients()[0] @ model.coefficients)
    np.testing.assert_array_equal(again.times, times)
    np.testing.assert_array_equal(again.hazard, hazard)


def test_days_without_event_by_hand():
    """S is 1 until day 10, then exp(-h) until day 30, where the follow-up ends."""
    model = Cox(np.array([1.0]), np.array([10.0]), np.array([0.5]), last=30.0)
    days = model.restricted_mean(np.array([[0.0], [1.0], [-1.0]]))
    np.testing.assert_allclose(days, [10 + 20 * math.exp(-0.5 * math.exp(risk)) for risk in (0, 1, -1)])
    assert days[2] > days[0] > days[1], "the higher the risk, the fewer days"
