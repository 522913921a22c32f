"""New patients from images to a prognosis: masks by the dataset's own networks, features, then every fitted target."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.workspace import Workspace
from prognosis.errors import PrognosisModelError
from prognosis.features.case import NODES, PRIMARY, Measured
from prognosis.features.extract import Source, measure_files, run_cases
from prognosis.features.support import judge
from prognosis.features.table import FeatureTable
from prognosis.models.document import PrognosisModel, read_model
from prognosis.prediction.patients import Clinical, check_columns, model_frame
from prognosis.prediction.results import Patient, Predictions, Prognosis
from prognosis.prediction.segment import Segmentation, Segmented, find_inputs
from prognosis.targets import DAYS_PER, Declaration

logger = logging.getLogger(__name__)

MASKS = "masks"
FOLDER = "prognosis"
MODEL_NAME, FEATURES_NAME = "model.json", "features.csv"
YEARS = (1, 2, 3, 5)
CLINICAL_NAME = "casesTs.csv"


def predict_patients(
    inputs: Sequence[Path],
    output: Path,
    segmentation: Segmentation,
    *,
    clinical: Path | None = None,
    declaration: Declaration | None = None,
    targets: Sequence[str] | None = None,
    times_days: Sequence[float] | None = None,
    workers: int | None = None,
) -> Predictions:
    """Segments new cases into `output`/masks, says what every fitted target's model tells of each, and writes both result files.

    Args:
        inputs: a folder, or the files of one case.
        segmentation: with which networks; its workspace holds the prognosis models too. Without a model or configuration they are those of
            the configuration whose masks the features were taken from.
        clinical: the patients' table; None means casesTs.csv beside the folder of the images, where there is one.
        declaration: how the table is read; None means as shipped.
        targets: names; None means all that are fitted.
        times_days: for which survival is told; None means 1, 2, 3 and 5 years and the targets' horizons.
        workers: processes for the features; None chooses.

    Returns:
        Every case of the inputs; one that failed is not predicted, stands in `failures`, and stops no other.

    Raises:
        PrognosisModelError: nothing is fitted, or a model is damaged.
        PlanError, ModelError, DatasetError: there is no segmentation model, or nothing to predict.
        CohortError: the table does not fit; found before any image is segmented.
    """
    workspace = segmentation.workspace
    models = read_models(workspace, targets)
    training = _training_features(workspace)
    if segmentation.model is None and segmentation.configuration is None and training.configuration:
        segmentation = replace(segmentation, configuration=training.configuration)
    predictor = segmentation.open()
    cases, unlisted, notes = find_inputs(inputs, predictor)
    names = [case.name for case in cases]
    table = clinical or _beside(inputs)
    rows = Clinical.of(table if names else None, names, declaration or Declaration(), must_match=clinical is not None)
    notes = (*notes, *rows.notes, *_lacking(models, rows), *_other_networks(training, predictor.model.dataset.configuration))
    labels = training.labels
    source = Source.of(predictor.plan.channels, predictor.plan.labels, primary=labels.get(PRIMARY), nodes=labels.get(NODES))
    tolerance = predictor.plan.geometry_tolerance
    segmented = segmentation.segment(predictor, cases, output / MASKS)
    del predictor  # the networks' memory goes to the features
    work = partial(_timed, source=source, tolerance=tolerance, replace_nonfinite=segmentation.replace_nonfinite)
    measured, seconds, failures = _measure(segmented, work, workers)
    times = _times(models, times_days)
    told = {name: tell(model, [name for name in names if name in measured], rows, measured, times) for name, model in models.items()}
    failures |= {message.removeprefix("case ").partition(":")[0]: message for message in unlisted}
    patients = [_patient(case, rows, segmented, measured, seconds, failures, told) for case in names]
    patients += [_unlisted(case, failures[case], models) for case in failures if case not in names]
    about = {name: _about(model, _model_path(workspace, name)) for name, model in models.items()}
    result = Predictions(output, tuple(patients), about, times, segmented.about, notes, tuple(failures.values()))
    result.write()
    return result


def read_models(workspace: Workspace, targets: Sequence[str] | None = None) -> dict[str, PrognosisModel]:
    """Target -> its fitted model.

    Raises:
        PrognosisModelError: none is fitted, or one that is asked for is not, or a document is damaged.
    """
    folder = workspace.root / workspace.name / FOLDER
    fitted = {path.parent.name: path for path in sorted(folder.glob(f"*/{MODEL_NAME}"))}
    missing = [name for name in targets or () if name not in fitted]
    if missing or not fitted:
        raise PrognosisModelError(
            f"{folder}: no model of {', '.join(missing) or 'any target'} is fitted; fitted: {', '.join(fitted) or 'none'}. "
            f"Fit one with: prognosis fit --target {missing[0] if missing else 'rfs'}"
        )
    return {name: read_model(path) for name, path in fitted.items() if targets is None or name in targets}


def tell(
    model: PrognosisModel, cases: Sequence[str], rows: Clinical, measured: Mapping[str, Measured], times_days: Sequence[float]
) -> dict[str, Prognosis]:
    """Case -> what a model says of it, without any number where it may not speak.

    Args:
        cases: those that were measured.
        rows: what their table says.
        measured: their features.
        times_days: for which survival is told.
    """
    if not cases:
        return {}
    fitted = model.fitted
    frame = model_frame(fitted, cases, rows, measured)
    judgements = judge(fitted, frame, [measured[case].flags for case in cases])
    known = rows.measured(model.target)
    told = {}
    for index, (case, judgement) in enumerate(zip(cases, judgements, strict=True)):
        if judgement.status == "not_predicted":
            told[case] = Prognosis(judgement.status, judgement.reasons, measured=known.get(case, ""))
            continue
        # Each by itself: in a product of several rows the last bits of one depend on how many there are.
        row = frame.iloc[[index]]
        risk = float(fitted.risk(row)[0])
        prognosis = Prognosis(judgement.status, judgement.reasons, risk, risk > model.cut, measured=known.get(case, ""))
        if model.target.kind == "survival":
            curve = fitted.survival(row, times_days)[0].tolist()
            told[case] = replace(prognosis, survival=dict(zip(times_days, curve, strict=True)))
        else:
            chance = float(fitted.probability(row)[0])
            positive = None if model.threshold is None else chance >= model.threshold
            told[case] = replace(prognosis, probability=chance, positive=positive)
    return told


def _beside(inputs: Sequence[Path]) -> Path | None:
    """casesTs.csv beside the folder that holds the images."""
    first = inputs[0].absolute()
    path = (first if first.is_dir() else first.parent).parent / CLINICAL_NAME
    if not path.is_file():
        return None
    logger.info("clinical table: %s", path)
    return path


def _model_path(workspace: Workspace, target: str) -> Path:
    return workspace.root / workspace.name / FOLDER / target / MODEL_NAME


def _training_features(workspace: Workspace) -> FeatureTable:
    """The features that the models were fitted on, for how they were taken; an empty table where they are not there."""
    import pandas as pd

    path = workspace.root / workspace.name / FOLDER / FEATURES_NAME
    return FeatureTable.read(path) if path.exists() else FeatureTable(pd.DataFrame())


def _other_networks(training: FeatureTable, configuration: str) -> list[str]:
    if training.configuration in ("", configuration):
        return []
    return [f"the masks are by networks of {configuration}, the models were fitted on features of {training.configuration} masks"]


def _lacking(models: Mapping[str, PrognosisModel], rows: Clinical) -> list[str]:
    lacking = {name: check_columns(model.fitted, rows) for name, model in models.items()}
    return [
        f"{name}: the model's clinical column(s) {', '.join(columns)} are not known for these patients"
        for name, columns in lacking.items()
        if columns
    ]


def _measure(segmented: Segmented, work: Any, workers: int | None) -> tuple[dict[str, Measured], dict[str, float], dict[str, str]]:
    done = [case for case in segmented.cases if case.name in segmented.results]
    paths = [segmented.results[case.name].path for case in done]
    items = list(zip(done, paths, strict=True))
    timed, failures = run_cases(items, work, names=[case.name for case in done], masks=paths, workers=workers)
    measured = {case: value for case, (value, _) in timed.items()}
    seconds = {case: took + segmented.results[case].seconds for case, (_, took) in timed.items()}
    return measured, seconds, {**segmented.failures, **failures}


def _timed(item: tuple[Case, Path], *, source: Source, tolerance: float, replace_nonfinite: bool) -> tuple[Measured, float]:
    started = time.monotonic()
    measured = measure_files(*item, source, tolerance=tolerance, replace_nonfinite=replace_nonfinite)
    return measured, time.monotonic() - started


def _times(models: Mapping[str, PrognosisModel], asked: Sequence[float] | None) -> tuple[float, ...]:
    survival = [model.target for model in models.values() if model.target.kind == "survival"]
    if not survival:
        return ()
    if asked is not None:
        return tuple(sorted(set(asked)))
    horizons = {target.horizon_days for target in survival if target.horizon_days}
    years = {float(round(year * DAYS_PER["years"])) for year in YEARS}
    # A horizon of 730 days and two years of 730.5 are one.
    return tuple(sorted(horizons | {day for day in years if all(abs(day - horizon) > 1 for horizon in horizons)}))


def _patient(
    case: str,
    rows: Clinical,
    segmented: Segmented,
    measured: Mapping[str, Measured],
    seconds: Mapping[str, float],
    failures: Mapping[str, str],
    told: Mapping[str, Mapping[str, Prognosis]],
) -> Patient:
    result = segmented.results.get(case)
    mask, notes = (result.path, result.notes) if result else (None, ())
    if case not in measured:
        failed = {name: Prognosis("not_predicted", (failures[case],)) for name in told}
        return Patient(case, rows.patient(case), mask, (), notes, {}, failed, 0.0)
    found = measured[case]
    features = {name: value for name, value in found.values.items() if not math.isnan(value)}
    targets = {name: prognoses[case] for name, prognoses in told.items()}
    return Patient(case, rows.patient(case), mask, found.flags, (*notes, *found.notes), features, targets, seconds[case])


def _unlisted(case: str, reason: str, models: Mapping[str, PrognosisModel]) -> Patient:
    """A case whose files do not make one."""
    return Patient(case, case, None, (), (), {}, {name: Prognosis("not_predicted", (reason,)) for name in models}, 0.0)


def _about(model: PrognosisModel, path: Path) -> dict[str, Any]:
    target = model.target
    return {
        "title": target.title,
        "kind": target.kind,
        "origin": target.origin,
        "horizon_days": target.horizon_days,
        "threshold": model.threshold,
        "cut": model.cut,
        "training": dict(model.training),
        "segmentation_saw_centre": model.segmentation_saw_centre,
        "segmentation_saw_patient": model.segmentation_saw_patient,
        "model_sha256": files.sha256_file(path),
    }
