"""From a dataset folder to fingerprint, plan, folds and prepared cases. A second run redoes only what changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.checks import CaseFacts, check_case, check_labels, presence
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds, load_folds, make_folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import DatasetError, PlanError
from autoseg.preprocessing.case_fingerprint import case_fingerprint
from autoseg.preprocessing.cases import case_keys, default_workers, prepare_cases
from autoseg.workers import map_cases
from planners import planner
from planners.fingerprint import CaseFingerprint, Fingerprint, merge
from planners.plan import Plan, PlanInvalid, override

logger = logging.getLogger(__name__)

FOLD_SEED = 12345
DEFAULT_FOLDS = "cv5"
EXAMINATION_VERSION = 1
"""Raised when checking or fingerprinting a case changes, so that kept results are not reused."""


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
        sizes = ", ".join(f"{name}: {len(fold.validation)}" for name, fold in self.folds.folds.items())
        lines.append(f"folds ({self.folds.scheme}), held-out cases: {sizes}")
        lines.append(f"{self.examined} cases examined, {self.prepared} prepared now")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "plan": str(self.workspace.plan),
            "configurations": list(self.plan.configurations),
            "folds": {name: len(fold.validation) for name, fold in self.folds.folds.items()},
            "scheme": self.folds.scheme,
            "examined": self.examined,
            "prepared": self.prepared,
            "kept": self.kept,
            "notes": list(self.notes),
        }


def plan(
    dataset: str | Path,
    *,
    preset: str = "default",
    folds: str | None = None,
    settings: Mapping[str, Any] | None = None,
    exclude: Sequence[str] = (),
    orientation: str = "canonical",
    configurations: Sequence[str] | None = None,
    replan: bool = False,
    work: str | Path | None = None,
    name: str = "default",
    workers: int | None = None,
) -> PlanResult:
    """Checks the whole dataset, then writes fingerprint.json, plan.json, folds.json and the prepared cases.

    A plan that exists is kept as long as preset, settings and orientation are the same: new cases join the folds and a corrected mask is
    prepared anew, without disturbing what is trained. A plan edited by hand is never overwritten.

    Raises:
        DatasetError: something is wrong with the dataset; all bad cases are named, and no plan is written.
        PlanError: unknown preset or field, or the plan was edited by hand and other settings are asked for.
        FoldError: the fold scheme does not fit.
    """
    opened = Dataset.open(dataset, exclude=exclude)
    workspace = Workspace.of(opened.folder, Path(work) if work else None, name)
    workspace.make()
    notes = list(opened.notes)
    keys = case_keys(opened.cases, workspace)
    fingerprint, facts, examined = _examine(opened, workspace, orientation, keys, workers)
    notes += [note for fact in facts for note in fact.notes]
    check_labels(facts, opened.labels)  # raises where there is nothing to learn, before a plan is tried
    planned, kept = _decide(opened, workspace, fingerprint, preset, orientation, dict(settings or {}), replan)
    chosen = _folds(opened, workspace, folds, facts)
    notes += [*chosen.notes, *check_labels(facts, opened.labels, chosen)]
    for note in notes:
        logger.warning("%s", note)
    wanted = configurations or [default for default in ("3d_fullres", "2d") if default in planned.configurations][:1]
    made = 0
    for configuration in wanted:
        try:
            planned.configuration(configuration)
        except PlanInvalid as error:
            raise PlanError(str(error)) from None
        made += prepare_cases(opened, planned, configuration, workspace, workers=workers, keys=keys).made
    return PlanResult(workspace, planned, chosen, examined, made, kept, tuple(notes))


@dataclass(frozen=True)
class _Examination:
    fingerprint: CaseFingerprint
    facts: CaseFacts


def _examine(
    dataset: Dataset, workspace: Workspace, orientation: str, keys: Mapping[str, str], workers: int | None
) -> tuple[Fingerprint, list[CaseFacts], int]:
    """The fingerprint, each case's facts, and how many cases had to be read; kept results are reused for unchanged files."""
    known = _read_examinations(workspace, dataset, orientation)
    current: dict[str, Any] = {}
    todo: list[Case] = []
    for case in dataset.cases:
        entry = known.get(case.name)
        if entry and entry["key"] == keys[case.name] and entry["patient"] == case.patient and entry["centre"] == case.centre:
            current[case.name] = entry
        else:
            todo.append(case)
    if todo:
        workers = default_workers(len(todo), bytes_each=500_000_000) if workers is None else workers
        logger.info("examining %d of %d cases with %d workers", len(todo), len(dataset.cases), workers)
    failures = []
    description = replace(dataset, cases=())  # so that a task does not carry all cases
    tasks = [_Task(case, description, orientation) for case in todo]
    centres = {case.name: (case.patient, case.centre) for case in dataset.cases}
    for outcome in map_cases(_examine_case, tasks, workers=workers or 0, names=[c.name for c in todo], progress="examining"):
        if outcome.error is not None:
            failures.append(str(outcome.error) if outcome.name in str(outcome.error) else f"case {outcome.name}: {outcome.error}")
            continue
        patient, centre = centres[outcome.name]
        current[outcome.name] = {
            "key": keys[outcome.name],
            "patient": patient,
            "centre": centre,
            "fingerprint": outcome.value.fingerprint.to_dict(),
            "facts": asdict(outcome.value.facts),
        }
    if failures:
        listed = "\n".join(f"  - {failure}" for failure in sorted(failures))
        raise DatasetError(
            f"{dataset.folder}: {len(failures)} of {len(dataset.cases)} cases are not usable; no plan was written:\n{listed}\n"
            "Mend them, or leave them out with --exclude"
        )
    ordered = {case.name: current[case.name] for case in dataset.cases}
    cases = tuple(CaseFingerprint.from_dict(entry["fingerprint"]) for entry in ordered.values())
    fingerprint = merge(dataset.channels, dataset.labels, cases)
    files.write_text(workspace.fingerprint, fingerprint.to_json())
    files.write_json(
        _examinations(workspace), {"version": EXAMINATION_VERSION, "orientation": orientation, "labels": dataset.labels, "cases": ordered}
    )
    return fingerprint, [_facts_from(entry["facts"]) for entry in ordered.values()], len(todo)


