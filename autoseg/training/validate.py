"""Out-of-fold masks of a trained fold, and their scores."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.errors import CasesFailed
from autoseg.evaluation.evaluate import evaluate
from autoseg.inference.model_documents import ModelDataset
from autoseg.inference.model_writing import write_model_folder
from autoseg.inference.predictor import Predictor
from autoseg.inference.trained_on import TrainedOn
from planners.fingerprint import Fingerprint
from planners.plan import Plan

logger = logging.getLogger(__name__)

ALL = "all"
SEEN = "seen_by_initial_weights"


def publish_fold(
    dataset: Dataset,
    workspace: Workspace,
    plan: Plan,
    configuration: str,
    scheme: str,
    folder: Path,
    fold: str,
    weights: Mapping[str, Tensor],
    seen: TrainedOn,
) -> None:
    """Puts a fold's final weights into its model folder, with the documents that make it self-contained, and what images they saw."""
    described = ModelDataset(
        dataset.name,
        tuple(dataset.channels),
        dict(dataset.labels),
        plan.file_ending,
        configuration,
        scheme,
        region_order=dataset.region_order,
    )
    measured = next((path for path in (workspace.plan_fingerprint, workspace.fingerprint) if path.exists()), None)
    fingerprint = Fingerprint.from_json(measured.read_text(encoding="utf-8")) if measured else None
    write_model_folder(
        folder.parent, plan=plan, dataset=described, fingerprint=fingerprint, weights={fold: weights}, trained_on={fold: seen}
    )


def predict_out_of_fold(
    dataset: Dataset, folder: Path, fold: str, held_out: tuple[str, ...], *, device: str, workers: int, leaked: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The scores of the fold's held-out cases, predicted with its final weights; masks go to `folder`/masks, scores to summary.json.

    Masks of cases that are not held out are removed; those that these weights made from the same files are kept. Under the fold "all" the
    held-out cases are the training cases: the summary says so.

    Args:
        leaked: held-out cases that the fold's initial weights were trained on: the summary names them and is not out of fold either.

    Raises:
        CasesFailed: some held-out cases could not be predicted; the others are scored.
    """
    predictor = Predictor(folder.parent, folds=[fold], device=device)
    cases = [dataset.case(name) for name in sorted(held_out)]
    masks = folder / "masks"
    expected = {f"{case.name}{predictor.plan.file_ending}" for case in cases}
    for path in masks.glob(f"*{predictor.plan.file_ending}"):
        if path.name not in expected:
            path.unlink()
    failed: CasesFailed | None = None
    try:
        predictor.predict_cases(cases, masks, resume=True, raise_single=False)
    except CasesFailed as error:
        failed = error
    references = {case.name: case.label for case in cases if case.label is not None}
    evaluation = evaluate(
        references,
        masks,
        labels=dataset.labels,
        centres={case.name: case.centre for case in cases},
        cases=sorted(references),
        workers=workers if len(cases) > 8 else 0,
    )
    dice = {label: _number(evaluation.summary(label).means["dice"].mean) for label in evaluation.labels} | {
        "mean": _number(evaluation.mean_dice)
    }
    document = {
        "fold": fold,
        "out_of_fold": fold != ALL and not leaked,
        **({SEEN: list(leaked)} if leaked else {}),
        "dice": dice,
        **evaluation.to_dict(),
        **evaluation.to_nnunet_summary(),
    }
    files.write_json(folder / "summary.json", document)
    files.write_text(folder / "summary.csv", evaluation.to_csv())
    if failed is not None:
        raise failed
    return document


def _number(value: float) -> float | None:
    return value if value == value else None
