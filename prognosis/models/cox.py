"""Ridge Cox regression (scikit-survival), its baseline hazard as plain arrays, and the partial likelihood that inner folds compare."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis import require_survival
from prognosis.errors import FitError


@dataclass(frozen=True)
class Cox:
    """A fitted proportional-hazards model.

    Attributes:
        coefficients: log hazard ratio a unit of each matrix column.
        times: the training rows' event times in days, ascending.
        hazard: cumulative baseline hazard just after each of `times`.
        last: the longest follow-up of a training row in days; nothing is known beyond.
    """

    coefficients: np.ndarray
    times: np.ndarray
    hazard: np.ndarray
    last: float

    def risk(self, matrix: np.ndarray) -> np.ndarray:
        """The log hazard ratio of each row to the baseline, shape (n,)."""
        return matrix @ self.coefficients

    def survival(self, matrix: np.ndarray, times_days: Sequence[float] | np.ndarray) -> np.ndarray:
        """S(t) of each row, shape (n, len(times_days)): 1 before the first event, nan beyond the training rows' follow-up."""
        times = np.asarray(times_days, dtype=float)
        hazard = np.concatenate([[0.0], self.hazard])[np.searchsorted(self.times, times, side="right")]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # a very high risk is S = 0, at hazard 0 it is still 1
            exponent = np.where(hazard == 0, 0.0, hazard * np.exp(self.risk(matrix))[:, None])
            return np.where(times <= self.last, np.exp(-exponent), np.nan)

    def state(self) -> dict[str, Any]:
        """Every fitted number, as JSON."""
        return {
            "coefficients": self.coefficients.tolist(),
            "baseline": {"times_days": self.times.tolist(), "cumulative_hazard": self.hazard.tolist(), "last_days": self.last},
        }

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Cox:
        """The model whose `state` this was."""
        baseline = state["baseline"]
        arrays = (
            np.array(values, dtype=float) for values in (state["coefficients"], baseline["times_days"], baseline["cumulative_hazard"])
        )
        return Cox(*arrays, last=float(baseline["last_days"]))


def fit_cox(matrix: np.ndarray, time_days: np.ndarray, event: np.ndarray, penalty: float) -> Cox:
    """The Cox model that maximises the penalised partial likelihood (ties after Breslow).

    Args:
        matrix: shape (n, p), columns on comparable scales; p may be 0: every patient then has the same risk.
        time_days, event: shape (n,).
        penalty: of the squared coefficients, in units of the number of events, so that it means the same in small and large cohorts.

    Raises:
        FitError: no event, or the optimisation does not converge.
    """
    if not event.any():
        raise FitError("no training patient had the event: a Cox model needs events. Look at the target's event column")
    coefficients = np.zeros(matrix.shape[1])
    if matrix.shape[1] and comparable_events(time_days, event):
        coefficients = _coefficients(matrix, time_days, event, penalty * int(event.sum()))
    times, hazard = breslow(time_days, event, matrix @ coefficients)
    return Cox(coefficients, times, hazard, float(time_days.max()))


def breslow(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Event times, ascending, and the cumulative baseline hazard after each.

    Source: Breslow, "Covariance Analysis of Censored Survival Data", Biometrics 1974.
    """
    times, deaths = np.unique(time[event], return_counts=True)
    order = np.argsort(time, kind="stable")
    from_here_on = np.cumsum(np.exp(risk[order])[::-1])[::-1]
    at_risk = from_here_on[np.searchsorted(time[order], times, side="left")]
    return times, np.cumsum(deaths / at_risk)


def partial_log_likelihood(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    """Cox's log partial likelihood of risks (ties after Breslow); 0 where there is no event."""
    order = np.argsort(-time, kind="stable")
    time, event, risk = time[order], event[order], risk[order]
    if not event.any():
        return 0.0
    log_at_risk = np.logaddexp.accumulate(risk)[np.searchsorted(-time, -time, side="right") - 1]
    return float((risk - log_at_risk)[event].sum())


def comparable_events(time: np.ndarray, event: np.ndarray) -> int:
    """How many events happened while somebody else was still observed: the others say nothing about coefficients."""
    longest, last = float(time.max()), int((time == time.max()).sum())
    return int((event & ((time < longest) | (last > 1))).sum())


def _coefficients(matrix: np.ndarray, time: np.ndarray, event: np.ndarray, alpha: float) -> np.ndarray:
    require_survival()
    from scipy.linalg import LinAlgError, LinAlgWarning
    from sklearn.exceptions import ConvergenceWarning
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    with warnings.catch_warnings():
        for category in (ConvergenceWarning, LinAlgWarning, RuntimeWarning):
            warnings.simplefilter("error", category)
        try:
            fitted = CoxPHSurvivalAnalysis(alpha=alpha, ties="breslow").fit(matrix, Surv.from_arrays(event, time))
        except (ConvergenceWarning, LinAlgWarning, RuntimeWarning, LinAlgError, ValueError) as error:
            raise FitError(
                f"the Cox model did not converge ({len(time)} patients, {int(event.sum())} events, {matrix.shape[1]} columns, "
                f"alpha {alpha:.3g}): {error}. Look for a column with a few enormous values, or one that repeats the outcome"
            ) from error
    return fitted.coef_
