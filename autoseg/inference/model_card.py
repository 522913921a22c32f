"""The model card: what a model is for, what it wants, and how well each fold did on cases that it had not seen."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planners.labels import IGNORE, LabelScheme
from planners.plan import Plan

if TYPE_CHECKING:
    from autoseg.inference.model_documents import ModelDataset

SUMMARY_NAME = "summary.json"


@dataclass(frozen=True)
class FoldFigures:
    """A fold's validation, as its summary says it.

    Attributes:
        dice: mean Dice, for "mean" and each label; labels without a value are left out.
        out_of_fold: whether the measured cases were held out of the fold's training; false for the fold that trains on all.
    """

    dice: Mapping[str, float]
    out_of_fold: bool = True


def read_figures(fold_folder: Path) -> FoldFigures | None:
    """The figures in a fold's summary.json; None where it is missing or is none."""
    try:
        return figures_from(json.loads((fold_folder / SUMMARY_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def figures_from(document: Any) -> FoldFigures | None:
    """The figures in a summary's document; None where it is none."""
    try:
        dice = {str(name): float(value) for name, value in document["dice"].items() if isinstance(value, int | float)}
        return FoldFigures(dice, document.get("out_of_fold", True) is not False)
    except (KeyError, TypeError, AttributeError):
        return None


def model_card(plan: Plan, dataset: ModelDataset, figures: Mapping[str, FoldFigures | None], together: str = "") -> str:
    """The model card, Markdown: what the model is for and not for, its input, its labels, each fold's validation figures.

    Args:
        figures: finished fold -> its validation, or None where no summary is there.
        together: what the folder segments by, where that is more than this model.
    """
    configuration = plan.configuration(dataset.configuration)
    labels = dataset.label_scheme
    lines = [
        f"# {dataset.name}: {', '.join(labels.foreground)}",
        "",
        "**Research use only. Not a medical device: not for diagnosis, treatment or any clinical decision.**",
        "",
        f"- Input: {len(dataset.channels)} channel(s), in this order: {', '.join(dataset.channels)}",
        *_labels(labels),
        f"- Plan: {plan.name} (preset {plan.preset}), configuration {dataset.configuration}, orientation {plan.orientation}",
        *([f"- Continues from the masks of {configuration.previous_stage}, which is inside"] if configuration.previous_stage else []),
        f"- Grid: spacing {_row(configuration.spacing)} mm, patch {_row(configuration.patch_size)} voxels (network axis order)",
        f"- Network: {configuration.network.kind}, {len(configuration.network.features)} stages",
        *([f"- Segments by {together}. What else is said here is of {dataset.configuration}; the others are inside"] if together else []),
        f"- Fold scheme: {dataset.scheme}; finished folds: {', '.join(figures) or 'none'}",
        *([f"- Origin: {dataset.origin}"] if dataset.origin else []),
        f"- Written with: {', '.join(f'{name} {version}' for name, version in versions())}",
        "",
        "## Validation of each fold (Dice on the cases that the fold did not train on)",
        "",
        *_table(figures),
        "",
        "Figures hold for images like the training ones. On a scanner, protocol or hospital that is not among them, measure first.",
        "",
        "Use: `autoseg_predict -m THIS_FOLDER -i IMAGES -o MASKS`. Opening checks documents and weights against `manifest.json`.",
        "",
    ]
    return "\n".join(lines)


def _labels(scheme: LabelScheme) -> list[str]:
    ignored = (
        [] if scheme.ignore is None else [f"- Voxels marked {IGNORE!r} in the training masks taught nothing; no mask holds that value"]
    )
    if not scheme.has_regions:
        named = sorted((value, name) for name, value in scheme.labels.items() if name != IGNORE)
        return [f"- Labels: {', '.join(f'{value} {name}' for value, name in named)}", *ignored]
    regions = [
        f"{name} (values {', '.join(map(str, values))}; painted as {paint})"
        for paint, (name, values) in zip(scheme.region_order, scheme.foreground.items(), strict=True)
    ]
    return [f"- Regions, each may overlap the others, painted in this order: {', '.join(regions)}", *ignored]


def _table(figures: Mapping[str, FoldFigures | None]) -> list[str]:
    held_out = {fold: found.dice for fold, found in figures.items() if found and found.dice and found.out_of_fold}
    seen = [fold for fold, found in figures.items() if found and not found.out_of_fold]
    notes = []
    if seen:
        notes = [
            "",
            f"Trained on every case, so that none was held out: fold {', '.join(seen)}. Its Dice on those same cases says nothing about "
            "new ones and is not shown.",
        ]
    if not held_out:
        return ["No fold has a validation summary on held-out cases.", *notes]
    columns = list(dict.fromkeys(name for scores in held_out.values() for name in scores))
    rows = [f"| fold | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for fold, scores in held_out.items():
        cells = [f"{scores[name]:.3f}" if name in scores else "n/a" for name in columns]
        rows.append(f"| {fold} | {' | '.join(cells)} |")
    return [*rows, *notes]


def versions() -> list[tuple[str, str]]:
    """What writes this: Python, and the packages that a model's numbers depend on, with their versions."""
    found = [("Python", platform.python_version())]
    for package in ("autoseg", "torch", "numpy", "SimpleITK"):
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _row(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
