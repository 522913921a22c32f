"""From the input folder to every output that was asked for: a failure of one leaves the others."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import files
from autoseg.errors import AutosegError, DatasetError, ModelError
from autoseg.images import Geometry, write_mask
from autoseg.importers.hecktor.grids import Onto, resample_mask
from prognosis.challenge.answers import NOTHING_KNOWN, SENSES, Answer, Patient, predicted_hpv, predicted_rfs, predicted_stage
from prognosis.challenge.editions import EDITIONS, LABELS, Edition, Output
from prognosis.challenge.inputs import CASE, Images, read_images, read_record
from prognosis.declaration import read_declaration
from prognosis.errors import CohortError, PrognosisModelError
from prognosis.features.case import Measured, measure
from prognosis.features.extract import Source
from prognosis.prediction.patients import Clinical
from prognosis.targets import Declaration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How a patient is predicted.

    Attributes:
        models: a folder with `segmentation` (or segmentation.zip) and prognosis/TARGET/model.json; import.json and cohort.toml count where
            they are there.
        sense: whether rfs.json holds a "risk" or a "time"; None where it is not asked for.
        onto: the grid that the networks were trained on; None: what models/import.json says, else the CT's.
        fallback: write what a model says of a patient of whom nothing is known where it does not speak of this one.
        device, mirroring, step: as `autoseg_predict` has them.
    """

    models: Path
    sense: str | None = None
    onto: str | None = None
    fallback: bool = False
    device: str = "auto"
    mirroring: bool = True
    step: float | None = None


@dataclass(frozen=True)
class Written:
    """What became of one output.

    Attributes:
        path: the file; None where it is missing.
        value: of a JSON output.
        reasons: what speaks against it, or why it is missing.
        is_fallback: the value is that of a patient of whom nothing is known.
    """

    output: Output
    path: Path | None
    value: Any = None
    reasons: tuple[str, ...] = ()
    is_fallback: bool = False

    def text(self) -> str:
        """For a person."""
        if self.path is None:
            return f"{self.output}: missing: {'; '.join(self.reasons)}"
        said = "" if self.value is None else f" = {json.dumps(self.value)}"
        said += " (what the model says of a patient of whom nothing is known)" if self.is_fallback else ""
        return f"{self.output}: {self.path}{said}" + (f" - {'; '.join(self.reasons)}" if self.reasons else "")


@dataclass(frozen=True)
class Result:
    """All outputs, and what was noticed."""

    edition: str
    outputs: tuple[Written, ...]
    notes: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """One message a missing output."""
        return tuple(one.text() for one in self.outputs if one.path is None)

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "edition": self.edition,
            "outputs": {
                one.output: {
                    "file": None if one.path is None else str(one.path),
                    "value": one.value,
                    "reasons": list(one.reasons),
                    "fallback": one.is_fallback,
                }
                for one in self.outputs
            },
            "notes": list(self.notes),
        }


def run_challenge(edition: str, source: Path, target: Path, settings: Settings, outputs: Sequence[Output] | None = None) -> Result:
    """Predicts the patient of an input folder and writes an edition's outputs.

    Args:
        source: with images/ct, images/pet and ehr.json.
        target: gets the outputs; an output that cannot be made leaves no file, and stands in the result with the reason.
        outputs: those that are asked for; None: all of the edition's.

    Raises:
        DatasetError: there is no such edition, output or input folder, or it is not said what rfs.json is to hold.
        PrognosisModelError: there is no folder of models.
        TargetError: its cohort.toml is not valid.
    """
    rules = _rules(edition)
    asked = tuple(outputs or rules.paths)
    _check(rules, asked, source, settings)
    declaration = _declaration(settings.models)
    for output in asked:  # what an earlier run left must not be taken for this patient's, however this run ends
        (target / rules.paths[output]).unlink(missing_ok=True)
    clinical, noticed = _known(source / "ehr.json", declaration)
    notes = list(noticed)
    segmented: _Segmented | None = None
    why = ""
    try:
        segmented = _segment(source, settings)
        notes += segmented.notes
    except Exception as error:  # an image or a model that is broken in whatever way must not lose what the EHR alone tells
        why = _reason(error)
    patient = Patient(clinical, segmented.measured if segmented else None, why)
    makers: dict[Output, Callable[[Path], Answer]] = {
        "mask": lambda path: _write_mask(path, segmented, why),
        "rfs": lambda path: predicted_rfs(settings.models, patient, settings.sense or "", fallback=settings.fallback),
        "hpv": lambda path: predicted_hpv(settings.models, patient, fallback=settings.fallback),
        "t-stage": lambda path: predicted_stage(settings.models, "t-stage", patient, fallback=settings.fallback),
        "n-stage": lambda path: predicted_stage(settings.models, "n-stage", patient, fallback=settings.fallback),
    }
    written = [_written(output, target / rules.paths[output], makers[output]) for output in asked]
    for note in notes:
        logger.warning("%s", note)
    return Result(edition, tuple(written), tuple(notes))


def _rules(edition: str) -> Edition:
    if edition not in EDITIONS:
        raise DatasetError(f"--edition {edition}: there are containers for {', '.join(EDITIONS)}")
    return EDITIONS[edition]


