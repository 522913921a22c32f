"""A stage's model: for each class above the lowest the log odds of being that high or higher, and of them the class.

Source: Frank and Hall, "A simple approach to ordinal classification", ECML 2001 (an ordinal class by binary models).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.commands.entry import RESEARCH_ONLY
from prognosis.errors import FitError
from prognosis.models.document import incomplete, installed_versions, read_sealed, write_sealed
from prognosis.models.pipeline import Fitted, Pipeline
from prognosis.outcomes import Labels
from prognosis.validation.part import Part
from prognosis.validation.rung import fit_fold

if TYPE_CHECKING:
    import pandas

SCHEMA = "autoseg-stage/1"


@dataclass(frozen=True)
class StageModel:
    """A fitted model.

    Attributes:
        classes: ascending.
        share: of the training patients, by class.
        steps: class -> the model of being in it or above; classes without one are not told from the one below.
    """

    classes: tuple[str, ...]
    share: tuple[float, ...]
    steps: Mapping[str, Fitted]

    @property
    def first(self) -> Fitted:
        """One of the models: all have the same columns."""
        return next(iter(self.steps.values()))

    def probabilities(self, frame: pandas.DataFrame) -> np.ndarray:
        """Each class's probability, shape (n, classes).

        The models of the steps are fitted apart, so a higher step may come out likelier than a lower one; it counts as likely as that one.
        """
        reached = [np.ones(len(frame))]
        top = max(self.classes.index(name) for name in self.steps)
        for index, name in enumerate(self.classes[1:], start=1):
            if name in self.steps:
                reached.append(np.minimum(reached[-1], self.steps[name].probability(frame)))
            else:
                reached.append(reached[-1] if index < top else np.zeros(len(frame)))
        return np.stack([low - high for low, high in zip(reached, [*reached[1:], np.zeros(len(frame))], strict=True)], axis=1)

    def predict(self, frame: pandas.DataFrame) -> np.ndarray:
        """The number of each row's class, shape (n,): the one whose probability is largest beside its share of the training patients, which
        is what makes balanced accuracy largest.

        Source: Menon et al., "On the statistical consistency of algorithms for binary classification under class imbalance", ICML 2013.
        """
        share = np.array(self.share)
        return np.argmax(self.probabilities(frame) / np.where(share > 0, share, np.inf), axis=1)


def fit_stages(part: Part, classes: np.ndarray, names: Sequence[str], columns: Sequence[str], rung: str, seed: Sequence[int]) -> StageModel:
    """A model fitted on a training part; the penalty of each step comes from inner folds.

    Args:
        part: the training patients, and no others; its outcome does not count.
        classes: numbers of their classes, shape (n,).
        names: of all classes, ascending.
        columns: the predictors.
        rung: of the inner folds; see `prognosis.validation.folds.inner_folds`.

    Raises:
        FitError: no step has two patients on both sides, or no convergence.
    """
    steps = {}
    for index, name in enumerate(names[1:], start=1):
        above = classes >= index
        if min(above.sum(), (~above).sum()) >= 2:
            steps[name] = fit_fold(replace(part, outcome=Labels(above)), columns, rung, (*seed, index)).fitted
    if not steps:
        raise FitError("no stage is told from another: all training patients but one have the same")
    return StageModel(tuple(names), tuple(float((classes == index).mean()) for index in range(len(names))), steps)


def write_stage_model(path: Path, model: StageModel, about: Mapping[str, Any]) -> None:
    """Writes a model's document, whole or not at all.

    Args:
        about: what a reader should know, JSON-able: counts, hashes, evaluation.
    """
    content = {
        "schema": SCHEMA,
        "use": RESEARCH_ONLY,
        "classes": list(model.classes),
        "share": list(model.share),
        "steps": {name: fitted.state() for name, fitted in model.steps.items()},
        "about": dict(about),
        "versions": installed_versions(),
    }
    write_sealed(path, content)


def read_stage_model(path: Path) -> StageModel:
    """The model in a document.

    Raises:
        PrognosisModelError: it cannot be read, is of another schema, or was changed after it was written.
    """
    content = read_sealed(path, SCHEMA, "stage model", "prognosis stage")
    try:
        steps = {name: Pipeline.from_state(state) for name, state in content["steps"].items()}
        return StageModel(tuple(content["classes"]), tuple(map(float, content["share"])), steps)
    except (KeyError, TypeError, ValueError) as error:
        raise incomplete(path, error, "prognosis stage") from error
