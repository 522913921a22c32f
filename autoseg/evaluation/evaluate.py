"""A folder of predicted masks against a folder of reference masks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from autoseg.errors import DatasetError, GeometryError, ImageError
from autoseg.evaluation.evaluation import CaseScores, Evaluation
from autoseg.evaluation.scores import Label, Settings, score_masks
from planners.labels import LabelScheme

logger = logging.getLogger(__name__)

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
WORTH_PROCESSES = 8
"""Cases from which on starting processes pays."""

Masks = Path | str | Mapping[str, Path]


def evaluate(
    reference: Masks,
    prediction: Masks,
    *,
    labels: Mapping[str, int | Iterable[int]] | None = None,
    centres: Mapping[str, str] | None = None,
    cases: Iterable[str] | None = None,
    tolerance_mm: float = 2.0,
    lesion_iou: float = 0.1,
    connectivity: int = 26,
    geometry_tolerance: float = 0.1,
    missing_is_empty: bool = False,
    workers: int | None = 0,
    progress: str | None = None,
) -> Evaluation:
    """Scores of every reference mask's prediction.

    A reference without a prediction, an unreadable mask and masks on different grids become named failures in the result; a prediction
    without a reference is named there too. Nothing is dropped silently.

    Args:
        reference, prediction: a folder of masks, or case name -> file. The formats of the two may differ.
        labels: name -> value, or several values for a region; 0 is background and left out. Voxels that the reference marks with the
            value of the label "ignore" count for nothing. None: the values found, named label_1 ...
        centres: case -> centre, for the means by centre.
        cases: only these; None for every reference.
        tolerance_mm: of the normalised surface Dice.
        lesion_iou: what the IoU of a pair of lesions must exceed.
        connectivity: neighbours within a lesion: 6, 18 or 26.
        geometry_tolerance: how far corners may lie apart, in voxels, for two masks to share a grid.
        missing_is_empty: score a reference whose prediction is missing, broken or on another grid as though nothing had been predicted; it
            stands among the failures all the same.
        workers: processes; 0 evaluates here; None: one a core, and none where there are few cases.
        progress: text of a progress bar, which shows only on a terminal.

    Raises:
        DatasetError: a folder is missing or holds no masks, a wanted case has no reference, or there are no labels.
        ValueError: a setting is out of range.
    """
    from autoseg.resources import usable_cores
    from autoseg.workers import map_cases

    settings = Settings(tolerance_mm, lesion_iou, connectivity)
    references, predictions = find_masks(reference, "reference"), find_masks(prediction, "prediction", may_be_empty=True)
    wanted = _wanted(references, cases)
    present = [name for name in wanted if name in predictions]
    notes: list[str] = []
    if labels is None:
        labels = labels_found([references[name] for name in wanted])
        notes.append(f"no label names were given: the values found in the references are used ({', '.join(map(str, labels.values()))})")
    foreground, ignore = _foreground(labels)
    centres = centres or {}
    task = partial(_evaluate_case, labels=foreground, ignore=ignore, settings=settings, geometry_tolerance=geometry_tolerance)
    if workers is None:
        workers = min(usable_cores(), len(present)) if len(present) >= WORTH_PROCESSES else 0

    def score(names: Sequence[str], masks: Mapping[str, Path]) -> tuple[dict[str, CaseScores], dict[str, Exception]]:
        items = [(name, references[name], masks.get(name), centres.get(name, "")) for name in names]
        done: dict[str, CaseScores] = {}
        failed: dict[str, Exception] = {}
        for outcome in map_cases(task, items, workers=workers, names=names, progress=progress):
            if outcome.error is None:
                done[outcome.name], remarks = outcome.value
                notes.extend(remarks)
            else:
                failed[outcome.name] = outcome.error
        return done, failed

    scored, errors = score(present, predictions)
    missing = {name: _missing(name, references[name], prediction) for name in wanted if name not in predictions}
    failures = missing | {name: str(error) for name, error in errors.items()}
    if missing_is_empty:  # but not where this machine failed, and not the prediction
        unusable = {*missing, *(name for name, error in errors.items() if isinstance(error, ImageError | GeometryError))}
        scored |= score([name for name in wanted if name in unusable], {})[0]
    # cases given by name are a choice, e.g. a fold's: then the other predictions are not surplus
    extra = [] if cases is not None else sorted(set(predictions) - set(references))
    return Evaluation(
        labels=foreground,
        settings=settings,
        cases=tuple(scored[name] for name in wanted if name in scored),
        failures={name: failures[name] for name in wanted if name in failures},
        extra_predictions=tuple(extra),
        notes=tuple(notes),
    )


def find_masks(masks: Masks, what: str = "mask", *, may_be_empty: bool = False) -> dict[str, Path]:
    """Case name -> mask file, sorted by name, of a folder; a mapping as it is. Hidden files (also macOS's ._*) are left out.

    Raises:
        DatasetError: the folder is missing, holds no masks, or two files are of one case.
    """
    if isinstance(masks, Mapping):
        return {name: Path(path) for name, path in masks.items()}
    folder = Path(masks)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: the {what} folder {'is not a folder' if folder.exists() else 'does not exist'}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = case_name(path)
        if name is None or path.name.startswith(".") or not path.is_file():
            continue
        if name in found:
            raise DatasetError(f"case {name}: two {what} masks, {found[name].name} and {path.name}, in {folder}; keep one")
        found[name] = path
    if not found and not may_be_empty:
        raise DatasetError(f"{folder}: holds no {what} masks; a mask is CASE{{{','.join(ENDINGS)}}}")
    return found


def case_name(path: Path) -> str | None:
    """The file's name without its image format's ending; None for a file that is no image."""
    for ending in ENDINGS:
        if path.name.endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return None


def labels_found(paths: Iterable[Path]) -> dict[str, Label]:
    """label_1, label_2 ... for the values above 0 in these masks.

    Raises:
        DatasetError: there are none.
    """
    from autoseg.images import read_mask

    values: set[int] = set()
    for path in paths:
        values.update(_values(read_mask(path, case=case_name(path) or path.name).array))
    if not values:
        raise DatasetError("all reference masks are empty and no labels were given; name a dataset with -d DIR")
    return {f"label_{int(value)}": int(value) for value in sorted(values)}


def _evaluate_case(
    item: tuple[str, Path, Path | None, str],
    *,
    labels: Mapping[str, Label],
    ignore: int | None,
    settings: Settings,
    geometry_tolerance: float,
) -> tuple[CaseScores, list[str]]:
    from autoseg.images import check_same_grid, read_mask

    name, reference_path, prediction_path, centre = item
    reference = read_mask(reference_path, case=name)
    prediction = read_mask(prediction_path, case=name) if prediction_path else replace(reference, array=np.zeros_like(reference.array))
    check_same_grid(
        reference.geometry, prediction.geometry, tolerance=geometry_tolerance, case=name, names=("the reference", "the prediction")
    )
    scores = score_masks(prediction.array, reference.array, reference.geometry.spacing, labels, settings, ignore=ignore)
    known = {ignore, *(v for value in labels.values() for v in (value if isinstance(value, tuple) else (value,)))}
    strangers = {
        what: sorted(set(_values(mask.array)) - known) for what, mask in (("the reference", reference), ("the prediction", prediction))
    }
    remarks = [f"case {name}: {what} holds values that are no labels: {', '.join(map(str, one))}" for what, one in strangers.items() if one]
    return CaseScores(name, centre, scores), remarks


def _values(mask: np.ndarray) -> list[int]:
    """The values of a mask's voxels but 0; few voxels are not 0, and only those are sorted."""
    return np.unique(mask[mask != 0]).tolist()


def _wanted(references: Mapping[str, Path], cases: Iterable[str] | None) -> list[str]:
    if cases is None:
        return list(references)
    wanted = list(dict.fromkeys(cases))
    unknown = [name for name in wanted if name not in references]
    if unknown:
        raise DatasetError(f"no reference mask for: {', '.join(unknown)}")
    return wanted


def _missing(name: str, reference: Path, prediction: Masks) -> str:
    where = "the given files" if isinstance(prediction, Mapping) else prediction
    return f"case {name}: no prediction in {where} for the reference {reference.name}"


def _foreground(labels: Mapping[str, int | Iterable[int]]) -> tuple[dict[str, Label], int | None]:
    scheme = LabelScheme({name: value if isinstance(value, int) else tuple(value) for name, value in labels.items()})
    if not scheme.foreground:
        raise DatasetError(f"there is no foreground label to evaluate in {dict(labels)}")
    return scheme.classes, scheme.ignore
