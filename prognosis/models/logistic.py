"""Ridge logistic regression (scikit-learn) with a level for every centre, kept as plain numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis.errors import FitError

LEVEL_DEVIATION = 2.0
"""Standard deviation, in log odds, that the levels of centres are expected to have: wide, and finite where a centre has one class."""


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic model: log odds = intercept + matrix @ coefficients."""

    coefficients: np.ndarray
    intercept: float

    def risk(self, matrix: np.ndarray) -> np.ndarray:
        """The log odds of each row, shape (n,)."""
        return matrix @ self.coefficients + self.intercept

    def probability(self, matrix: np.ndarray) -> np.ndarray:
        """The probability of being positive of each row, shape (n,)."""
        from scipy.special import expit

        return expit(self.risk(matrix))

    def state(self) -> dict[str, Any]:
        """Every fitted number, as JSON."""
        return {"coefficients": self.coefficients.tolist(), "intercept": self.intercept}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Logistic:
        """The model whose `state` this was."""
        return Logistic(np.array(state["coefficients"], dtype=float), float(state["intercept"]))


def fit_logistic(matrix: np.ndarray, positive: np.ndarray, penalty: float | np.ndarray, strata: np.ndarray | None = None) -> Logistic:
    """The logistic model that maximises the likelihood with a penalty of the squared coefficients (the intercept is free).

    Args:
        matrix: shape (n, p), columns on comparable scales; p may be 0: every patient then has the prevalence.
        positive: shape (n,).
        penalty: one or shape (p,), above 0, in units of n * prevalence * (1 - prevalence), so that it means the same in small and large
            cohorts.
        strata: a label a row, shape (n,): each has a level of its own while the coefficients are fitted, so that they need not explain
            differences between strata. The model's intercept gives all rows together their prevalence.

    Raises:
        FitError: one class, or the optimisation does not converge.
    """
    prevalence = float(positive.mean())
    if prevalence in {0.0, 1.0}:
        raise FitError(f"all {len(positive)} training patients are {'positive' if prevalence else 'negative'}: nothing can be told apart")
    count = matrix.shape[1]
    if not count:
        return Logistic(np.zeros(0), math.log(prevalence / (1 - prevalence)))
    strength = np.broadcast_to(np.asarray(penalty, dtype=float) * len(positive) * prevalence * (1 - prevalence), count)
    labels = [] if strata is None else np.unique(strata)
    levels = np.array([strata == label for label in labels], dtype=float).reshape(len(labels), len(positive)).T
    # The library has one penalty for all columns: a column divided by the root of its own has a coefficient multiplied by it.
    scale = np.concatenate([1 / np.sqrt(strength), np.full(len(labels), LEVEL_DEVIATION)])
    coefficients = (scale * _coefficients(np.hstack([matrix, levels]) * scale, positive))[:count]
    return Logistic(coefficients, calibrated_intercept(positive, matrix @ coefficients))


def _coefficients(matrix: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """The coefficients under a normal prior of unit variance and a free intercept."""
    from scipy.linalg import LinAlgWarning
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        for category in (ConvergenceWarning, LinAlgWarning, RuntimeWarning):
            warnings.simplefilter("error", category)
        try:
            return LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-9, max_iter=200).fit(matrix, positive).coef_[0]
        except (ConvergenceWarning, LinAlgWarning, RuntimeWarning, ValueError) as error:
            raise FitError(
                f"the logistic model did not converge ({len(positive)} patients, {matrix.shape[1]} columns and levels): {error}. "
                "Look for a column with a few enormous values"
            ) from error


def calibrated_intercept(positive: np.ndarray, log_odds: np.ndarray) -> float:
    """What must be added to log odds for their mean probability to be the share of positives; infinite where there is one class.

    Args:
        positive, log_odds: shape (n,), n > 0.
    """
    from scipy.optimize import brentq
    from scipy.special import expit, logit

    level = float(logit(positive.mean()))
    low, high = level - float(log_odds.max()), level - float(log_odds.min())
    if not math.isfinite(level) or high - low < 1e-12:
        return low
    return float(brentq(lambda shift: float(expit(log_odds + shift).sum() - positive.sum()), low - 1e-9, high + 1e-9, xtol=1e-12))


def log_likelihood(positive: np.ndarray, log_odds: np.ndarray) -> float:
    """The log likelihood of labels under log odds."""
    return float(-np.logaddexp(0.0, np.where(positive, -log_odds, log_odds)).sum())


def levelled_log_likelihood(positive: np.ndarray, log_odds: np.ndarray) -> float:
    """The log likelihood after the shift of all log odds that makes it largest: what is left is how well they tell these rows apart."""
    if positive.all() or not positive.any():
        return 0.0
    return log_likelihood(positive, log_odds + calibrated_intercept(positive, log_odds))
