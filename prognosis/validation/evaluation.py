"""The result of an evaluation: one JSON document without patients, and the held-out predictions apart from it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.commands.entry import RESEARCH_ONLY
from prognosis.models.document import installed_versions
from prognosis.outcomes import Survival
from prognosis.validation.bootstrap import LABEL
from prognosis.validation.rung import Rung

if TYPE_CHECKING:
    from prognosis.cohort import Cohort

SCHEMA = "autoseg-evaluation/1"
PREDICTION_COLUMNS = ("patient", "centre", "rung", "fold", "model", "risk", "probability", "threshold", "cut", "time_days", "happened")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a cohort's models are.

    Attributes:
        cohort: what was evaluated.
        seed: of folds and bootstrap.
        segmentation_saw_centre: whether the networks behind the masks had seen the held-out centres; None where no masks were used.
        segmentation_saw_patient: whether they had learned from masks by networks that had seen the patients; None where not known.
        statement: what may be said, most important caveat first.
        notes: what else a reader should know.
        rungs: name -> folds, metrics by model, differences and ceiling, as JSON.
        not_evaluated: model -> why.
        fits: the rungs with all fitted models.
    """

    cohort: Cohort
    seed: int
    segmentation_saw_centre: bool | None
    segmentation_saw_patient: bool | None
    statement: tuple[str, ...]
    notes: tuple[str, ...]
    rungs: Mapping[str, Mapping[str, Any]]
    not_evaluated: Mapping[str, str]
    fits: Mapping[str, Rung]

    def to_json(self) -> dict[str, Any]:
        """The document: counts and metrics, no patient's name and no row of one patient."""
        cohort = self.cohort
        return {
            "schema": SCHEMA,
            "use": RESEARCH_ONLY,
            "statement": list(self.statement),
            "notes": [_without_names(note, cohort.patients) for note in self.notes],
            "segmentation_saw_centre": self.segmentation_saw_centre,
            "segmentation_saw_patient": self.segmentation_saw_patient,
            "target": asdict(cohort.target),
            "cohort": {
                "patients": len(cohort.patients),
                "flow": [{"step": s.step, "patients": s.patients, "removed": s.removed, "why": s.why} for s in cohort.flow],
                "centres": centre_table(cohort),
                "status": {status: list(cohort.status.values()).count(status) for status in sorted(set(cohort.status.values()))},
                "predictors": {group: list(cohort.groups.values()).count(group) for group in dict.fromkeys(cohort.groups.values())},
            },
            "rungs": {name: dict(rung) for name, rung in self.rungs.items()},
            "not_evaluated": dict(self.not_evaluated),
            "interval": LABEL,
            "seed": self.seed,
            "versions": installed_versions(),
        }

    def predictions_csv(self) -> str:
        """The held-out predictions beside what happened, a row a patient, rung and model: risks of different folds are not on one scale."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(PREDICTION_COLUMNS)
        for name, rung in self.fits.items():
            for model, prediction in rung.predictions.items():
                for row in np.flatnonzero(rung.fold_of >= 0):
                    values = (prediction.risk, prediction.probability, prediction.threshold, prediction.cut)
                    numbers = [repr(float(value[row])) if np.isfinite(value[row]) else "" for value in values]
                    who = (self.cohort.patients[row], self.cohort.centre[row])
                    writer.writerow([*who, name, rung.folds[rung.fold_of[row]].name, model, *numbers, *_outcome(self.cohort, row)])
        return text.getvalue()


def _without_names(note: str, patients: Sequence[str]) -> str:
    """A note without the list of patients that it ends with: the command tells them, the document does not keep them."""
    named = set(re.findall(r"[\w.-]+", note)) & set(patients)
    return note.partition(": ")[0] if named else note


def _outcome(cohort: Cohort, row: int) -> tuple[str, int]:
    if isinstance(cohort.outcome, Survival):
        return repr(float(cohort.outcome.time_days[row])), int(cohort.outcome.event[row])
    return "", int(cohort.outcome.positive[row])


def centre_table(cohort: Cohort) -> dict[str, dict[str, int]]:
    """centre -> patients, and events (survival) or positives (binary)."""
    happened = np.asarray(cohort.outcome.event if cohort.target.kind == "survival" else cohort.outcome.positive)
    word = "events" if cohort.target.kind == "survival" else "positive"
    table: dict[str, dict[str, int]] = {}
    for centre, seen in sorted(zip(cohort.centre, happened.tolist(), strict=True)):
        entry = table.setdefault(centre, {"patients": 0, word: 0})
        entry["patients"] += 1
        entry[word] += int(seen)
    return table
