"""Pictures of evaluated cases: the images of a dataset folder under their reference and predicted masks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autoseg.dataset import Case, Dataset, find_cases
from autoseg.errors import AutosegError
from autoseg.evaluation.evaluate import Masks, find_masks
from autoseg.evaluation.evaluation import CaseScores, Evaluation
from autoseg.report.overlay import draw_overlay

logger = logging.getLogger(__name__)

IMAGE_FOLDERS = ("imagesTs",)
"""Where a dataset's further images lie, beside those of its training cases."""


def draw_cases(
    evaluation: Evaluation,
    reference: Masks,
    prediction: Masks,
    dataset: Path,
    folder: Path,
    title: Callable[[CaseScores], str] | None = None,
) -> dict[str, Path]:
    """Case name -> the PNG drawn for it in `folder`; a case whose images cannot be read is left out and said.

    Args:
        evaluation: of these masks; its cases are drawn.
        reference, prediction: as `evaluate` takes them.
        dataset: the dataset folder; images are those of its training cases and in imagesTs.
        title: what stands above a picture; None: the case and its centre.

    Raises:
        DatasetError: dataset.json does not say what images to look for.
    """
    opened, _ = Dataset.survey(dataset)  # what is wrong with other cases, such as those that a plan leaves out, does not matter here
    images = _cases_with_images(opened)
    references, predictions = find_masks(reference), find_masks(prediction)
    drawn: dict[str, Path] = {}
    for scored in evaluation.cases:
        case = images.get(scored.case)
        if case is None:
            logger.warning("case %s: no picture, its images are not in %s, or something is wrong with their files", scored.case, dataset)
            continue
        if scored.case in evaluation.failures:
            continue  # nothing that could be drawn was predicted; why, the evaluation tells
        path = folder / f"{scored.case}.png"
        try:
            _draw(
                path,
                case,
                references[scored.case],
                predictions[scored.case],
                opened.channels,
                evaluation,
                scored,
                (title or _title)(scored),
            )
        except AutosegError as error:
            logger.warning("case %s: no picture: %s", scored.case, error)
            continue
        drawn[scored.case] = path
    return drawn


def _title(scored: CaseScores) -> str:
    return f"{scored.case}, {scored.centre}" if scored.centre else scored.case


def _cases_with_images(dataset: Dataset) -> dict[str, Case]:
    cases = {case.name: case for case in dataset.cases}
    for name in IMAGE_FOLDERS:
        if (dataset.folder / name).is_dir():
            found = find_cases(dataset.folder / name, dataset.channels, dataset.file_ending)[0]
            cases.update({case.name: case for case in found if case.name not in cases})
    return cases


def _draw(
    path: Path,
    case: Case,
    reference: Path,
    prediction: Path,
    channels: tuple[str, ...],
    evaluation: Evaluation,
    scored: CaseScores,
    title: str,
) -> None:
    from autoseg.images import read_channels, read_mask, reorientation_to_canonical

    images = read_channels(case.sources, case=case.name)
    masks = [read_mask(file, case=case.name) for file in (reference, prediction)]
    turn = reorientation_to_canonical(images[0].geometry)
    geometry = turn.apply_geometry(images[0].geometry)
    # pictures run to superior, posterior and left, whatever the canonical orientation is: LPS mm grow along all three
    flips = [axis for axis in range(3) if np.asarray(geometry.direction).reshape(3, 3)[2 - axis, 2 - axis] < 0]
    arrays = [np.flip(turn.apply(image.array), flips) for image in (*images, *masks)]
    draw_overlay(
        path,
        np.stack([array.astype(np.float32) for array in arrays[: len(images)]]),
        arrays[-2],
        arrays[-1],
        geometry.spacing,
        labels=evaluation.labels,
        channels=channels,
        title=title,
        dice={name: scores.dice for name, scores in scored.scores.items()},
    )