@dataclass(frozen=True)
class _Task:
    case: Case
    dataset: Dataset
    orientation: str


def _examine_case(task: _Task) -> _Examination:
    facts = check_case(task.case, task.dataset)
    return _Examination(case_fingerprint(task.case, task.dataset, task.orientation), facts)


def _facts_from(document: Mapping[str, Any]) -> CaseFacts:
    """CaseFacts out of JSON, where every key is text and every tuple a list."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    return CaseFacts(**plain | {"labels": {int(label): count for label, count in document["labels"].items()}})


def _examinations(workspace: Workspace) -> Path:
    return workspace.root / "cases" / "examined.json"


def _read_examinations(workspace: Workspace, dataset: Dataset, orientation: str) -> dict[str, Any]:
    path = _examinations(workspace)
    if not path.exists():
        return {}
    try:
        document = files.read_json(path)
        same = (
            document["version"] == EXAMINATION_VERSION and document["orientation"] == orientation and document["labels"] == dataset.labels
        )
        return document["cases"] if same else {}
    except Exception:
        logger.warning("%s cannot be read; every case is examined anew", path)
        return {}


def _decide(
    dataset: Dataset, workspace: Workspace, fingerprint: Fingerprint, preset: str, orientation: str, settings: dict[str, Any], replan: bool
) -> tuple[Plan, bool]:
    """The plan, and whether it is the one that was there."""
    asked = {
        "preset": preset,
        "orientation": orientation,
        "settings": settings,
        "channels": list(dataset.channels),
        "labels": dataset.labels,
    }
    if workspace.plan.exists():
        standing = workspace.read_plan()
        record = files.read_json(workspace.planned) if workspace.planned.exists() else {}
        edited = record.get("plan") != files.sha256_file(workspace.plan)
        same = record.get("asked") == asked
        if edited and (replan or not (same or preset == "default" and not settings)):
            raise PlanError(
                f"{workspace.plan}: was edited by hand and is never overwritten. Keep it by leaving out --replan, --preset and --set, "
                "plan under another --name, or remove the file"
            )
        if edited:
            logger.warning("%s was edited by hand: it is kept as it is", workspace.plan)
        if edited or (same and not replan):
            _require_fit(standing, dataset, workspace)
            return standing, True
    try:
        made = planner.plan(
            fingerprint,
            preset=preset,
            name=workspace.name,
            file_ending=dataset.file_ending,
            orientation=orientation,
            mirror_axes_excluded=dataset.paired_axes,
        )
        made = override(made, settings) if settings else made
    except ValueError as error:
        raise PlanError(str(error)) from None
    files.write_text(workspace.plan, made.to_json())
    files.write_json(workspace.planned, {"asked": asked, "plan": files.sha256_file(workspace.plan)})
    return made, False


def _require_fit(plan: Plan, dataset: Dataset, workspace: Workspace) -> None:
    if plan.channels != tuple(dataset.channels) or plan.labels != dataset.labels:
        raise PlanError(
            f"{workspace.plan}: is for channels {list(plan.channels)} and labels {plan.labels}, the dataset has channels "
            f"{list(dataset.channels)} and labels {dataset.labels}. Plan under another --name, or remove the file"
        )


def _folds(dataset: Dataset, workspace: Workspace, scheme: str | None, facts: Sequence[CaseFacts]) -> Folds:
    """The folds: those that stand, joined by new cases, or made now. A scheme that is asked for by name replaces another one."""
    record = workspace.folds.with_name("folds-asked.json")
    if workspace.folds.exists():
        asked = files.read_json(record)["scheme"] if record.exists() else None
        if scheme is None or scheme == asked:
            standing = Folds.from_json(files.read_json(workspace.folds), str(workspace.folds))
            names = {case.name for case in dataset.cases}
            gone, new = set(standing.members) - names, names - set(standing.members)
            folds = standing.without(gone) if gone else standing
            folds = folds.extend(dataset.cases, presence(facts))
            if gone or new:
                logger.warning("%d new cases joined the folds that stand, %d left them; no other case moved", len(new), len(gone))
            files.write_json(workspace.folds, folds.to_json())
            return folds
        logger.warning("the folds are made anew as %s; those before were %s", scheme, asked)
    scheme = scheme or DEFAULT_FOLDS
    is_file = Path(scheme).suffix == ".json" or Path(scheme).is_file()
    seen = presence(facts)
    made = load_folds(scheme, dataset.cases, seen) if is_file else make_folds(dataset.cases, scheme, seed=FOLD_SEED, presence=seen)
    files.write_json(workspace.folds, made.to_json())
    files.write_json(record, {"scheme": scheme})
    return made