def _check(rules: Edition, asked: Sequence[Output], source: Path, settings: Settings) -> None:
    if unknown := [output for output in asked if output not in rules.paths]:
        raise DatasetError(f"--outputs {unknown[0]}: HECKTOR {rules.name} asks for {', '.join(rules.paths)}")
    if "rfs" in asked and settings.sense not in SENSES:
        raise DatasetError(
            "rfs.json: say with --sense what it is to hold: risk (higher = earlier relapse) or time (expected days without relapse); the "
            "challenge's pages do not agree, so there is no default"
        )
    if not source.is_dir():
        raise DatasetError(f"{source}: there is no such input folder")
    if not settings.models.is_dir() or not any(settings.models.iterdir()):
        raise PrognosisModelError(f"{settings.models}: holds no models. See docs/challenge.md for what belongs there")


def _declaration(models: Path) -> Declaration:
    path = models / "cohort.toml"
    return read_declaration(path if path.exists() else None)


def _known(path: Path, declaration: Declaration) -> tuple[Clinical, tuple[str, ...]]:
    """What the EHR tells, and what was noticed; a record that is no table leaves nothing known but the images."""
    record = read_record(path)
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "ehr.csv"
        record.write_table(table)
        try:
            return Clinical.of(table, [CASE], declaration), record.notes
        except CohortError as error:
            return NOTHING_KNOWN, (*record.notes, f"{path}: {error}; nothing is known of the patient but the images")


def _written(output: Output, path: Path, make: Callable[[Path], Answer]) -> Written:
    """An output made and, where it is a value, written; whatever goes wrong is its own."""
    try:
        answer = make(path)
        if answer.value is None and not path.exists():
            return Written(output, None, reasons=answer.reasons)
        if answer.value is not None:
            files.write_text(path, json.dumps(answer.value, allow_nan=False) + "\n")
        return Written(output, path, answer.value, answer.reasons, answer.is_fallback)
    except Exception as error:
        return Written(output, None, reasons=(_reason(error),))


def _reason(error: Exception) -> str:
    """An error in words; one that is no user's is told with its traceback in the log."""
    if isinstance(error, AutosegError):
        return str(error)
    logger.error("unexpected:", exc_info=error)
    return f"{type(error).__name__}: {error}"


# --- the mask


@dataclass(frozen=True)
class _Segmented:
    """The mask with the challenge's labels on the CT's own grid, and the features of the mask as the networks drew it."""

    mask: np.ndarray
    grid: Geometry
    measured: Measured
    notes: tuple[str, ...]


def _segment(source: Path, settings: Settings) -> _Segmented:
    from autoseg.inference.predictor import Predictor

    images = read_images(source, _onto(settings))
    predictor = Predictor(_segmentation(settings.models), device=settings.device, mirroring=settings.mirroring, step=settings.step)
    plan = predictor.plan
    what = Source.of(plan.channels, plan.labels)
    order = {what.ct: images.ct, what.pet: images.pet}
    if set(order) != set(range(len(plan.channels))):
        raise ModelError(f"{predictor.model.folder}: its channels are {', '.join(plan.channels)}; the challenge has CT and PET")
    prediction = predictor.predict([order[index] for index in range(len(plan.channels))], case=CASE, replace_nonfinite=True)
    grid = images.ct.geometry
    measured = measure(images.ct.array, images.pet.array, prediction.mask, grid.spacing, what.labels)
    mask = np.zeros(prediction.mask.shape, np.uint8)
    for name, value in what.labels.items():
        mask[np.isin(prediction.mask, value)] = LABELS[name]
    on_ct = resample_mask(mask, grid, images.ct_grid)
    return _Segmented(
        on_ct, images.ct_grid, measured, (*images.notes, *what.notes, *prediction.notes, *measured.notes, *_beyond(mask, on_ct, images))
    )


def _beyond(mask: np.ndarray, on_ct: np.ndarray, images: Images) -> list[str]:
    """What a mask lost on its way back to the CT's grid."""
    lost = [name for name, value in LABELS.items() if (mask == value).any() and not (on_ct == value).any()]
    return [f"the {' and the '.join(lost)} that was drawn on {images.ct.geometry} is lost on the CT's grid"] if lost else []


def _onto(settings: Settings) -> Onto:
    """The grid by the option and by the import that the networks were trained on."""
    path = settings.models / "import.json"
    recorded = files.read_json(path, error=DatasetError).get("onto") if path.exists() else None
    if settings.onto and recorded and str(Onto.parse(settings.onto)) != str(Onto.parse(recorded)):
        raise DatasetError(f"--onto {settings.onto}: {path} says that the networks were trained on images brought onto {recorded}")
    return Onto.parse(settings.onto or recorded or "CT")


def _segmentation(models: Path) -> Path:
    found = [path for path in (models / "segmentation", models / "segmentation.zip") if path.exists()]
    if not found:
        raise ModelError(f"{models}: holds no segmentation model: a model folder called segmentation, or segmentation.zip")
    return found[0]


def _write_mask(path: Path, segmented: _Segmented | None, why: str) -> Answer:
    if segmented is None:
        return Answer(None, (why,))
    write_mask(path, segmented.mask, segmented.grid)
    return Answer(None, () if segmented.mask.any() else ("the mask is empty: no tumour was found",))
