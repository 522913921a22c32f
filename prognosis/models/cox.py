"""Ridge Cox regression, stratified by centre, its baseline hazard as plain arrays, and the partial likelihood that inner folds compare.

scikit-survival's Cox model has no strata and took 18 times as long; the tests hold this one against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis.errors import FitError

STEPS = 60
"""Newton's method needs five to ten from zero; more means that the criterion has no maximum in floating-point numbers."""

CONVERGED = 1e-10
"""When twice the gain that a Newton step promises, in units of the log likelihood, is below this."""


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

    def restricted_mean(self, matrix: np.ndarray) -> np.ndarray:
        """Days free of the event within the training rows' follow-up, expected of each row, shape (n,): the area under S(t) up to `last`.

        The higher the risk, the fewer days: it ranks patients as the risk does, the other way round.

        Source: Royston and Parmar, "Restricted mean survival time", BMC Medical Research Methodology 2013.
        """
        starts, ends = np.concatenate([[0.0], self.times]), np.concatenate([self.times, [self.last]])
        return self.survival(matrix, starts) @ (ends - starts)

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


def fit_cox(
    matrix: np.ndarray, time_days: np.ndarray, event: np.ndarray, penalty: float | np.ndarray, strata: np.ndarray | None = None
) -> Cox:
    """The Cox model that maximises the penalised partial likelihood (ties after Breslow).

    Args:
        matrix: shape (n, p), columns on comparable scales; p may be 0: every patient then has the same risk.
        time_days, event: shape (n,).
        penalty: of the squared coefficients, one or shape (p,), in units of the number of events, so that it means the same in small and
            large cohorts.
        strata: a label a row, shape (n,): only rows of the same stratum are compared with each other, so that the coefficients say nothing
            of differences between strata. The baseline hazard is that of all rows together.

    Raises:
        FitError: no event, or the optimisation does not converge.
    """
    if not event.any():
        raise FitError("no training patient had the event: a Cox model needs events. Look at the target's event column")
    groups = rows_of(strata, len(event))
    coefficients = np.zeros(matrix.shape[1])
    if matrix.shape[1] and sum(comparable_events(time_days[rows], event[rows]) for rows in groups):
        sets = [_RiskSets.of(matrix[rows], time_days[rows], event[rows]) for rows in groups]
        alpha = np.broadcast_to(np.asarray(penalty, dtype=float) * int(event.sum()), coefficients.shape)
        coefficients = _maximum(sets, alpha)
    times, hazard = breslow(time_days, event, matrix @ coefficients)
    return Cox(coefficients, times, hazard, float(time_days.max()))


def rows_of(strata: np.ndarray | None, n: int) -> list[np.ndarray]:
    """The row numbers of each stratum; of all rows where there are no strata."""
    if strata is None:
        return [np.arange(n)]
    return [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]


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


@dataclass(frozen=True, eq=False)
class _RiskSets:
    """One stratum, the longest follow-up first, so that whoever is at risk stands at the beginning.

    Attributes:
        matrix: shape (n, p).
        events: row numbers.
        last: by event, the last row that was at risk when it happened.
    """

    matrix: np.ndarray
    events: np.ndarray
    last: np.ndarray

    @staticmethod
    def of(matrix: np.ndarray, time: np.ndarray, event: np.ndarray) -> _RiskSets:
        order = np.argsort(-time, kind="stable")
        time, events = time[order], np.flatnonzero(event[order])
        return _RiskSets(matrix[order], events, np.searchsorted(-time, -time[events], side="right") - 1)

    def likelihood(self, coefficients: np.ndarray) -> float:
        """The log partial likelihood."""
        risk = self.matrix @ coefficients
        return float((risk[self.events] - np.logaddexp.accumulate(risk)[self.last]).sum()) if len(self.events) else 0.0

    def derivatives(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (p,) and information (p, p) of the log partial likelihood."""
        risk = self.matrix @ coefficients
        weight = np.exp(risk - risk.max())
        at_risk = np.cumsum(weight)[self.last]
        mean = np.cumsum(weight[:, None] * self.matrix, axis=0)[self.last] / at_risk[:, None]
        # A row counts in the risk set of every event at or before its own time: those whose last row is not before it.
        shares = np.cumsum(np.bincount(self.last, 1 / at_risk, minlength=len(weight))[::-1])[::-1] * weight
        information = (self.matrix * shares[:, None]).T @ self.matrix - mean.T @ mean
        return (self.matrix[self.events] - mean).sum(axis=0), information


def _maximum(sets: Sequence[_RiskSets], alpha: np.ndarray) -> np.ndarray:
    """Where the sets' log likelihood less half of alpha times the squared coefficients is largest, by Newton's method."""

    def criterion(coefficients: np.ndarray) -> float:
        return sum(one.likelihood(coefficients) for one in sets) - float(alpha @ coefficients**2) / 2

    found, value = np.zeros(len(alpha)), criterion(np.zeros(len(alpha)))
    with np.errstate(all="ignore"):
        for _ in range(STEPS):
            gradients, informations = zip(*(one.derivatives(found) for one in sets if len(one.events)), strict=True)
            gradient = np.sum(gradients, axis=0) - alpha * found
            try:
                step = np.linalg.solve(np.sum(informations, axis=0) + np.diag(alpha), gradient)
            except np.linalg.LinAlgError:
                break
            promised = float(gradient @ step)
            if promised < CONVERGED:
                return found + step
            share = 1.0
            while not (reached := criterion(found + share * step)) > value and share > 1e-6:
                share /= 2
            if not reached > value:
                break
            found, value = found + share * step, reached
    events = sum(len(one.events) for one in sets)
    raise FitError(
        f"the Cox model did not converge ({sum(len(one.matrix) for one in sets)} patients, {events} events, {len(alpha)} columns). "
        "Look for a column with a few enormous values, or one that repeats the outcome"
    )
