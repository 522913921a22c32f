"""What is inside a dataset's images and masks: one case at a time, and then the facts of all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.dataset.case import Case, list_names
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds
from autoseg.errors import AutosegError, DatasetError
from autoseg.images import Geometry, check_same_grid, read_header, read_image, read_mask
from planners.labels import IGNORE, LabelScheme, Values

DEFAULT_TOLERANCE = 0.1
"""Voxels that the corners of two images of one grid may lie apart."""


@dataclass(frozen=True)
class CaseFacts:
    """What looking into a case told.

    Args:
        shape: (z, y, x) voxels.
        spacing: (z, y, x) mm, as stored.
        labels: value -> voxels, for every value that the dataset names but the ignored one, absent ones with 0.
        notes: warnings, each naming the case.
        ignored: voxels of the value "ignore".
    """

    case: str
    patient: str
    centre: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    labels: dict[int, int]
    notes: tuple[str, ...] = ()
    ignored: int = 0

    @property
    def present(self) -> tuple[int, ...]:
        """The foreground labels that the mask holds, ascending."""
        return tuple(sorted(value for value, count in self.labels.items() if value > 0 and count))


def check_case(case: Case, dataset: Dataset, *, tolerance: float = DEFAULT_TOLERANCE) -> CaseFacts:
    """What a training case holds, after its channels and mask were read one by one and found good.

    Args:
        tolerance: voxels that corners of images on one grid may lie apart.

    Raises:
        ImageError, GeometryError, DatasetError: with everything that is wrong with the case in one message; of the first problem's class.
    """
    problems: list[AutosegError] = []
    notes: list[str] = []
    grid: tuple[str, Geometry] | None = None
    sources = case.images
    try:
        _require_all_volumes(case, dataset)
    except AutosegError as error:
        problems.append(error)
        sources = ()
    for channel, source in zip(dataset.channels, sources, strict=False):
        try:
            image = read_image(source.path, case=case.name, component=source.component)
            notes += image.notes
            if image.array.size and image.array.min() == image.array.max():
                notes.append(f"case {case.name}: {channel} ({source.path.name}) has the same value {image.array.flat[0]} everywhere")
            grid = grid or (channel, image.geometry)
            _same_grid(case, grid, (channel, image.geometry), tolerance, notes)
        except AutosegError as error:
            problems.append(error)
    counts: dict[int, int] = {}
    scheme = dataset.label_scheme
    if case.label is not None:
        try:
            mask = read_mask(case.label, case=case.name)
            notes += mask.notes
            counts = _label_counts(mask.array)
            _require_known(case, counts, scheme)
            notes += _annotation_notes(case, counts, scheme)
            if grid is not None:
                _same_grid(case, grid, ("mask", mask.geometry), tolerance, notes)
        except AutosegError as error:
            problems.append(error)
    if problems:
        raise _together(case, problems)
    assert grid is not None, "a dataset has at least one channel"
    return CaseFacts(
        case.name,
        case.patient,
        case.centre,
        tuple(grid[1].shape),
        tuple(grid[1].spacing),
        {value: counts.get(value, 0) for value in scheme.mask_values if value != scheme.ignore},
        tuple(dict.fromkeys(notes)),
        0 if scheme.ignore is None else counts.get(scheme.ignore, 0),
    )


def check_labels(facts: Sequence[CaseFacts], labels: Mapping[str, Values], folds: Folds | None = None) -> tuple[str, ...]:
    """Warnings on labels that cannot be learnt or tested: empty masks, a class in no case, or in the validation cases of one fold only.

    Args:
        labels: the dataset's; a region is in a case that holds any of its values.

    Raises:
        DatasetError: every mask is empty.
    """
    empty = [fact.case for fact in facts if not fact.present]
    if facts and len(empty) == len(facts):
        raise DatasetError(f"all {len(facts)} masks are empty: there is nothing to learn. Check that labelsTr holds the masks")
    warnings = []
    if empty:
        warnings.append(f"{len(empty)} of {len(facts)} masks are empty: {list_names(empty)}")
    for name, values in LabelScheme(labels).foreground.items():
        holders = {fact.case for fact in facts if set(values) & set(fact.present)}
        value = ", ".join(map(str, values))
        if not holders:
            warnings.append(f"the class {name!r} ({value}) is in no case: it cannot be learnt, and its Dice is n/a")
        elif folds is not None and len(folds.folds) > 1:
            where = [fold for fold, split in folds.folds.items() if holders & set(split.validation)]
            unseen = [fold for fold, split in folds.folds.items() if not holders & set(split.training)]
            if len(where) == 1:
                warnings.append(
                    f"the class {name!r} ({value}) is only in cases of fold {where[0]} ({list_names(sorted(holders))})"
                    + (f": without them nobody can learn it, so its Dice there is n/a for {name!r}" if unseen else "")
                )
    return tuple(warnings)


def presence(facts: Sequence[CaseFacts]) -> dict[str, tuple[int, ...]]:
    """Case -> the foreground labels in its mask: what fold schemes spread."""
    return {fact.case: fact.present for fact in facts}


def _require_all_volumes(case: Case, dataset: Dataset) -> None:
    """A 4-D file must hold as many volumes as there are channels: one more would be dropped in silence."""
    first = case.images[0]
    if first.component is None:
        return
    volumes = read_header(first.path, case=case.name).components
    if volumes != len(dataset.channels):
        raise DatasetError(
            f"case {case.name}: {first.path.name} holds {volumes} volume(s), dataset.json names {len(dataset.channels)} channels: "
            f"{', '.join(dataset.channels)}. Name every volume, or take the others out of the file"
        )


def _same_grid(case: Case, first: tuple[str, Geometry], second: tuple[str, Geometry], tolerance: float, notes: list[str]) -> None:
    note = check_same_grid(first[1], second[1], tolerance=tolerance, case=case.name, names=(first[0], second[0]))
    if note:
        notes.append(note)


def _label_counts(mask: np.ndarray) -> dict[int, int]:
    if mask.size and np.issubdtype(mask.dtype, np.integer) and mask.min() >= 0 and mask.max() < 1 << 16:
        counts = np.bincount(mask.reshape(-1))
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(mask, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _annotation_notes(case: Case, counts: Mapping[int, int], scheme: LabelScheme) -> list[str]:
    """A mask that says nothing at all."""
    if scheme.ignore is not None and set(counts) == {scheme.ignore}:
        return [f"case {case.name}: every voxel of its mask is {IGNORE!r}: nothing can be learnt or tested on it"]
    return []


def _require_known(case: Case, counts: Mapping[int, int], scheme: LabelScheme) -> None:
    unknown = {value: count for value, count in counts.items() if value not in scheme.mask_values}
    if unknown:
        found = ", ".join(f"{value} ({count} voxel{'s' if count != 1 else ''})" for value, count in unknown.items())
        known = ", ".join(f"{value if isinstance(value, int) else list(value)} = {name}" for name, value in scheme.labels.items())
        file = case.label.name if case.label else "mask"
        raise DatasetError(
            f"case {case.name}: {file} holds values that dataset.json does not name: {found}; it names {known}. "
            "Mend the mask or add the class"
        )


def _together(case: Case, problems: Sequence[AutosegError]) -> AutosegError:
    if len(problems) == 1:
        return problems[0]
    texts = [str(problem).removeprefix(f"case {case.name}: ") for problem in problems]
    return type(problems[0])(f"case {case.name}: {len(texts)} problems:\n" + "\n".join(f"    {text}" for text in texts))
