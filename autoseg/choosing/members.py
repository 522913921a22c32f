"""The trained configurations that can be compared: those of one plan or several, with the masks of cases that they had not learned from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from autoseg.preprocessing.content import ContentHashes
from autoseg.training.out_of_fold import HeldOutMasks, held_out_masks
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
        traced_through: the previous stage through whose masks its networks know the held-out cases; "" where they know nothing of them.
    """

    name: str
    model: ModelFolder
    fold_of: Mapping[str, str]
    masks: Mapping[str, Path]
    traced_through: str = ""

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


def find_members(
    dataset: Dataset, workspaces: Sequence[Workspace], configurations: Iterable[str] | None = None
) -> tuple[list[Member], list[str]]:
    """All trained configurations of these plans, in the plans' order; and notes on them and on those that cannot be compared.

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
    found: list[Member] = []
    empty: list[str] = []
    notes: list[str] = []
    for workspace, plan in plans:
        for configuration in plan.configurations:
            if wanted is not None and configuration not in wanted:
                continue
            name = configuration if len(workspaces) == 1 else f"{workspace.name}-{configuration}"
            member, told = _member(dataset, workspace, plan, configuration, name, hashes)
            found += [member] if member else []
            empty += [] if member else [name]
            notes += told
    hashes.save()
    if not found or (wanted and empty and len(workspaces) == 1):
        told = "".join(f"\n  - {note}" for note in notes)
        raise TrainingError(
            f"{workspaces[0].root}: no fold of {', '.join(empty)} is finished with its held-out cases predicted, under the folds in use, "
            f"and has a mask that counts. Train with autoseg_train FOLD -c CONFIGURATION{told}"
        )
    _require_same_task(found)
    return found, notes


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


def _member(
    dataset: Dataset, workspace: Workspace, plan: Plan, configuration: str, name: str, hashes: ContentHashes
) -> tuple[Member | None, list[str]]:
    """A configuration with the masks that count, None where it has none; and what a user should know of it."""
    folds = Folds.from_json(files.read_json(workspace.folds, error=FoldError), str(workspace.folds))
    folder = workspace.model(configuration, folds.scheme)
    held_out = held_out_masks(dataset, folds, folder, plan, configuration, hashes.of)
    trained = finished_folds(folder)
    done = [fold for fold in held_out.finished if fold in trained]
    cases = {case.name: case for case in dataset.cases if case.label is not None}
    usable = {
        case: mask
        for case, mask in sorted(held_out.masks.items())
        if mask.fold in done and case in cases and mask.is_of(cases[case], hashes.of)
    }
    notes = list(_notes(name, folds, done, held_out, set(usable))) if done else []
    if not usable:
        return None, notes
    fold_of = {case: mask.fold for case, mask in usable.items()}
    model = ModelFolder.open(folder, [fold for fold in done if fold in fold_of.values()])
    return Member(name, model, fold_of, {case: mask.path for case, mask in usable.items()}, held_out.traced_through), notes


def _notes(name: str, folds: Folds, done: Sequence[str], held_out: HeldOutMasks, usable: set[str]) -> Iterator[str]:
    """What a user should know of a member's masks."""
    if len(done) < len(folds.folds):
        missing = [fold for fold in folds.folds if fold not in done]
        yield f"{name}: folds {', '.join(missing)} of {folds.scheme} are not finished; {', '.join(done)} are used"
    for fold in done:
        if leaked := sorted(case for case, why in held_out.missing.items() if (why.kind, why.fold) == ("leaked", fold)):
            yield f"{name}: the initial weights of fold {fold} were trained on {list_names(leaked)}, so their masks do not count"
    told = {case for case, why in held_out.missing.items() if why.kind in ("leaked", "unfinished", "held out nowhere")}
    held = {case for fold in done for case in folds.folds[fold].validation}
    if unusable := sorted(held - usable - told):
        yield (
            f"{name}: {len(unusable)} out-of-fold masks are missing, changed, or of images that have changed: {list_names(unusable)}. "
            "autoseg_train FOLD predicts them anew after the fold's summary.json is removed"
        )
    if held_out.traced_through:
        yield (
            f"{name}: its networks know the held-out cases a little: they learned from masks that {held_out.traced_through} drew with "
            "networks trained on these cases, so that its figures may be too high. training.previous_masks=nested closes this path"
        )


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
