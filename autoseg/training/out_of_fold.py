"""Which masks are out of fold: of held-out cases, as networks made them that had not been trained on the case, and nothing else.

Imports nothing heavy: choosing and prognosis both ask it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import TrainingError
from autoseg.inference.model_documents import FOLD_PREFIX, PLAN_NAME, read_plan
from autoseg.inference.records import Record, Records, hash_inputs
from autoseg.training.beginning import Beginning, leaked_cases, read_beginning
from autoseg.training.record import NAME as RUN_NAME
from planners.plan import Plan

MASKS = "masks"

Kind = Literal["gone", "held out nowhere", "unfinished", "not predicted", "leaked", "changed"]


@dataclass(frozen=True)
class HeldOutMask:
    """A mask that networks made of a case that they were not trained on.

    Attributes:
        fold: whose networks made it.
        sha256: of the mask as it was predicted.
        inputs: hash of the images that it was predicted from, as `hash_inputs` gives it.
    """

    path: Path
    fold: str
    sha256: str
    inputs: str

    def is_of(self, case: Case, sha256: Callable[[Path], str] = files.sha256_file) -> bool:
        """Whether the case's images are still those that the mask was predicted from."""
        return hash_inputs(case, sha256) == self.inputs


@dataclass(frozen=True)
class Missing:
    """Why a case has no such mask: in a word, and in words for people."""

    kind: Kind
    fold: str
    reason: str


@dataclass(frozen=True)
class HeldOutMasks:
    """The out-of-fold masks of a configuration.

    Attributes:
        masks, missing: by case; each case of the dataset and of the folds in use is in one of the two.
        finished: the folds whose held-out cases were predicted with their final weights.
        traced_through: the previous stage through which held-out cases left a trace in the networks; see `trace_of_held_out_cases`.
    """

    masks: Mapping[str, HeldOutMask]
    missing: Mapping[str, Missing]
    finished: tuple[str, ...]
    traced_through: str


def held_out_masks(
    dataset: Dataset, folds: Folds, model: Path, plan: Plan, configuration: str, sha256: Callable[[Path], str] = files.sha256_file
) -> HeldOutMasks:
    """The masks that count, by the folds that are in use.

    A mask counts where a fold in use holds its case out, that fold's own record says that it held the case out and predicted it with its
    final weights, the weights that the fold began from had not been trained on it, and the file is the one that was predicted. Where
    several folds hold a case out, the first whose mask counts. Masks of the fold "all" never count. Whether the images are still the same
    is left to `HeldOutMask.is_of`.

    Args:
        model: the model folder of the folds' scheme.
        plan: the workspace's; counts where the model folder has none of its own.
        sha256: hashes a mask's file.

    Raises:
        TrainingError: a fold's run.json cannot be read.
        ModelError: the model folder's plan is not valid.
    """
    read = {name: _FoldMasks.read(model / f"{FOLD_PREFIX}{name}", name) for name in folds.folds}
    masks: dict[str, HeldOutMask] = {}
    missing: dict[str, Missing] = {}
    for case in [case.name for case in dataset.cases]:
        homes = [name for name, fold in folds.folds.items() if case in fold.validation]
        found = [read[name].mask_of(case, f"{case}{plan.file_ending}", sha256) for name in homes]
        counted = next((one for one in found if isinstance(one, HeldOutMask)), None)
        if counted is not None:
            masks[case] = counted
        elif found and isinstance(found[0], Missing):
            missing[case] = found[0]
        else:
            missing[case] = Missing("held out nowhere", "", f"no fold of the scheme {folds.scheme} holds it out")
    for name, fold in folds.folds.items():
        for case in fold.validation:
            if case not in masks and case not in missing:
                missing[case] = Missing("gone", name, "it is no case of the dataset any more: autoseg_plan takes it out of the folds")
    trained = read_plan(model) if (model / PLAN_NAME).is_file() else plan
    return HeldOutMasks(
        masks,
        missing,
        tuple(name for name, one in read.items() if one.held_out is not None),
        trace_of_held_out_cases(trained, configuration),
    )


