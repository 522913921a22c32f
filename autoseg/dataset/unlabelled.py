"""A dataset's images without labels: what pretraining may learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset.case import FILE_ENDINGS, Case, list_names
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.layout import IMAGES, LABELS
from autoseg.dataset.prediction import find_cases
from autoseg.errors import DatasetError

UNLABELLED = "imagesUn"


def find_unlabelled(dataset: Dataset, folders: Sequence[str | Path] = ()) -> tuple[Case, ...]:
    """The cases without a label, by name: those of imagesUn, those of imagesTr that have none, and those of further folders.

    Images of the test set (imagesTs) are not among them unless their folder is named: a model that has seen them, even without labels,
    is tested on images that it knows.

    Args:
        dataset: its labelled cases, and any that has a mask in labelsTr, are left out.
        folders: with one file a channel, or 4-D files, as for prediction.

    Raises:
        DatasetError: a folder is missing, a case is incomplete, or two cases share a name.
    """
    labelled = {case.name for case in dataset.cases}
    found: dict[str, tuple[Case, Path]] = {}
    problems = []
    for folder in [dataset.folder / IMAGES, dataset.folder / UNLABELLED, *map(Path, folders)]:
        own = folder.parent == dataset.folder and folder.name in {IMAGES, UNLABELLED}
        if own and not (folder.is_dir() and any(folder.iterdir())):
            continue
        cases, failures, _ = find_cases(folder, dataset.channels, dataset.file_ending)
        tells = own and folder.name == IMAGES
        for case in cases:
            if tells and (case.name in labelled or _has_label(dataset.folder, case.name)):
                continue
            if case.name in labelled:
                problems.append(f"case {case.name}: stands in {folder}, and a labelled case has that name too")
            elif case.name in found:
                problems.append(f"case {case.name}: stands in {found[case.name][1]} and in {folder}")
            else:
                found[case.name] = (case, folder)
        problems += [] if tells else failures
    if problems:
        raise DatasetError(f"{dataset.folder}: images without labels: {'; '.join(problems[:10])}. Rename or mend them, or take them away")
    return tuple(case for _, (case, _) in sorted(found.items()))


def require_any(cases: Sequence[Case], dataset: Dataset, folders: Sequence[str | Path]) -> None:
    """DatasetError where there is nothing to learn from; names where it was looked for."""
    if not cases:
        places = list_names([f"{dataset.folder / UNLABELLED}", f"{dataset.folder / IMAGES} (cases without a mask)", *map(str, folders)])
        raise DatasetError(
            f"there are no images without labels in {places}. Put some into {UNLABELLED}, name a folder with --images, or take a fold's "
            "training images in with --with-fold"
        )


def _has_label(folder: Path, name: str) -> bool:
    return any((folder / LABELS / f"{name}{ending}").exists() for ending in FILE_ENDINGS)
