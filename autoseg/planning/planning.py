"""From a dataset folder to fingerprint, plan, folds and prepared cases. A second run redoes only what changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.dataset.case import list_names
from autoseg.dataset.checks import check_labels
from autoseg.dataset.dataset import Dataset, refusal
from autoseg.dataset.folds import Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import DatasetError, PlanError
from autoseg.locks import FoldLock
from autoseg.planning.examine import examine
from autoseg.planning.folds import choose_folds, write_folds
from autoseg.planning.like import like_model
from autoseg.planning.standing import Decision, check_wish, decide, make_plan, write_plan
from autoseg.planning.wish import Wish
from autoseg.preprocessing.cases import case_keys, prepare_cases
from autoseg.report.plan import plan_page
from planners.centres import Comparison, compare
from planners.fingerprint import Fingerprint
from planners.outliers import outliers
from planners.plan import Plan, PlanInvalid, default_configuration

logger = logging.getLogger(__name__)

LOCK_NAME = ".planning-lock"


@dataclass(frozen=True)
class PlanResult:
    """What planning left on disk, and what it noticed."""

    workspace: Workspace
    plan: Plan
    folds: Folds
    examined: int
    prepared: int
    kept: bool
    notes: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """For a person: the configurations and where things lie."""
        lines = [f"plan {self.plan.name!r} ({'kept' if self.kept else 'new'}): {self.workspace.plan}"]
        for name, spec in self.plan.configurations.items():
            lines.append(
                f"  {name}: patch {'x'.join(map(str, spec.patch_size))}, batch {spec.batch_size}, "
                f"spacing {' x '.join(f'{s:.4g}' for s in spec.spacing)} mm, {len(spec.network.features)} stages"
            )
        centres = self.folds.held_out_centres
        whole = "" if centres is None else ", each of whole centres"
        sizes = ", ".join(
            f"{name}: {len(fold.validation)}" + (f" ({', '.join(centres[name])})" if centres and centres[name] != (name,) else "")
            for name, fold in self.folds.folds.items()
        )
        lines.append(f"folds ({self.folds.scheme}{whole}), held-out cases: {sizes}")
        lines.append(f"augmentation: {self.plan.reasons.get('augmentation', 'as planned by an earlier release')}")
        if self.workspace.plan_page.exists():
            lines.append(f"what was decided and why, for reading: {self.workspace.plan_page}")
        lines.append(f"{self.examined} cases examined, {self.prepared} prepared now")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "plan": str(self.workspace.plan),
            "configurations": list(self.plan.configurations),
            "folds": {name: len(fold.validation) for name, fold in self.folds.folds.items()},
            "scheme": self.folds.scheme,
            "whole_centres": self.folds.held_out_centres is not None,
            "examined": self.examined,
            "prepared": self.prepared,
            "kept": self.kept,
            "notes": list(self.notes),
        }


def plan(
    dataset: str | Path,
    *,
    preset: str | None = None,
    memory_gb: float | None = None,
    folds: str | None = None,
    settings: Mapping[str, Any] | None = None,
    exclude: Sequence[str] | None = None,
    orientation: str | None = None,
    region: str | None = None,
    augmentation: str | None = None,
    configurations: Sequence[str] | None = None,
    like: str | Path | None = None,
    replan: bool = False,
    work: str | Path | None = None,
    name: str = "default",
    workers: int | None = None,
) -> PlanResult:
    """Checks the whole dataset, then writes fingerprint.json, plan.json, folds.json and the prepared cases.

    A plan that exists is kept: new cases join the folds and a corrected mask is prepared anew, without disturbing what is trained.
    Arguments that are None mean what the plan was asked for before (at first: preset "default", scheme grouped from 5 centres on and
    else cv5, canonical orientation, published augmentation, the preset's memory, no settings, no case left out). A plan edited by hand is
    never overwritten.

    Args:
        memory_gb: device memory to plan for, in GB: patch and batch grow and shrink with it. The plan depends on this number, never on
            the machine.
        folds: a scheme, or a file of folds. Each scheme's folds are kept; the one that was asked for last is in use.
        settings: dotted path -> value, put over what the preset gives; in place of all settings that were asked for before.
        region: "head-and-neck": only a box of that region, found in each case from its PET, is prepared and predicted; "whole": all of it.
        exclude: cases to leave out, in place of those that were left out before; remembered, also by training.
        augmentation: "centres" or "default", nnU-Net's published ranges.
        like: a trained model whose axis order, network, patch size, spacing and normalisation are taken as settings, so that its weights
            fit and mean the same axes; what is in `settings` goes before.
        configurations: those to prepare cases for; default 3d_fullres, or 2d for 2-D data.
        replan: make the plan anew, though one exists.
        workers: processes; 0 everything here; default by cores and memory.

    Raises:
        DatasetError: something is wrong with the dataset; all bad cases are named, and no plan is written.
        PlanError: unknown preset or field; something else is asked for than what stands, without `replan`; the plan was edited by hand.
        FoldError: the fold scheme does not fit; no plan is written.
        WorkerError: worker processes died.
        CasesFailed: the plan is written, but some cases could not be prepared.
    """
    workspace = Workspace.of(Path(dataset).absolute(), Path(work) if work else None, name)
    remembered = workspace.excluded() if exclude is None else ()
    opened, problems = Dataset.survey(dataset, exclude=exclude or (), left_out=remembered)
    left_out = remembered if exclude is None else tuple(dict.fromkeys(exclude))
    if problems:
        text = refusal(opened.folder, problems)
        if not opened.cases:
            raise DatasetError(text)
        logger.warning("%s\nThe other cases are examined all the same, so that everything that is wrong is told at once", text)
    wish = Wish.of(preset, orientation, settings, memory_gb, region, augmentation)
    likeness = None if like is None else like_model(like, opened.channels)
    if likeness:
        wish = replace(wish, settings={**likeness.settings, **(wish.settings or {})})
    with _locked(workspace):
        decision = decide(opened, workspace, wish, replan=replan)
        tolerance, region = decision.tolerance, decision.region(opened.channels)
        check_wish(opened, decision, region, configurations or ())
        if not problems:
            choose_folds(opened, workspace, folds, ())  # what does not fit is told before images are read
        keys = case_keys(opened.cases, workspace)
        looked = examine(
            opened,
            workspace,
            orientation=decision.orientation,
            tolerance=tolerance,
            keys=keys,
            workers=workers,
            left_out=left_out,
            region=region,
            problems=problems,
        )
        notes = [*opened.notes, *(likeness.note(str(like), decision.orientation) if likeness else ())]
        if left_out and exclude is None:
            notes.append(f"left out, as asked for before: {list_names(left_out)} (--exclude without names takes them in again)")
        notes += [note for fact in looked.facts for note in fact.notes]
        check_labels(looked.facts, opened.labels)  # raises where there is nothing to learn, before a plan is tried
        notes += _unlike_the_others(looked.fingerprint, decision.orientation)
        planned = decision.kept or make_plan(opened, name, looked.fingerprint, decision.wish, region)
        wanted = _wanted(planned, configurations)
        chosen = choose_folds(opened, workspace, folds, looked.facts)
        notes += [*chosen.notes, *check_labels(looked.facts, opened.labels, chosen)]
        for note in notes:
            logger.warning("%s", note)
        _write(workspace, opened, planned, decision, looked.fingerprint, chosen, left_out, notes)
        made = sum(prepare_cases(opened, planned, configuration, workspace, workers=workers, keys=keys).made for configuration in wanted)
        return PlanResult(workspace, planned, chosen, looked.read, made, decision.kept is not None, tuple(notes))


@contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    """Context in which the plan's folder is there and this process's alone; what of it was made for nothing is taken away again."""
    new = [folder for folder in (workspace.plan.parent, workspace.root) if not folder.exists()]
    workspace.make()
    try:
        with FoldLock(workspace.plan.parent / LOCK_NAME, wait=None):
            yield
    finally:
        with suppress(OSError):  # one that is not empty stays
            for folder in new:
                folder.rmdir()


def _wanted(plan: Plan, configurations: Sequence[str] | None) -> Sequence[str]:
    wanted = configurations or [default_configuration(plan)]
    try:
        for configuration in wanted:
            plan.configuration(configuration)
    except PlanInvalid as error:
        raise PlanError(str(error)) from None
    return wanted


def _unlike_the_others(fingerprint: Fingerprint, orientation: str) -> list[str]:
    """A note for each training case that lies outside all the others, by the check that new cases meet at prediction."""
    found = outliers(fingerprint, as_stored=orientation == "as_stored")
    return [
        f"case {case}: unlike all other cases, {finding.text.replace('the training images have', 'the others have')}"
        for case, findings in found.items()
        for finding in findings
    ]


def _compared(plan: Plan, fingerprint: Fingerprint) -> Comparison:
    return compare(fingerprint, plan.configuration(default_configuration(plan)).normalisation)


def _write(
    workspace: Workspace,
    dataset: Dataset,
    plan: Plan,
    decision: Decision,
    fingerprint: Fingerprint,
    folds: Folds,
    left_out: Sequence[str],
    notes: Sequence[str],
) -> None:
    """Everything but the cases, when all of it is decided: what raises before leaves a standing plan as it was."""
    for path in (workspace.plan_fingerprint, workspace.fingerprint):
        files.write_text(path, fingerprint.to_json())
    write_folds(workspace, folds)
    if decision.kept is None:
        write_plan(workspace, dataset, plan, decision.wish, left_out)
        files.write_text(workspace.plan_page, plan_page(plan, fingerprint, _compared(plan, fingerprint), notes))
    elif tuple(sorted(left_out)) != workspace.excluded():
        files.write_json(workspace.planned, {**workspace.record(), "exclude": sorted(left_out)})