def trace_of_held_out_cases(plan: Plan, configuration: str) -> str:
    """The previous stage through whose masks held-out cases leave a trace in a cascade's networks; "" where there is none.

    What segments a held-out case was never trained on it. But unless `training.previous_masks` is "nested", its networks learned from masks
    of the training cases that other folds of the previous stage had drawn, and those were trained on the held-out cases.
    """
    spec = plan.configuration(configuration)
    if spec.previous_stage is None:
        return ""
    return trace_of_held_out_cases(plan, spec.previous_stage) if spec.training.previous_masks == "nested" else spec.previous_stage


def beginnings_behind(workspace: Workspace, plan: Plan, configuration: str, folds: Folds, fold: str) -> dict[str, Beginning]:
    """What the networks behind a fold's masks of its held-out cases began from, by what they are called; not those that began at random.

    They are the fold's own, those of the same fold in the stages before it, and with nested masks the joint ones that drew the masks which
    it learned from. What other networks of a previous stage knew, `trace_of_held_out_cases` tells.

    Args:
        plan: the workspace's; counts where the model folder has none of its own.

    Raises:
        TrainingError: a fold's run.json cannot be read.
        ModelError: the model folder's plan is not valid.
    """
    model = workspace.model(configuration, folds.scheme)
    trained = read_plan(model) if (model / PLAN_NAME).is_file() else plan
    spec = trained.configuration(configuration)
    found = {f"{configuration}, fold {fold}": read_beginning(model / f"{FOLD_PREFIX}{fold}")}
    if spec.previous_stage is not None:
        found |= beginnings_behind(workspace, trained, spec.previous_stage, folds, fold)
        others = [other for other in folds.folds if other != fold] if spec.training.previous_masks == "nested" else []
        for joint in [folds.joint(other, fold) for other in others]:
            folder = workspace.nested_model(spec.previous_stage, folds.scheme) / f"{FOLD_PREFIX}{joint}"
            found[f"{spec.previous_stage}, fold {joint}"] = read_beginning(folder)
    return {name: beginning for name, beginning in found.items() if beginning is not None}


@dataclass(frozen=True)
class _FoldMasks:
    """What a fold's folder says about itself.

    Attributes:
        held_out: the cases that it held out and predicted with its final weights; None where it did not come so far.
        leaked: held-out cases that the weights it began from had been trained on.
    """

    fold: str
    records: Records
    held_out: frozenset[str] | None
    leaked: frozenset[str] = frozenset()

    @staticmethod
    def read(folder: Path, fold: str) -> _FoldMasks:
        records = Records(folder / MASKS)
        path = folder / RUN_NAME
        run = files.read_json(path, error=TrainingError) if path.is_file() else {}
        if not isinstance(run, dict):
            raise TrainingError(f"{path}: is not what training writes. Train the fold anew with: autoseg_train {fold} --restart")
        validated = run.get("validated")
        if not isinstance(validated, dict) or validated.get("epochs") != run.get("finished_epochs"):
            return _FoldMasks(fold, records, None)
        return _FoldMasks(fold, records, frozenset(validated.get("cases", ())), frozenset(leaked_cases(folder)))

    def mask_of(self, case: str, name: str, sha256: Callable[[Path], str]) -> HeldOutMask | Missing:
        if self.held_out is None:
            return Missing("unfinished", self.fold, f"fold {self.fold} is not finished: autoseg_train {self.fold}")
        record = self.records.of(case)
        if case not in self.held_out or record is None:
            reason = f"fold {self.fold} was trained before this case joined it, or has not predicted it: autoseg_train {self.fold}"
            return Missing("not predicted", self.fold, reason)
        if case in self.leaked:
            reason = f"fold {self.fold} began (--init) from weights that had been trained on this case, so its mask is not out of fold"
            return Missing("leaked", self.fold, reason)
        path = self.records.folder / name
        if reason := _why_not_intact(path, record, sha256):
            return Missing("changed", self.fold, reason)
        return HeldOutMask(path, self.fold, record.outputs[name], record.inputs)


def _why_not_intact(path: Path, record: Record, sha256: Callable[[Path], str]) -> str:
    remedy = f"delete {path.name} and ../summary.json there, and run autoseg_train again"
    if not path.is_file():
        return f"its mask {path} is missing: {remedy}"
    if sha256(path) != record.outputs.get(path.name):
        return f"its mask {path} was changed after it was predicted, and only what the network made counts: {remedy}"
    return ""
