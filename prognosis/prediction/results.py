"""What prediction gives: per patient and target a status, and where it allows one a risk; for people, spreadsheets and machines."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.commands.entry import RESEARCH_ONLY
from prognosis.status import Status
from prognosis.targets import DAYS_PER

SCHEMA = "autoseg-predictions/1"
CSV_NAME, JSON_NAME = "predictions.csv", "predictions.json"
REASONS_SHOWN = 3


@dataclass(frozen=True)
class Prognosis:
    """What one model says of one patient; without any number where the status is "not_predicted".

    Attributes:
        reasons: what speaks against it, in words.
        risk: log hazard ratio or log odds.
        high_risk: whether the risk is above the training patients' median.
        survival: days -> probability of being free of the event until then; nan beyond the training patients' follow-up.
        probability: of being positive, for a binary target.
        positive: whether that reaches the threshold that was chosen in training; None where there is none.
        measured: what the patient's table says of the target itself; it always stands above a prediction.
    """

    status: Status
    reasons: tuple[str, ...] = ()
    risk: float | None = None
    high_risk: bool | None = None
    survival: Mapping[float, float] = field(default_factory=dict)
    probability: float | None = None
    positive: bool | None = None
    measured: str = ""


@dataclass(frozen=True)
class Patient:
    """One case and what is predicted for it.

    Attributes:
        mask: its file; None where the case failed.
        flags: of its features.
        notes: what was found on the way.
        features: those that have a value.
        targets: name -> prognosis.
        seconds: for mask and features.
    """

    case: str
    patient: str
    mask: Path | None
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    features: Mapping[str, float]
    targets: Mapping[str, Prognosis]
    seconds: float


@dataclass(frozen=True)
class Predictions:
    """All patients of a run.

    Attributes:
        folder: where everything lies.
        targets: name -> what a reader must know of its model: title, kind, threshold, cut, hash and so on.
        times_days: for which survival is told.
        segmentation: the model folder, its folds and settings.
        failures: one message a case that failed.
    """

    folder: Path
    patients: tuple[Patient, ...]
    targets: Mapping[str, Mapping[str, Any]]
    times_days: tuple[float, ...]
    segmentation: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    def write(self) -> None:
        """Writes predictions.csv and predictions.json into the folder."""
        files.write_text(self.folder / CSV_NAME, self.to_csv())
        files.write_json(self.folder / JSON_NAME, self.to_dict())

    def to_csv(self) -> str:
        """A line a patient. Every predicted column's name begins with `predicted_`, so that none is taken for a measured one."""
        columns = ["case", "patient", "mask", "notes"]
        for name, about in self.targets.items():
            parts = ["status", "reasons", "risk", "high_risk"]
            parts += [f"survival_{days:g}d" for days in self.times_days] if about["kind"] == "survival" else ["probability", "positive"]
            columns += [f"predicted_{name}_{part}" for part in parts]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, [*columns, "use"], lineterminator="\n")
        writer.writeheader()
        for patient in self.patients:
            row = {"case": patient.case, "patient": patient.patient, "mask": patient.mask.name if patient.mask else ""}
            row |= {"notes": "; ".join((*patient.flags, *patient.notes)), "use": RESEARCH_ONLY}
            for name, told in patient.targets.items():
                row |= {f"predicted_{name}_{part}": value for part, value in _cells(told).items() if f"predicted_{name}_{part}" in columns}
            writer.writerow(row)
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        from autoseg.training.record import software_versions

        return {
            "schema": SCHEMA,
            "use": RESEARCH_ONLY,
            "segmentation": dict(self.segmentation),
            "targets": {name: dict(about) for name, about in self.targets.items()},
            "times_days": list(self.times_days),
            "notes": list(self.notes),
            "failures": list(self.failures),
            "versions": software_versions(),
            "patients": [_patient_document(patient) for patient in self.patients],
        }

    def text(self) -> str:
        """For a person."""
        lines = [f"note: {note}" for note in self.notes]
        for patient in self.patients:
            lines.append(f"{patient.case}:")
            for name, told in patient.targets.items():
                lines.append(f"  {self.targets[name]['title']}: {_words(told)}")
                if told.measured:
                    lines.append(f"    measured: {told.measured} (that stands; the prediction does not replace it)")
                lines += [f"    - {reason}" for reason in _shown(told.reasons)]
        return "\n".join([*lines, f"written: {self.folder / CSV_NAME}, {self.folder / JSON_NAME}", RESEARCH_ONLY])


def _cells(told: Prognosis) -> dict[str, str]:
    cells = {"status": told.status, "reasons": "; ".join(_shown(told.reasons)), "risk": _number(told.risk)}
    cells |= {"high_risk": _yes_no(told.high_risk), "probability": _number(told.probability), "positive": _yes_no(told.positive)}
    return cells | {f"survival_{days:g}d": _number(value) for days, value in told.survival.items()}


def _words(told: Prognosis) -> str:
    if told.status == "not_predicted":
        return "not predicted"
    parts = []
    if told.probability is not None:
        threshold = "" if told.positive is None else f", {'at or above' if told.positive else 'below'} the threshold"
        parts.append(f"probability {told.probability:.2f}{threshold}")
    curve = {days: value for days, value in told.survival.items() if not math.isnan(value)}
    if told.survival:
        parts.append(f"{'high' if told.high_risk else 'low'} risk")
        parts += [f"{value:.2f} at {days / DAYS_PER['years']:.2g} y" for days, value in curve.items()]
    return ", ".join(parts) + (f" ({told.status})" if told.status != "ok" else "")


def _shown(reasons: tuple[str, ...]) -> list[str]:
    more = len(reasons) - REASONS_SHOWN
    return [*reasons[:REASONS_SHOWN], *([f"and {more} more, see {JSON_NAME}"] if more > 0 else [])]


def _patient_document(patient: Patient) -> dict[str, Any]:
    return {
        "case": patient.case,
        "patient": patient.patient,
        "mask": None if patient.mask is None else patient.mask.name,
        "flags": list(patient.flags),
        "notes": list(patient.notes),
        "seconds": round(patient.seconds, 3),
        "predicted": {name: _prognosis_document(told) for name, told in patient.targets.items()},
        "features": dict(patient.features),
    }


def _prognosis_document(told: Prognosis) -> dict[str, Any]:
    return {
        "status": told.status,
        "reasons": list(told.reasons),
        "risk": told.risk,
        "high_risk": told.high_risk,
        "survival": {f"{days:g}": None if math.isnan(value) else value for days, value in told.survival.items()} or None,
        "probability": told.probability,
        "positive": told.positive,
        "measured": told.measured or None,
    }


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))


def _yes_no(value: bool | None) -> str:
    return "" if value is None else str(int(value))
