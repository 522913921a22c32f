"""What is in each case of a dataset: checked and measured once, kept, and done again only for files that changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.checks import CaseFacts, check_case
from autoseg.dataset.dataset import Dataset, refusal
from autoseg.dataset.workspace import Workspace
from autoseg.errors import AutosegError, DatasetError, WorkerError
from autoseg.images import read_header
from autoseg.preprocessing.case_fingerprint import case_fingerprint
from autoseg.preprocessing.cases import default_workers, failure_text, timed
from autoseg.workers import Outcome, map_cases
from planners.fingerprint import CaseFingerprint, Fingerprint, merge
from planners.plan import Region

logger = logging.getLogger(__name__)

Orientation = Literal["canonical", "as_stored"]

EXAMINATION_VERSION = 4
"""Raised when checking or fingerprinting a case changes, so that kept results are not reused."""

BYTES_BESIDE = 16
"""A voxel, beside the channels: the mask, the non-zero region while it is found, and the values of what is labelled, sorted and in float64.
On 128 x 256 x 256 voxels 6 to 9 bytes were measured where 7 % are labelled, 12 where 38 % are."""


@dataclass(frozen=True)
class Examined:
    """What looking into the cases told.

    Args:
        facts: one a case, in the dataset's order.
        read: how many cases had to be read now.
    """

    fingerprint: Fingerprint
    facts: list[CaseFacts]
    read: int


def examine(
    dataset: Dataset,
    workspace: Workspace,
    *,
    orientation: Orientation,
    tolerance: float,
    keys: Mapping[str, str],
    workers: int | None,
    left_out: Sequence[str] = (),
    region: Region | None = None,
    problems: Sequence[str] = (),
) -> Examined:
    """The fingerprint and each case's facts; results for unchanged files are kept, also those of cases that this plan leaves out.

    Args:
        tolerance: voxels that the corners of a case's images may lie apart.
        keys: {case: hash of what its files hold}.
        left_out: cases of the dataset folder that are not in `dataset`.
        region: the plan's region of interest: what is measured lies in it.
        problems: what is wrong with other cases of the dataset, so that all is told at once.

    Raises:
        DatasetError: cases are not usable; all of them are named.
        WorkerError: cases could not be examined for a reason that does not lie in them; the others are kept.
    """
    path = _cache(workspace, orientation, region)
    scope = {
        "version": EXAMINATION_VERSION,
        "orientation": orientation,
        "tolerance": tolerance,
        "channels": list(dataset.channels),
        "labels": {name: value if isinstance(value, int) else list(value) for name, value in dataset.labels.items()},
    }
    if region is not None:
        scope["region_of_interest"] = region.model_dump(mode="json")
    known = _read_cache(path, scope)
    current: dict[str, Any] = {}
    todo: list[Case] = []
    for case in dataset.cases:
        entry = known.get(case.name)
        if entry and entry["key"] == keys[case.name]:
            current[case.name] = _of_patient(entry, case)
        else:
            todo.append(case)
    aside = {name: known[name] for name in left_out if name in known}
    failed: list[Outcome[_Examination]] = []
    cases = {case.name: case for case in todo}
    for outcome in _run(todo, dataset, _Look(orientation, tolerance, region), workers):
        if outcome.value is None:
            failed.append(outcome)
            continue
        case = cases[outcome.name]
        current[case.name] = {
            "key": keys[case.name],
            "patient": case.patient,
            "centre": case.centre,
            "fingerprint": outcome.value.fingerprint.to_dict(),
            "facts": asdict(outcome.value.facts),
        }
    if todo or not path.exists() or any(current[name] != known.get(name) for name in current):
        files.write_json(path, {**scope, "cases": dict(sorted({**aside, **current}.items()))})
    if failed or problems:
        raise _refusal(dataset, failed, problems)
    ordered = [current[case.name] for case in dataset.cases]
    fingerprint = merge(dataset.channels, dataset.labels, tuple(CaseFingerprint.from_dict(entry["fingerprint"]) for entry in ordered))
    return Examined(fingerprint, [_facts_from(entry["facts"]) for entry in ordered], len(todo))


@dataclass(frozen=True)
class _Examination:
    fingerprint: CaseFingerprint
    facts: CaseFacts


@dataclass(frozen=True)
class _Look:
    orientation: Orientation
    tolerance: float
    region: Region | None


@dataclass(frozen=True)
class _Task:
    case: Case
    dataset: Dataset
    look: _Look


def _examine_case(task: _Task) -> _Examination:
    facts = check_case(task.case, task.dataset, tolerance=task.look.tolerance)
    fingerprint, cut = case_fingerprint(task.case, task.dataset, task.look.orientation, task.look.region)
    return _Examination(fingerprint, replace(facts, notes=(*facts.notes, *cut)))


def _run(cases: Sequence[Case], dataset: Dataset, look: _Look, workers: int | None) -> Iterable[Outcome[_Examination]]:
    if not cases:
        return []
    memory = _memory_each(cases)
    workers = default_workers(len(cases), bytes_each=memory) if workers is None else workers
    logger.info(
        "examining %d of %d cases with %d workers: %.2f GB of files, about %.1f GB of memory a worker. The time needed is told after the "
        "first ones",
        len(cases),
        len(dataset.cases),
        workers,
        sum(map(_size, cases)) / 1e9,
        memory / 1e9 + 0.3,
    )
    description = replace(dataset, cases=())  # so that a task does not carry all cases
    tasks = [_Task(case, description, look) for case in cases]
    outcomes = map_cases(_examine_case, tasks, workers=workers, names=[case.name for case in cases], progress="examining")
    return timed(outcomes, len(cases), workers, "examining")


def _size(case: Case) -> int:
    paths = {source.path for source in case.images} | ({case.label} if case.label else set())
    return sum(path.stat().st_size for path in paths)


def _memory_each(cases: Sequence[Case]) -> int:
    """Bytes that examining the case with the largest files takes at most: all its channels as read, and `BYTES_BESIDE`."""
    largest = max(cases, key=_size)
    try:
        headers = [read_header(source.path, case=largest.name) for source in largest.images]
    except AutosegError:
        return 500_000_000  # it will be refused
    return prod(headers[0].geometry.shape) * (sum(np.dtype(header.dtype).itemsize for header in headers) + BYTES_BESIDE)


def _refusal(dataset: Dataset, failed: Sequence[Outcome[_Examination]], problems: Sequence[str]) -> AutosegError:
    """One error for all cases; of the dataset only where each failure lies in the dataset."""
    if not failed:
        return DatasetError(refusal(dataset.folder, problems))
    listed = "\n".join(f"  - {text}" for text in [*problems, *sorted(map(failure_text, failed))])
    count = f"{dataset.folder}: {len(failed)} of {len(dataset.cases)} cases"
    if problems:
        count = f"{dataset.folder}: {len(problems)} problem(s) with names and files, and {len(failed)} of {len(dataset.cases)} other cases"
    if any(outcome.error is not None and outcome.error.exit_status != DatasetError.exit_status for outcome in failed):
        return WorkerError(f"{count} could not be examined; no plan was written, and the other cases need not be examined again:\n{listed}")
    return DatasetError(f"{count} are not usable; no plan was written:\n{listed}\nMend them, or leave them out with --exclude")


def _of_patient(entry: Mapping[str, Any], case: Case) -> dict[str, Any]:
    """What was kept of a case, with the patient and the centre that cases.csv names now; its images say nothing of either."""
    owner = {"patient": case.patient, "centre": case.centre}
    return {**entry, **owner, "fingerprint": {**entry["fingerprint"], **owner}, "facts": {**entry["facts"], **owner}}


def _facts_from(document: Mapping[str, Any]) -> CaseFacts:
    """CaseFacts out of JSON, where every key is text and every tuple a list."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    return CaseFacts(**plain | {"labels": {int(label): count for label, count in document["labels"].items()}})


def _cache(workspace: Workspace, orientation: str, region: Region | None) -> Path:
    inside = "" if region is None else "-" + files.sha256_json(region.model_dump(mode="json"))[:8]
    return workspace.root / "cases" / f"examined-{orientation}{inside}.json"


def _read_cache(path: Path, scope: Mapping[str, Any]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        document = files.read_json(path)
        if any(document.get(key) != value for key, value in scope.items()):
            return {}
        for entry in document["cases"].values():  # a damaged file must not get further than here
            CaseFingerprint.from_dict(entry["fingerprint"])
            _facts_from(entry["facts"])
            entry["key"], entry["patient"], entry["centre"]
        return dict(document["cases"])
    except Exception:
        logger.warning("%s cannot be read; every case is examined anew", path)
        return {}
