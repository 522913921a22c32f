"""A prognosis model on disk: one JSON file without code in it, that gives the same predictions wherever it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.commands.entry import RESEARCH_ONLY
from prognosis.errors import PrognosisModelError
from prognosis.models.pipeline import Fitted, Pipeline
from prognosis.targets import Target

SCHEMA = "autoseg-prognosis/1"
PACKAGES = ("autoseg", "numpy", "scipy", "scikit-learn", "scikit-survival", "pandas")


def installed_versions() -> dict[str, str]:
    """The versions of what a model is made with; a package that is not installed is left out."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True)
class PrognosisModel:
    """A fitted model and what one must know to use it.

    Attributes:
        target: what it predicts.
        fitted: the pipeline, fitted on every patient of the cohort.
        threshold: the probability from which a binary target counts as positive, chosen in inner folds; None for survival.
        cut: the risk above which a patient belongs to the high-risk group (the training patients' median).
        training: patients, events and centres (counts, no identifiers).
        folds: how it was evaluated: the folds' names by rung.
        segmentation_saw_centre: whether the networks behind the masks had seen the held-out centres; None where no masks were used.
        hashes: of the files that it was made from.
        versions: of the packages that it was made with.
        segmentation_saw_patient: whether those networks had learned from masks by networks that had seen the patients; None where not
            known.
    """

    target: Target
    fitted: Fitted
    threshold: float | None
    cut: float
    training: Mapping[str, Any]
    folds: Mapping[str, Any]
    segmentation_saw_centre: bool | None
    hashes: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    segmentation_saw_patient: bool | None = None


def write_model(path: Path, model: PrognosisModel) -> None:
    """Writes a model document, whole or not at all."""
    content = {
        "schema": SCHEMA,
        "use": RESEARCH_ONLY,
        "target": dataclasses.asdict(model.target),
        "segmentation_saw_centre": model.segmentation_saw_centre,
        "segmentation_saw_patient": model.segmentation_saw_patient,
        "threshold": model.threshold,
        "cut": model.cut,
        "training": dict(model.training),
        "folds": dict(model.folds),
        "pipeline": model.fitted.state(),
        "hashes": dict(model.hashes),
        "versions": dict(model.versions),
    }
    write_sealed(path, content)


def read_model(path: Path) -> PrognosisModel:
    """The model in a document.

    Raises:
        PrognosisModelError: it cannot be read, is of another schema, or was changed after it was written.
    """
    content = read_sealed(path, SCHEMA, "prognosis model", "prognosis fit")
    try:
        target = {key: tuple(value) if isinstance(value, list) else value for key, value in content["target"].items()}
        return PrognosisModel(
            Target(**target),
            Pipeline.from_state(content["pipeline"]),
            **{name: content[name] for name in ("threshold", "cut", "training", "folds", "segmentation_saw_centre", "hashes", "versions")},
            segmentation_saw_patient=content.get("segmentation_saw_patient"),
        )
    except (KeyError, TypeError) as error:
        raise incomplete(path, error, "prognosis fit") from error


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a document with its own SHA-256 in it, whole or not at all."""
    files.write_json(path, {**content, "sha256": files.sha256_json(dict(content))})


def read_sealed(path: Path, schema: str, what: str, command: str) -> dict[str, Any]:
    """What `write_sealed` wrote, without the SHA-256.

    Args:
        schema: that its field "schema" must name.
        what: what it holds, and `command`: how it is made again; for messages.

    Raises:
        PrognosisModelError: it cannot be read, is of another schema, or was changed after it was written.
    """
    content = files.read_json(path, error=PrognosisModelError)
    found = content.get("schema") if isinstance(content, dict) else None
    if found != schema:
        raise PrognosisModelError(
            f"{path}: is no {what} of this release: schema {found!r}, expected {schema!r}. Fit it again with: {command}"
        )
    stated = content.pop("sha256", None)
    if stated != files.sha256_json(content):
        raise PrognosisModelError(f"{path}: was changed after it was written (its SHA-256 differs). Fit it again with: {command}")
    return dict(content)


def incomplete(path: Path, error: Exception, command: str) -> PrognosisModelError:
    """The error for a document that lacks something."""
    return PrognosisModelError(f"{path}: is not complete: {type(error).__name__} {error}. Fit it again with: {command}")
