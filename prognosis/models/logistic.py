"""Ridge logistic regression (scikit-learn), kept as plain numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis.errors import FitError


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


def fit_logistic(matrix: np.ndarray, positive: np.ndarray, penalty: float) -> Logistic:
    """The logistic model that maximises the likelihood with a penalty of the squared coefficients (the intercept is free).

    Args:
        matrix: shape (n, p), columns on comparable scales; p may be 0: every patient then has the prevalence.
        positive: shape (n,).
        penalty: in units of n * prevalence * (1 - prevalence), so that it means the same in small and large cohorts.

    Raises:
        FitError: one class, or the optimisation does not converge.
    """
    prevalence = float(positive.mean())
    if prevalence in {0.0, 1.0}:
        raise FitError(f"all {len(positive)} training patients are {'positive' if prevalence else 'negative'}: nothing can be told apart")
    if not matrix.shape[1]:
        return Logistic(np.zeros(0), math.log(prevalence / (1 - prevalence)))
    from scipy.linalg import LinAlgWarning
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    strength = penalty * len(positive) * prevalence * (1 - prevalence)
    with warnings.catch_warnings():
        for category in (ConvergenceWarning, LinAlgWarning, RuntimeWarning):
            warnings.simplefilter("error", category)
        try:
            fitted = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-9, max_iter=200).fit(matrix, positive)
        except (ConvergenceWarning, LinAlgWarning, RuntimeWarning, ValueError) as error:
            raise FitError(
                f"the logistic model did not converge ({len(positive)} patients, {matrix.shape[1]} columns, "
                f"penalty {strength:.3g}): {error}. Look for a column with a few enormous values"
            ) from error
    return Logistic(fitted.coef_[0], float(fitted.intercept_[0]))


def log_likelihood(positive: np.ndarray, log_odds: np.ndarray) -> float:
    """The log likelihood of labels under log odds."""
    return float(-np.logaddexp(0.0, np.where(positive, -log_odds, log_odds)).sum())
