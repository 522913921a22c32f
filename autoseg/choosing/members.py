"""The trained configurations that can be compared: those of one plan or several, with the masks of cases that they had not learned from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg import files
from autoseg.dataset.case import list_names
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import FoldError, PlanError, TrainingError
from autoseg.inference.choice import ChosenModel
from autoseg.inference.model_documents import finished_folds
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.records import Records, hash_inputs
from autoseg.preprocessing.content import ContentHashes
from autoseg.training.beginning import leaked_cases
from autoseg.training.record import NAME as RUN_NAME
from planners.memory import parameter_count
from planners.plan import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A trained configuration.

    Attributes:
        name: the configuration's; "PLAN-CONFIGURATION" where several plans are compared.
        model: its opened model folder, with the folds that have out-of-fold masks.
        fold_of: case -> the fold that held it out and predicted it.
        masks: case -> that mask.
        notes: what a user should know: folds that are not finished, masks that cannot be used.
    """

    name: str
    model: ModelFolder
    fold_of: Mapping[str, str]
    masks: Mapping[str, Path]
    notes: tuple[str, ...] = ()

    @property
    def networks(self) -> int:
        """How many networks see an image with one fold: one, and one more for each stage before."""
        model, count = self.model, 1
        while model.previous is not None:
            model, count = model.previous, count + 1
        return count

    @property
    def parameters(self) -> int:
        """Trainable numbers of those networks."""
        return _parameters(self.model)

    @property
    def chosen(self) -> ChosenModel:
        """This member in a choice."""
        return ChosenModel(self.name, self.model.folder, {fold: self.model.hashes[fold] for fold in self.model.folds})


def find_members(dataset: Dataset, workspaces: Sequence[Workspace], configurations: Iterable[str] | None = None) -> list[Member]:
    """All trained configurations of these plans, in the plans' order.

    Args:
        configurations: only these; None means all that have a finished fold.

    Raises:
        PlanError: a configuration that is asked for is in none of the plans, or the plans do not go together.
        TrainingError: none has a finished fold, or one that is asked for has none.
    """
    hashes = ContentHashes(workspaces[0].root / "cases" / "contents.json")
    wanted = None if configurations is None else list(dict.fromkeys(configurations))
    plans = [(workspace, workspace.read_plan()) for workspace in workspaces]
    known = list(dict.fromkeys(name for _, plan in plans for name in plan.configurations))
    unknown = [name for name in wanted or [] if name not in known]
    if unknown:
        raise PlanError(f"-c {' '.join(unknown)}: no plan has such a configuration; there are: {', '.join(known)}")
    found, empty = [], []
    for workspace, plan in plans:
        for configuration in plan.configurations:
            if wanted is not None and configuration not in wanted:
                continue
            name = configuration if len(workspaces) == 1 else f"{workspace.name}-{configuration}"
            member = _member(dataset, workspace, plan, configuration, name, hashes)
            found += [member] if member else []
            empty += [] if member else [name]
    hashes.save()
    if not found or (wanted and empty and len(workspaces) == 1):
        raise TrainingError(
            f"{workspaces[0].root}: no fold of {', '.join(empty)} is finished with its held-out cases predicted, under the folds in use. "
            "Train with autoseg_train FOLD -c CONFIGURATION"
        )
    _require_same_task(found)
    return found


def common_cases(members: Sequence[Member]) -> tuple[str, ...]:
    """The cases that every member has an out-of-fold mask of.

    Raises:
        TrainingError: there is none; tells which folds each has.
    """
    cases = sorted(set.intersection(*(set(member.masks) for member in members)))
    if not cases:
        folds = "\n".join(f"  - {member.name}: folds {', '.join(member.model.folds)}, {len(member.masks)} cases" for member in members)
        raise TrainingError(
            f"no case was held out and predicted by all of these, so that nothing can be compared:\n{folds}\nTrain the same folds of each, "
            "or compare fewer with -c"
        )
    return tuple(cases)


def _member(dataset: Dataset, workspace: Workspace, plan: Plan, configuration: str, name: str, hashes: ContentHashes) -> Member | None:
    folds = Folds.from_json(files.read_json(workspace.folds, error=FoldError), str(workspace.folds))
    folder = workspace.model(configuration, folds.scheme)
    notes = []
    done = [fold for fold in folds.folds if fold in finished_folds(folder) and _is_validated(folder / f"fold_{fold}")]
    if not done:
        return None
    if len(done) < len(folds.folds):
        missing = [fold for fold in folds.folds if fold not in done]
        notes.append(f"{name}: folds {', '.join(missing)} of {folds.scheme} are not finished; {', '.join(done)} are used")
    fold_of, masks, unusable = {}, {}, []
    for fold in done:
        records = Records(folder / f"fold_{fold}" / "masks")
        leaked = leaked_cases(folder / f"fold_{fold}")
        if leaked:
            notes.append(f"{name}: the initial weights of fold {fold} were trained on {list_names(leaked)}, so their masks do not count")
        for case in sorted(set(folds.folds[fold].validation) - set(fold_of) - set(leaked)):
            path = records.folder / f"{case}{plan.file_ending}"
            if not _is_intact(dataset, case, path, records, hashes):
                unusable.append(case)
                continue
            fold_of[case], masks[case] = fold, path
    if unusable:
        notes.append(
            f"{name}: {len(unusable)} out-of-fold masks are missing, changed, or of images that have changed: {list_names(unusable)}. "
            "autoseg_train FOLD predicts them anew after the fold's summary.json is removed"
        )
    if not masks:
        return None
    return Member(name, ModelFolder.open(folder, sorted(set(fold_of.values()), key=done.index)), fold_of, masks, tuple(notes))


def _is_validated(folder: Path) -> bool:
    """Whether a fold's held-out cases were predicted with its final weights."""
    if not (folder / RUN_NAME).is_file():
        return False
    run = files.read_json(folder / RUN_NAME, error=TrainingError)
    validated = run.get("validated") or {}
    return bool(validated) and validated.get("epochs") == run.get("finished_epochs")


def _is_intact(dataset: Dataset, case: str, path: Path, records: Records, hashes: ContentHashes) -> bool:
    record = records.of(case)
    if record is None or not path.is_file() or hashes.of(path) != record.outputs.get(path.name):
        return False
    known = next((known for known in dataset.cases if known.name == case), None)
    return known is not None and known.label is not None and record.inputs == hash_inputs(known, hashes.of)


def _require_same_task(members: Sequence[Member]) -> None:
    first = members[0].model.plan
    for member in members[1:]:
        plan = member.model.plan
        different = [name for name in ("channels", "label_scheme", "file_ending") if getattr(plan, name) != getattr(first, name)]
        if different:
            raise PlanError(
                f"{member.name} and {members[0].name} were trained for other {', '.join(different)}: their masks cannot be compared. "
                "Compare plans of one dataset as it is now"
            )


def _parameters(model: ModelFolder) -> int:
    plan, name = model.plan, model.dataset.configuration
    own = parameter_count(plan.configuration(name).network, plan.input_channels(name), plan.label_scheme.heads)
    return own + (_parameters(model.previous) if model.previous else 0)
