"""One model from a frame of predictors to a risk: encode, then ridge Cox or ridge logistic regression."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from prognosis.errors import PrognosisModelError
from prognosis.models.cox import Cox, fit_cox
from prognosis.models.encode import Encoder
from prognosis.models.logistic import Logistic, fit_logistic

if TYPE_CHECKING:
    import pandas

    from prognosis.cohort import Labels, Survival

Kind = Literal["survival", "binary"]


@dataclass(frozen=True)
class Penalty:
    """How strongly a ridge shrinks; see `fit_cox` and `fit_logistic` for the unit.

    Attributes:
        established: of the columns that are expected to matter: clinical ones and tumour volumes.
        others: of the many further image features, most of which do not, and of missing flags.
    """

    established: float
    others: float


@dataclass(frozen=True)
class Pipeline:
    """What is to be fitted: `fit` gives the fitted pipeline.

    Args:
        kind: of the target.
        columns: the predictors; none for the model that tells everybody the same.
        established: those of them that the ridge shrinks as established ones.
        penalty: of the ridge.
    """

    kind: Kind
    columns: tuple[str, ...]
    established: tuple[str, ...]
    penalty: Penalty

    def fit(
        self, frame: pandas.DataFrame, kinds: Mapping[str, str], outcome: Survival | Labels, strata: np.ndarray | None = None
    ) -> Fitted:
        """The pipeline, every step of it fitted on these rows.

        Args:
            frame: the training rows, and no others.
            kinds: "numeric" or "categorical" by column.
            outcome: of the same rows.
            strata: a label a row, of what the coefficients need not explain; see `fit_cox` and `fit_logistic`.

        Raises:
            FitError: no event, one class, or no convergence.
        """
        encoder = Encoder.fit(frame, kinds, self.columns)
        penalties = ridge_penalties(encoder, self.established, self.penalty)
        return Fitted(self, encoder, fit_model(self.kind, encoder.matrix(frame), outcome, penalties, strata))

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Fitted:
        """The fitted pipeline whose `state` this was.

        Raises:
            PrognosisModelError: something is missing or of the wrong kind.
        """
        try:
            penalty = Penalty(float(state["penalty"]["established"]), float(state["penalty"]["others"]))
            pipeline = Pipeline(state["kind"], tuple(state["columns"]), tuple(state["established"]), penalty)
            encoder = Encoder.from_state(state["encoder"])
            model = (Cox if pipeline.kind == "survival" else Logistic).from_state(state["model"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PrognosisModelError(
                f"the state of a model is not complete: {type(error).__name__} {error}. Fit the model again"
            ) from error
        if len(model.coefficients) != len(encoder.names):
            raise PrognosisModelError(
                f"the state of a model has {len(model.coefficients)} coefficients for {len(encoder.names)} columns. Fit the model again"
            )
        return Fitted(pipeline, encoder, model)


def ridge_penalties(encoder: Encoder, established: Collection[str], penalty: Penalty) -> np.ndarray:
    """The penalty of each column of an encoder's matrix."""
    return np.array([penalty.established if source in established else penalty.others for source in encoder.sources], dtype=float)


def fit_model(
    kind: Kind, matrix: np.ndarray, outcome: Survival | Labels, penalties: np.ndarray, strata: np.ndarray | None = None
) -> Cox | Logistic:
    """The model of a target's kind, fitted on encoded training rows.

    Args:
        penalties: of each column of the matrix.
        strata: as for `Pipeline.fit`.

    Raises:
        FitError: as `Pipeline.fit`.
    """
    if kind == "survival":
        return fit_cox(matrix, np.asarray(outcome.time_days, dtype=float), np.asarray(outcome.event, dtype=bool), penalties, strata)
    return fit_logistic(matrix, np.asarray(outcome.positive, dtype=bool), penalties, strata)


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline: knows what it was, what its columns mean and what the model learned."""

    pipeline: Pipeline
    encoder: Encoder
    model: Cox | Logistic

    def risk(self, frame: pandas.DataFrame) -> np.ndarray:
        """The log hazard ratio (survival) or log odds (binary) of each row, shape (n,).

        Raises:
            PrognosisModelError: the frame lacks a column.
        """
        return self.model.risk(self.encoder.matrix(frame))

    def survival(self, frame: pandas.DataFrame, times_days: Sequence[float] | np.ndarray) -> np.ndarray:
        """S(t) of each row, shape (n, len(times_days)); nan beyond the follow-up of the training rows. Survival targets only."""
        assert isinstance(self.model, Cox)
        return self.model.survival(self.encoder.matrix(frame), times_days)

    def restricted_mean(self, frame: pandas.DataFrame) -> np.ndarray:
        """Days free of the event within the training rows' follow-up, expected of each row, shape (n,). Survival targets only."""
        assert isinstance(self.model, Cox)
        return self.model.restricted_mean(self.encoder.matrix(frame))

    def probability(self, frame: pandas.DataFrame) -> np.ndarray:
        """The probability of being positive of each row, shape (n,). Binary targets only."""
        assert isinstance(self.model, Logistic)
        return self.model.probability(self.encoder.matrix(frame))

    def outside(self, frame: pandas.DataFrame) -> list[tuple[str, ...]]:
        """For each patient, in words, what no training patient showed; see `Encoder.outside`."""
        return self.encoder.outside(frame)

    def coefficients(self) -> dict[str, float]:
        """The coefficient of each matrix column by its name."""
        return dict(zip(self.encoder.names, self.model.coefficients.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Every fitted number and level, as JSON; `Pipeline.from_state` takes it back."""
        return {
            "kind": self.pipeline.kind,
            "columns": list(self.pipeline.columns),
            "established": list(self.pipeline.established),
            "penalty": asdict(self.pipeline.penalty),
            "encoder": self.encoder.state(),
            "model": self.model.state(),
        }
