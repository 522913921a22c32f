"""The whole report as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.commands.entry import RESEARCH_ONLY
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.report import html
from prognosis.errors import PrognosisModelError
from prognosis.report.segmentation import segmentation_parts
from prognosis.report.target import target_parts
from prognosis.validation.evaluation import SCHEMA

EVALUATION = "evaluation.json"
STAGE_MODEL = "stage.json"


def fitted_targets(folder: Path) -> tuple[str, ...]:
    """The targets that a prognosis folder holds evaluations of, sorted; stages (`prognosis stage`) are no targets and not in the report."""
    return tuple(sorted(path.parent.name for path in folder.glob(f"*/{EVALUATION}") if not (path.parent / STAGE_MODEL).exists()))


def read_evaluation(path: Path) -> dict[str, Any]:
    """The document of an evaluation.

    Raises:
        PrognosisModelError: it is missing, or of another schema.
    """
    document = files.read_json(path, error=PrognosisModelError)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise PrognosisModelError(f"{path}: is no evaluation of this release (schema {SCHEMA}). Fit again with: prognosis fit")
    return document


def write_report(
    path: Path,
    workspace: Workspace,
    dataset: Dataset | None,
    targets: Sequence[str] = (),
    *,
    configuration: str | None = None,
    with_patients: bool = False,
) -> tuple[str, ...]:
    """Writes the report and returns the targets that it is about.

    Args:
        path: the .html file.
        dataset: whose masks are shown; None for a cohort without images.
        targets: in this order; none: all that are fitted.
        configuration: whose masks; None: those that the features were taken from, else the plan's default.
        with_patients: also show a row a patient. Without it no name of a case or patient is in the page.

    Raises:
        PrognosisModelError: nothing is fitted, or a document is damaged.
        FeatureError: the masks cannot be found.
    """
    folder = workspace.root / workspace.name / "prognosis"
    fitted = fitted_targets(folder)
    if not fitted:
        raise PrognosisModelError(f"{folder}: no target is fitted yet. Run: prognosis fit --target rfs")
    chosen = tuple(targets) or fitted
    unknown = next((name for name in chosen if name not in fitted), None)
    if unknown is not None:
        raise PrognosisModelError(
            f"--target {unknown}: is not fitted; fitted: {', '.join(fitted)}. Run: prognosis fit --target {unknown} (stages have no report)"
        )
    evaluations = {name: read_evaluation(folder / name / EVALUATION) for name in chosen}
    parts = []
    for name, evaluation in evaluations.items():
        parts += list(target_parts(evaluation, folder / name, with_patients=with_patients))
    if dataset is not None:
        from prognosis.features.masks import out_of_fold_masks
        from prognosis.features.table import FeatureTable

        features = folder / "features.csv"
        configuration = configuration or (FeatureTable.read(features).configuration if features.exists() else "") or None
        parts += list(segmentation_parts(dataset, workspace, out_of_fold_masks(dataset, workspace, configuration)))
    title = f"Prognosis: {', '.join(evaluation['target']['title'] for evaluation in evaluations.values())}"
    versions = next(iter(evaluations.values()))["versions"]
    footer = f"{RESEARCH_ONLY} Made by {', '.join(f'{package} {version}' for package, version in versions.items())}."
    files.write_text(path, html.page(title, RESEARCH_ONLY, parts, footer))
    return chosen
