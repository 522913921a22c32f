"""Features of a dataset's patients from the out-of-fold masks of its own model, case by case."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from autoseg.dataset.case import Case, list_names
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.errors import AutosegError
from autoseg.images import check_same_grid, read_channels, read_header, read_mask
from autoseg.inference.records import hash_inputs
from autoseg.workers import map_cases
from planners.labels import LabelScheme, Values
from prognosis.errors import FeatureError
from prognosis.features.case import FEATURES, NODES, PRIMARY, Measured, measure
from prognosis.features.feature import Feature
from prognosis.features.masks import OutOfFoldMask, out_of_fold_masks
from prognosis.features.table import FeatureTable, MaskOrigin

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

CT_NAMES = ("ct",)
PET_NAMES = ("pet", "pt", "suv")
BYTES_A_VOXEL = 24
"""What one case holds at most: both images, the mask, and what is worked out from them."""

WORTH_PROCESSES = 4


@dataclass(frozen=True)
class Source:
    """What a dataset's channels and labels are to the features.

    Attributes:
        ct, pet: indices of channels; None where the dataset has none.
        labels: the values of "GTVp" and, where there are nodes, "GTVn"; several where the dataset calls a region so.
        notes: what was taken for what, where that is not plain.
    """

    ct: int | None
    pet: int | None
    labels: Mapping[str, Values]
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(channels: Sequence[str], labels: Mapping[str, Values], *, primary: str | None = None, nodes: str | None = None) -> Source:
        """The source that channel and label names tell.

        Args:
            channels: names in index order.
            labels: name -> value, or a region's values, with or without the background; one called "ignore" is no structure.
            primary, nodes: label names; None means "GTVp" and "GTVn" in any capitals, and the only label there is for the primary.

        Raises:
            FeatureError: no channel is a CT or PET, no label is the primary tumour, or the regions of tumour and nodes overlap.
        """
        ct, pet = _channel(channels, CT_NAMES), _channel(channels, PET_NAMES)
        if ct is None and pet is None:
            raise FeatureError(f"the channels are {', '.join(channels)}: features need one called CT or PET. Name them so in dataset.json")
        foreground = LabelScheme(labels).classes
        notes = []
        chosen = _label(foreground, primary, PRIMARY, "--primary")
        if chosen is None and len(foreground) == 1:
            chosen = next(iter(foreground))
            notes.append(f"the label {chosen!r} is taken for the primary tumour")
        if chosen is None:
            raise FeatureError(
                f"the labels are {', '.join(foreground)}: none is called {PRIMARY}. Say which is the primary tumour with --primary NAME"
            )
        second = _label(foreground, nodes, NODES, "--nodes")
        if second == chosen:
            raise FeatureError(f"the label {chosen!r} cannot be both the primary tumour and the nodes")
        if second and (shared := _numbers(foreground[chosen]) & _numbers(foreground[second])):
            raise FeatureError(
                f"the regions {chosen!r} and {second!r} share the value(s) {', '.join(map(str, sorted(shared)))}: what is the primary "
                "tumour cannot be nodes. Name classes that do not overlap with --primary and --nodes"
            )
        if rest := [name for name in foreground if name not in (chosen, second)]:
            notes.append(f"label(s) not measured: {list_names(rest)}")
        found = {PRIMARY: foreground[chosen]} | ({NODES: foreground[second]} if second else {})
        return Source(ct, pet, found, tuple(notes))

    def names(self, labels: Mapping[str, Values]) -> dict[str, str]:
        """What the dataset calls the primary tumour ("GTVp") and the nodes ("GTVn")."""
        called = {value: name for name, value in LabelScheme(labels).classes.items()}
        return {part: called[value] for part, value in self.labels.items()}

    def measures(self, feature: Feature) -> bool:
        """Whether a feature can have a value: there is the image that it needs, and the label."""
        needs = {"CT": self.ct, "PET": self.pet}
        nodal = feature.family == "nodal" or "gtvn" in feature.name or feature.name == "node_count"
        return needs.get(feature.channel, 0) is not None and (not nodal or NODES in self.labels)


def extract_features(
    dataset: Dataset,
    workspace: Workspace,
    *,
    configuration: str | None = None,
    primary: str | None = None,
    nodes: str | None = None,
    workers: int | None = None,
) -> FeatureTable:
    """Features of every patient who has an out-of-fold mask; of one with several cases, the first by name counts.

    Args:
        configuration: whose masks; None means the plan's default.
        primary, nodes: label names, as in `Source.of`.
        workers: processes, each with one case at a time; None chooses by cores and memory, 0 works here.

    Returns:
        A row a patient. Patients without one stand in `unmeasured` with the reason: no mask, or a case that failed.

    Raises:
        PlanError, FoldError: nothing is planned.
        FeatureError: no mask counts, no case could be measured, or channels or labels are not told apart.
    """
    source = Source.of(dataset.channels, dataset.labels, primary=primary, nodes=nodes)
    found = out_of_fold_masks(dataset, workspace, configuration)
    first, further = first_cases(dataset.cases)
    masks = [mask for mask in found.masks if mask.case.name in first]
    unmeasured = {case.patient: f"case {name}: {found.missing[name]}" for name, case in first.items() if name in found.missing}
    notes = [*source.notes]
    if further:
        notes.append(f"{len(further)} further scan(s) of patients with several are not used: {list_names(further)}")
    if excluded := workspace.excluded():
        notes.append(f"{len(excluded)} case(s) are left out by the plan: {list_names(excluded)}")

    notes += [f"segmentation_saw_centre is true because nobody can tell otherwise: {why}" for why in found.untold]

    work = partial(_measure_held_out, source=source, tolerance=found.tolerance)
    names, paths = [mask.case.name for mask in masks], [mask.path for mask in masks]
    measured, failures = run_cases(masks, work, names=names, masks=paths, workers=workers)
    unmeasured |= {mask.case.patient: failures[mask.case.name] for mask in masks if mask.case.name in failures}
    kept = {mask.case.patient: mask for mask in sorted(masks, key=lambda mask: mask.case.patient) if mask.case.name in measured}
    if not kept:
        raise FeatureError(f"{dataset.folder}: no case could be measured: {'; '.join(list(unmeasured.values())[:3])}")
    rows = {patient: measured[mask.case.name] for patient, mask in kept.items()}
    notes += [f"patient {patient}: {note}" for patient, row in rows.items() for note in row.notes]
    return FeatureTable(
        feature_frame(rows, [name for name, feature in FEATURES.items() if source.measures(feature)]),
        flags={patient: row.flags for patient, row in rows.items() if row.flags},
        masks={patient: MaskOrigin(mask.case.name, mask.fold, mask.saw_centre, mask.sha256) for patient, mask in kept.items()},
        unmeasured=dict(sorted(unmeasured.items())),
        failures=tuple(failures.values()),
        segmentation_saw_centre=any(mask.saw_centre for mask in kept.values()),
        segmentation_saw_patient=found.saw_patients,
        scheme=found.scheme,
        configuration=found.configuration,
        labels=source.names(dataset.labels),
        notes=tuple(notes),
    )


def first_cases(cases: Iterable[Case]) -> tuple[dict[str, Case], tuple[str, ...]]:
    """Each patient's first case by name (name -> case), and the names of the further ones."""
    first: dict[str, Case] = {}
    further, seen = [], set()
    for case in sorted(cases, key=lambda case: case.name):
        if case.patient in seen:
            further.append(case.name)
        else:
            seen.add(case.patient)
            first[case.name] = case
    return first, tuple(further)


