"""Which masks features may be taken from: those of held-out cases, as the network made them, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import ALL, Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import FoldError, PlanError
from prognosis.errors import FeatureError

MASKS = "masks"
UNKNOWN_CENTRE = ""


@dataclass(frozen=True)
class OutOfFoldMask:
    """A mask that a network made of a case it was not trained on.

    Attributes:
        case: with its files, patient and centre.
        path: the mask.
        fold: whose network made it.
        saw_centre: whether that network was trained on cases of the same centre; also where the centre is unknown.
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
        scheme, configuration: of the model folder.
        tolerance: how far apart the corners of a case's images may lie, in voxels.
    """

    masks: tuple[OutOfFoldMask, ...]
    missing: Mapping[str, str]
    scheme: str
    configuration: str
    tolerance: float


def out_of_fold_masks(dataset: Dataset, workspace: Workspace, configuration: str | None = None) -> OutOfFoldMasks:
    """The out-of-fold masks of a dataset's cases, from the model folder of the folds that are in use.

    A mask counts where the fold in use holds its case out, the fold's own record says that it held that case out and predicted it with
    its final weights, and the file is the one that was predicted. Masks of the fold `all`, whose network was trained on every case,
    never count.

    Args:
        configuration: of the plan; None means its default.

    Raises:
        PlanError, FoldError: there is no plan, or no such configuration, or no folds.
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
    homes = {case: name for name, fold in reversed(folds.folds.items()) for case in fold.validation}
    predicted = {name: _Predicted.read(workspace.fold(configuration, folds.scheme, name)) for name in folds.folds}
    masks, missing = [], {}
    for case in dataset.cases:
        fold = homes.get(case.name)
        if fold is None:
            missing[case.name] = f"no fold of the scheme {folds.scheme} holds it out"
            continue
        reason = predicted[fold].why_not(case.name, fold)
        if reason is None:
            path = predicted[fold].folder / MASKS / f"{case.name}{plan.file_ending}"
            reason = _why_not_intact(path, predicted[fold].records[case.name])
        if reason is not None:
            missing[case.name] = reason
            continue
        record = predicted[fold].records[case.name]
        saw_centre = _saw_centre(folds, fold, case.name)
        masks.append(OutOfFoldMask(case, path, fold, saw_centre, record["outputs"][path.name], record["inputs"]))
    if not masks:
        raise _nothing(workspace, configuration, folds, missing)
    return OutOfFoldMasks(tuple(masks), missing, folds.scheme, configuration, plan.geometry_tolerance)


def segmentation_saw_centre(folds: Folds) -> bool:
    """Whether some held-out case's network was trained on cases of the same centre: then its mask says nothing about a new hospital.

    False only where every fold holds out whole centres (loco, grouped, or a file that does the same). A case without a centre may be of
    any, so it counts as seen.
    """
    return any(_saw_centre(folds, name, case) for name, fold in folds.folds.items() for case in fold.validation)


def _saw_centre(folds: Folds, fold: str, case: str) -> bool:
    members = folds.members
    trained_on = {members[name].centre for name in folds.folds[fold].training if name in members}
    centre = members[case].centre if case in members else UNKNOWN_CENTRE
    return centre in trained_on or centre == UNKNOWN_CENTRE or UNKNOWN_CENTRE in trained_on


@dataclass(frozen=True)
class _Predicted:
    """What a fold's folder says about itself.

    Attributes:
        held_out: the cases that it held out and predicted with its final weights; None where it did not come so far.
        records: case -> its line of predictions.jsonl.
        leaked: held-out cases that the weights it began from had been trained on.
    """

    folder: Path
    held_out: frozenset[str] | None
    records: Mapping[str, Mapping[str, Any]]
    leaked: frozenset[str] = frozenset()

    @staticmethod
    def read(folder: Path) -> _Predicted:
        from autoseg.inference.records import NAME as RECORDS_NAME
        from autoseg.training.beginning import leaked_cases
        from autoseg.training.record import NAME as RUN_NAME

        run = folder / RUN_NAME
        if not run.exists():
            return _Predicted(folder, None, {})
        document = files.read_json(run, error=FeatureError)
        validated = document.get("validated") if isinstance(document, dict) else None
        final = isinstance(validated, dict) and validated.get("epochs") == document.get("finished_epochs")
        held_out = frozenset(validated.get("cases", ())) if final else None
        leaked = frozenset(leaked_cases(folder)) if final else frozenset()
        return _Predicted(folder, held_out, _last_lines(folder / MASKS / RECORDS_NAME), leaked)

    def why_not(self, case: str, fold: str) -> str | None:
        if self.held_out is None:
            return f"fold {fold} is not finished: autoseg_train {fold}"
        if case not in self.held_out or case not in self.records:
            return f"fold {fold} was trained before this case joined it, or has not predicted it: autoseg_train {fold}"
        if case in self.leaked:
            return f"fold {fold} began (--init) from weights that had been trained on this case, so its mask is not out of fold"
        return None


def _last_lines(path: Path) -> dict[str, Mapping[str, Any]]:
    """Case -> its last whole line in a predictions.jsonl; a line that a kill cut short is left out."""
    found = {}
    for line in path.read_text(encoding="ascii", errors="replace").splitlines() if path.is_file() else ():
        try:
            document = json.loads(line)
            found[str(document["case"])] = {"outputs": dict(document["outputs"]), "inputs": str(document["inputs"])}
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _why_not_intact(path: Path, record: Mapping[str, Any]) -> str | None:
    remedy = f"delete {path.name} and ../summary.json there, and run autoseg_train again"
    if not path.is_file():
        return f"its mask {path} is missing: {remedy}"
    if files.sha256_file(path) != record["outputs"].get(path.name):
        return f"its mask {path} was changed after it was predicted, and only what the network made may be measured: {remedy}"
    return None


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
