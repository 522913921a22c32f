"""The masks that features are taken from: those that count as out of fold, and what their networks had seen of a case's centre."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import ALL, Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import FoldError, PlanError
from autoseg.training.out_of_fold import MASKS, held_out_masks
from prognosis.errors import FeatureError
from prognosis.features.earlier import Earlier, seen_earlier

UNKNOWN_CENTRE = ""

SAW_PATIENT = (
    "segmentation_saw_patient: true (the networks that drew the masks are a cascade's: they learned from masks by networks of the previous "
    "stage that had been trained on images and masks, never outcomes, of the very patients that are held out here, and so of their "
    "hospitals; train the cascade with training.previous_masks=nested to close this path)"
)


@dataclass(frozen=True)
class OutOfFoldMask:
    """A mask that a network made of a case it was not trained on.

    Attributes:
        case: with its files, patient and centre.
        path: the mask.
        fold: whose network made it.
        saw_centre: whether that network was trained on cases of the same centre, also before, by the weights that it began from; true too
            where nobody can tell.
        sha256: of the mask as it was predicted.
        inputs: hash of the images that it was predicted from, as `autoseg.inference.records.hash_inputs` gives it.
    """

    case: Case
    path: Path
    fold: str
    saw_centre: bool
    sha256: str
    inputs: str


@dataclass(frozen=True)
class OutOfFoldMasks:
    """The masks of a model folder.

    Attributes:
        masks: one a case, in the order of the cases' names.
        missing: case -> why it has none.
        saw_patients: whether the networks learned from masks of networks that had been trained on the very cases, see
            `autoseg.training.out_of_fold.trace_of_held_out_cases`; None where they began from weights that do not tell what they saw.
        untold: why `saw_centre` is not known for certain, in sentences.
        scheme, configuration: of the model folder.
        tolerance: how far apart the corners of a case's images may lie, in voxels.
    """

    masks: tuple[OutOfFoldMask, ...]
    missing: Mapping[str, str]
    saw_patients: bool | None
    scheme: str
    configuration: str
    tolerance: float
    untold: tuple[str, ...] = ()


def out_of_fold_masks(dataset: Dataset, workspace: Workspace, configuration: str | None = None) -> OutOfFoldMasks:
    """The out-of-fold masks of a dataset's cases, from the model folder of the folds that are in use.

    Which those are, `autoseg.training.out_of_fold.held_out_masks` says.

    Args:
        configuration: of the plan; None means its default.

    Raises:
        PlanError, FoldError: there is no plan, or no such configuration, or no folds.
        TrainingError: a fold's run.json cannot be read.
        FeatureError: no mask counts.
    """
    from planners.plan import PlanInvalid, default_configuration

    plan = workspace.read_plan()
    configuration = configuration or default_configuration(plan)
    try:
        plan.configuration(configuration)
    except PlanInvalid as error:
        raise PlanError(str(error)) from None
    folds = Folds.from_json(files.read_json(workspace.folds, error=FoldError), str(workspace.folds))
    found = held_out_masks(dataset, folds, workspace.model(configuration, folds.scheme), plan, configuration)
    earlier = seen_earlier(dataset, workspace, plan, configuration, folds)
    masks = tuple(
        OutOfFoldMask(case, mask.path, mask.fold, _saw_centre(folds, mask.fold, case.name, earlier[mask.fold]), mask.sha256, mask.inputs)
        for case in dataset.cases
        if (mask := found.masks.get(case.name))
    )
    missing = {case: why.reason for case, why in found.missing.items()}
    if not masks:
        raise _nothing(workspace, configuration, folds, missing)
    behind = [earlier[fold] for fold in dict.fromkeys(mask.fold for mask in masks)]
    saw_patients = True if found.traced_through else False if all(one.tells_images for one in behind) else None
    untold = tuple(dict.fromkeys(why for one in behind for why in one.untold))
    return OutOfFoldMasks(masks, missing, saw_patients, folds.scheme, configuration, plan.geometry_tolerance, untold)


def _saw_centre(folds: Folds, fold: str, case: str, earlier: Earlier) -> bool:
    """Whether a fold's networks may have seen the centre of a case that it holds out; a case without a centre may be of any."""
    members = folds.members
    trained_on = {members[name].centre for name in folds.folds[fold].training if name in members} | earlier.centres
    centre = members[case].centre if case in members else UNKNOWN_CENTRE
    return bool(earlier.untold) or centre in trained_on or centre == UNKNOWN_CENTRE or UNKNOWN_CENTRE in trained_on


def _nothing(workspace: Workspace, configuration: str, folds: Folds, missing: Mapping[str, str]) -> FeatureError:
    model = workspace.model(configuration, folds.scheme)
    if (workspace.fold(configuration, folds.scheme, ALL) / MASKS).is_dir():
        commands = ", ".join(f"autoseg_train {fold}" for fold in folds.folds)
        return FeatureError(
            f"{model}: only the fold {ALL!r} has masks. Its network was trained on every case, so its masks are better than those of any "
            f"new patient will be, and features from them would mislead. Train the folds: {commands}"
        )
    reasons = "; ".join(sorted(set(missing.values()))[:5])
    return FeatureError(f"{model}: none of {len(missing)} cases has an out-of-fold mask of the folds in use ({folds.scheme}): {reasons}")
