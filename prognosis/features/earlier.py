"""What the weights had seen from which networks began (`autoseg_train --init`): the centres of this dataset, as far as anyone can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds
from autoseg.dataset.workspace import Workspace
from autoseg.inference.trained_on import image_marks
from autoseg.preprocessing.content import ContentHashes
from autoseg.training.beginning import Beginning
from autoseg.training.out_of_fold import beginnings_behind
from planners.plan import Plan


@dataclass(frozen=True)
class Earlier:
    """What the weights had seen that the networks behind a fold's masks began from.

    Attributes:
        centres: of the dataset's cases among it; "" where that of one is not known.
        untold: why there may be more centres, in sentences; none where all that was seen is a case of the dataset.
        tells_images: whether all images are told, so that the held-out patients are known not to be among them.
    """

    centres: frozenset[str] = frozenset()
    untold: tuple[str, ...] = ()
    tells_images: bool = True


def seen_earlier(dataset: Dataset, workspace: Workspace, plan: Plan, configuration: str, folds: Folds) -> dict[str, Earlier]:
    """By fold, what the networks behind its masks had seen before they were trained on the fold's cases.

    Raises:
        TrainingError, ModelError: as `beginnings_behind`.
    """
    behind = {fold: beginnings_behind(workspace, plan, configuration, folds, fold) for fold in folds.folds}
    centres = _centres_of_images(dataset, workspace, folds) if any(behind.values()) else {}
    return {fold: _together(beginnings, centres) for fold, beginnings in behind.items()}


def _centres_of_images(dataset: Dataset, workspace: Workspace, folds: Folds) -> dict[str, str]:
    """Mark of an image file -> its case's centre, as the folds know it."""
    hashes = ContentHashes(workspace.contents)
    known = {name: member.centre for name, member in folds.members.items()}
    return {mark: known.get(case.name, case.centre) for case in dataset.cases for mark in image_marks(case, hashes)}


def _together(beginnings: Mapping[str, Beginning], centres: Mapping[str, str]) -> Earlier:
    told = [beginning.trained_on for beginning in beginnings.values() if beginning.trained_on]
    images: Iterable[str] = frozenset().union(*(one.images for one in told))
    return Earlier(
        frozenset(centres[image] for image in images if image in centres),
        tuple(why for name, beginning in beginnings.items() if (why := _untold(name, beginning, centres))),
        tells_images=len(told) == len(beginnings) and all(one.complete for one in told),
    )


def _untold(name: str, beginning: Beginning, centres: Mapping[str, str]) -> str:
    began = f"{name}, began (--init) from {beginning.source['path']}"
    if beginning.trained_on is None:
        return f"{began}, which does not tell which images it was trained on"
    if not beginning.trained_on.complete:
        return f"{began}, which does not tell all the images that it was trained on"
    if foreign := beginning.trained_on.images - centres.keys():
        return f"{began}, which was trained on {len(foreign)} image(s) of no case of this dataset, so that their centre is not known"
    return ""
