"""What the fitted models say of the one patient, in the form that an output asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError
from prognosis.challenge.inputs import CASE
from prognosis.errors import CohortError, PrognosisModelError
from prognosis.features.case import FEATURES, Measured
from prognosis.features.feature import EMPTY_MASK
from prognosis.features.support import Judgement, judge
from prognosis.models.document import PrognosisModel, read_model
from prognosis.models.pipeline import Fitted
from prognosis.prediction.patients import Clinical, model_frame
from prognosis.staging.model import read_stage_model

SENSES = ("risk", "time")
NOTHING_KNOWN = Clinical(None, {})


@dataclass(frozen=True)
class Answer:
    """A value to write, and what speaks against it.

    Attributes:
        value: JSON-able; None where the model does not speak.
        reasons: in words.
        is_fallback: the value is that of a patient of whom nothing is known.
    """

    value: Any
    reasons: tuple[str, ...] = ()
    is_fallback: bool = False


@dataclass(frozen=True)
class Patient:
    """What is known of the patient.

    Attributes:
        clinical: the EHR.
        measured: the mask's features; None where there is no mask, and then `why` says why.
    """

    clinical: Clinical
    measured: Measured | None
    why: str = ""

    @property
    def features(self) -> Mapping[str, Measured]:
        """By case, as prognosis takes them."""
        return {} if self.measured is None else {CASE: self.measured}

    def judged(self, fitted: Fitted) -> Judgement:
        """Whether a model may speak of the patient."""
        if self.measured is None and any(column in FEATURES for column in fitted.encoder.columns):
            return Judgement("not_predicted", (f"there is no mask to measure: {self.why}",))
        flags = (EMPTY_MASK,) if self.measured is None else self.measured.flags
        return judge(fitted, model_frame(fitted, [CASE], self.clinical, self.features), [flags])[0]


def model_path(models: Path, name: str) -> Path:
    """Where a target's model lies in a folder of models."""
    return models / "prognosis" / name / "model.json"


def predicted_rfs(models: Path, patient: Patient, sense: str, *, fallback: bool) -> Answer:
    """The RFS as the challenge wants it: the log hazard ratio ("risk"), or the expected days without relapse within the training patients'
    follow-up ("time"), which ranks patients the other way round.

    Args:
        fallback: where the model does not speak, give what it says of a patient of whom nothing is known.

    Raises:
        AutosegError: there is no such model, or it is damaged, or the EHR does not fit it.
    """
    model = _model(models, "rfs", "survival")

    def say(clinical: Clinical, features: Mapping[str, Measured]) -> float:
        frame = model_frame(model.fitted, [CASE], clinical, features)
        return float((model.fitted.risk if sense == "risk" else model.fitted.restricted_mean)(frame)[0])

    return _answer(model.fitted, patient, say, fallback)


def predicted_hpv(models: Path, patient: Patient, *, fallback: bool) -> Answer:
    """Whether the patient is HPV positive by the threshold that was chosen in training; arguments and errors as `predicted_rfs`."""
    model = _model(models, "hpv", "binary")
    threshold = model.threshold
    if threshold is None:
        raise PrognosisModelError(f"{model_path(models, 'hpv')}: has no threshold. Fit it again with: prognosis fit --target hpv")

    def say(clinical: Clinical, features: Mapping[str, Measured]) -> bool:
        return bool(model.fitted.probability(model_frame(model.fitted, [CASE], clinical, features))[0] >= threshold)

    return _answer(model.fitted, patient, say, fallback)


def predicted_stage(models: Path, name: str, patient: Patient, *, fallback: bool) -> Answer:
    """The T or N stage; arguments and errors as `predicted_rfs`.

    Args:
        name: "t-stage" or "n-stage".
    """
    path = models / "prognosis" / name / "stage.json"
    if not path.is_file():
        raise PrognosisModelError(
            f"{path}: there is no such model, and without one no stage is guessed. Fit one with: prognosis stage --target {name}, and put "
            "its stage.json there"
        )
    model = read_stage_model(path)

    def say(clinical: Clinical, features: Mapping[str, Measured]) -> str:
        return model.classes[int(model.predict(model_frame(model.first, [CASE], clinical, features))[0])]

    return _answer(model.first, patient, say, fallback)


def _answer(fitted: Fitted, patient: Patient, say: Any, fallback: bool) -> Answer:
    """What `say` gives of the patient, where the model may speak."""
    try:
        judgement = patient.judged(fitted)
    except CohortError as error:  # a cell of the EHR that cannot be meant
        judgement = Judgement("not_predicted", (str(error),))
    if judgement.status == "not_predicted":
        return Answer(say(NOTHING_KNOWN, {}), judgement.reasons, True) if fallback else Answer(None, judgement.reasons)
    value = say(patient.clinical, patient.features)
    if isinstance(value, float) and not math.isfinite(value):
        raise AutosegError(f"the model gives {value}: a column lies far outside what it was fitted on")
    return Answer(value, judgement.reasons)


def _model(models: Path, name: str, kind: str) -> PrognosisModel:
    path = model_path(models, name)
    if not path.is_file():
        raise PrognosisModelError(
            f"{path}: there is no such model. Fit one with: prognosis fit --target {name}, and put its model.json there"
        )
    model = read_model(path)
    if model.target.kind != kind:
        raise PrognosisModelError(f"{path}: is a {model.target.kind} model of {model.target.title}; {name} needs a {kind} one")
    return model
