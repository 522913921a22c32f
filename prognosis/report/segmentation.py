"""What the report says of the masks: out-of-fold Dice by hospital, and one picture a hospital, without a name in it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.report import html
from prognosis.errors import FeatureError
from prognosis.features.masks import OutOfFoldMasks
from prognosis.report.figures import dots

UNKNOWN = "(not known)"


@dataclass(frozen=True)
class Scored:
    """The Dice of one case's out-of-fold mask, by label; nan where neither mask has the label."""

    case: str
    centre: str
    dice: dict[str, float]

    @property
    def mean(self) -> float:
        known = [value for value in self.dice.values() if not math.isnan(value)]
        return sum(known) / len(known) if known else float("nan")


def segmentation_parts(dataset: Dataset, workspace: Workspace, masks: OutOfFoldMasks) -> Iterator[str]:
    """The HTML about the masks that the features came from.

    Raises:
        FeatureError: a fold's summary cannot be read.
    """
    scored = read_scores(workspace, masks)
    yield html.heading("Masks")
    yield html.paragraph(
        f"{len(masks.masks)} out-of-fold masks of {masks.configuration}, folds {masks.scheme}. {_seen(masks)}"
        + (
            " But they had learned from masks by networks of the previous stage that were trained on these very cases."
            if masks.saw_patients
            else ""
        )
    )
    labels = list(dict.fromkeys(label for case in scored for label in case.dice))
    centres = list(dict.fromkeys(case.centre for case in sorted(scored, key=lambda case: case.centre)))
    rows = [(name or UNKNOWN, *_row([case for case in scored if case.centre == name], labels)) for name in centres]
    rows.append(("all", *_row(scored, labels)))
    header = ("hospital", "cases", *(f"Dice, {label}" for label in labels))
    yield html.table(header, rows, numbers=range(1, len(header)), strong=(len(rows) - 1,))
    for label in labels:
        groups = {name or UNKNOWN: [case.dice[label] for case in scored if case.centre == name and label in case.dice] for name in centres}
        yield html.figure(
            dots(groups, metric=f"Dice, {label}"),
            "A dot is a case, the line their mean. Cases without the label in reference and mask are left out.",
        )
    if masks.missing:
        yield html.paragraph(f"{len(masks.missing)} cases have no such mask: {'; '.join(sorted(set(masks.missing.values())))}")
    yield from _pictures(dataset, masks, scored)


def _seen(masks: OutOfFoldMasks) -> str:
    """What the networks knew of the hospitals whose masks they drew."""
    if masks.untold:
        return f"Whether the networks had seen the hospital is not known: {'; '.join(masks.untold)}."
    if any(mask.saw_centre for mask in masks.masks):
        return "The networks were trained on other patients of the same hospitals."
    return "The networks that drew them had never seen the hospital."


def read_scores(workspace: Workspace, masks: OutOfFoldMasks) -> list[Scored]:
    """The scores of the cases whose masks count, from their folds' summaries."""
    wanted = {(mask.fold, mask.case.name): mask.case.centre for mask in masks.masks}
    found = []
    for fold in dict.fromkeys(mask.fold for mask in masks.masks):
        path = workspace.fold(masks.configuration, masks.scheme, fold) / "summary.json"
        document: Any = files.read_json(path, error=FeatureError)
        try:
            for entry in document["cases"]:
                if (fold, entry["case"]) in wanted:
                    dice = {name: float("nan") if told["dice"] is None else told["dice"] for name, told in entry["labels"].items()}
                    found.append(Scored(entry["case"], wanted[fold, entry["case"]], dice))
        except (KeyError, TypeError) as error:
            raise FeatureError(f"{path}: is no summary of a fold ({error}). Run autoseg_train {fold} again") from error
    return found


def _row(cases: list[Scored], labels: list[str]) -> list[str]:
    cells = [str(len(cases))]
    for label in labels:
        known = [case.dice[label] for case in cases if not math.isnan(case.dice.get(label, float("nan")))]
        cells.append(f"{sum(known) / len(known):.3f}" if known else "n/a")
    return cells


def _pictures(dataset: Dataset, masks: OutOfFoldMasks, scored: list[Scored]) -> Iterator[str]:
    """The case with the median Dice of each hospital."""
    from autoseg.evaluation.evaluate import evaluate
    from autoseg.evaluation.pictures import draw_cases

    chosen = {}
    for centre in dict.fromkeys(case.centre for case in sorted(scored, key=lambda case: case.centre)):
        ranked = sorted((case for case in scored if case.centre == centre and not math.isnan(case.mean)), key=lambda case: case.mean)
        if ranked:
            chosen[ranked[len(ranked) // 2].case] = centre
    by_case = {mask.case.name: mask for mask in masks.masks}
    references = {name: by_case[name].case.label for name in chosen if by_case[name].case.label is not None}
    predictions = {name: by_case[name].path for name in references}
    if not references:
        return
    evaluation = evaluate(references, predictions, labels=dataset.labels, centres={name: chosen[name] for name in references})
    with tempfile.TemporaryDirectory() as scratch:
        drawn = draw_cases(
            evaluation,
            references,
            predictions,
            dataset.folder,
            Path(scratch),
            title=lambda case: f"hospital {case.centre or UNKNOWN}: its median case",
        )
        for name, path in drawn.items():
            centre = chosen[name] or UNKNOWN
            yield html.figure(
                html.image(path.read_bytes(), f"images and masks of the median case of hospital {centre}"),
                f"Hospital {centre}, the case with the median Dice: reference solid, out-of-fold mask dashed.",
            )