def run_cases(
    items: Sequence[T], work: Callable[[T], R], *, names: Sequence[str], masks: Sequence[Path], workers: int | None
) -> tuple[dict[str, R], dict[str, str]]:
    """Case -> what the work gave, and case -> why it failed; one bad case does not stop the others.

    Args:
        items, work, names: as `autoseg.workers.map_cases` takes them; a process holds the arrays of one case at a time.
        masks: one a case; their headers tell how much memory a case needs.
        workers: processes; None chooses by cores and memory.
    """
    done, failures = {}, {}
    for outcome in map_cases(work, items, workers=_processes(masks) if workers is None else workers, names=names, progress="features"):
        if outcome.value is None:
            failures[outcome.name] = str(outcome.error)
            logger.error("%s", outcome.error)
        else:
            done[outcome.name] = outcome.value
    return done, failures


def measure_files(case: Case, mask_path: Path, source: Source, *, tolerance: float, replace_nonfinite: bool = False) -> Measured:
    """The features of one case from its files.

    Args:
        tolerance: how far apart the corners of images and mask may lie, in voxels.
        replace_nonfinite: as `autoseg.images.read_image`'s `allow_nonfinite`.

    Raises:
        ImageError, GeometryError: an image or the mask is broken, or they do not share a grid.
    """
    channels = [channel for channel in (source.ct, source.pet) if channel is not None]
    wanted = [(case.images[channel].path, case.images[channel].component) for channel in channels]
    images = dict(zip(channels, read_channels(wanted, case=case.name, allow_nonfinite=replace_nonfinite), strict=True))
    mask = read_mask(mask_path, case=case.name)
    for channel, image in images.items():
        names = ("the mask", f"channel {channel}")
        check_same_grid(mask.geometry, image.geometry, tolerance=tolerance, case=case.name, names=names)
    ct = None if source.ct is None else images[source.ct].array
    pet = None if source.pet is None else images[source.pet].array
    return measure(ct, pet, mask.array, mask.geometry.spacing, source.labels)


def feature_frame(rows: Mapping[str, Measured], columns: Sequence[str]) -> pd.DataFrame:
    """A pandas frame with index `patient` and a float64 column a feature."""
    import pandas as pd

    values = [[row.values.get(name, math.nan) for name in columns] for row in rows.values()]
    return pd.DataFrame(values, index=pd.Index(rows, name="patient", dtype=object), columns=list(columns), dtype="float64")


def _measure_held_out(mask: OutOfFoldMask, source: Source, tolerance: float) -> Measured:
    if hash_inputs(mask.case) != mask.inputs:
        raise FeatureError(
            f"case {mask.case.name}: its images were changed after the mask {mask.path} was predicted. Run autoseg_plan and "
            f"autoseg_train {mask.fold} again"
        )
    return measure_files(mask.case, mask.path, source, tolerance=tolerance)


def _processes(paths: Sequence[Path]) -> int:
    from autoseg.resources import available_memory, usable_cores

    if len(paths) < WORTH_PROCESSES:
        return 0
    largest = 0
    for path in paths:
        try:
            largest = max(largest, math.prod(read_header(path).shape))
        except AutosegError:
            continue  # it is told when its turn comes
    fitting = int(0.8 * available_memory() / (largest * BYTES_A_VOXEL + 300_000_000))
    return max(0, min(usable_cores(), len(paths), fitting))


def _channel(channels: Sequence[str], names: Sequence[str]) -> int | None:
    return next((index for index, channel in enumerate(channels) if channel.strip().lower() in names), None)


def _numbers(value: Values) -> set[int]:
    return {value} if isinstance(value, int) else set(value)


def _label(labels: Mapping[str, Values], asked: str | None, usual: str, option: str) -> str | None:
    if asked is not None:
        if asked not in labels:
            raise FeatureError(f"{option} {asked}: there is no such label; there are {', '.join(labels)}")
        return asked
    return next((name for name in labels if name.lower() == usual.lower()), None)
