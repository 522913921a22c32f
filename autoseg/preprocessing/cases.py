"""Preparing a dataset's cases for a configuration: only what is missing or has changed, in parallel, restartable."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace, require_disk
from autoseg.errors import CasesFailed
from autoseg.images import Image, read_image, read_mask
from autoseg.preprocessing.content import ContentHashes, case_key
from autoseg.preprocessing.prepare import prepare
from autoseg.preprocessing.store import cases_key, is_complete, write_case
from autoseg.workers import map_cases
from planners.plan import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCases:
    """Where a configuration's prepared cases lie.

    Args:
        folder: the folder; its name is the hash of what shaped them.
        keys: {case: hash of the files it was made from}.
        made: how many had to be made now.
    """

    folder: Path
    keys: Mapping[str, str]
    made: int


def prepare_cases(
    dataset: Dataset,
    plan: Plan,
    configuration: str,
    workspace: Workspace,
    *,
    names: Sequence[str] | None = None,
    workers: int | None = None,
    keys: Mapping[str, str] | None = None,
) -> PreparedCases:
    """Makes sure that the cases stand prepared; what is there and was made from the same files is kept.

    Args:
        names: which cases; default all.
        keys: content hashes, where they are known already.

    Raises:
        CasesFailed: some could not be prepared; the others are done.
        ResourceError: the disk is too small, found before starting.
    """
    chosen = [case for case in dataset.cases if names is None or case.name in set(names)]
    keys = {case.name: keys[case.name] for case in chosen} if keys else case_keys(chosen, workspace)
    folder = workspace.cases(cases_key(plan, configuration))
    missing = [case for case in chosen if not is_complete(folder, case.name, keys[case.name])]
    if not missing:
        return PreparedCases(folder, keys, 0)
    spec = plan.configuration(configuration)
    voxels = prod(spec.median_shape) * (len(plan.channels) * 4 + 2)
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(folder)
    require_disk(folder, int(1.5 * voxels * len(missing)), f"preparing {len(missing)} cases")
    workers = default_workers(len(missing), bytes_each=int(12 * voxels)) if workers is None else workers
    logger.info(
        "preparing %d of %d cases for %s with %d workers, about %.2f GB of disk",
        len(missing),
        len(chosen),
        configuration,
        workers,
        voxels * len(missing) / 1e9,
    )
    tasks = [_Task(case, plan, configuration, folder, keys[case.name]) for case in missing]
    failures = [
        f"case {outcome.name}: {outcome.error}" if outcome.name not in str(outcome.error) else str(outcome.error)
        for outcome in map_cases(_prepare, tasks, workers=workers, names=[case.name for case in missing], progress="preparing")
        if outcome.error is not None
    ]
    if failures:
        raise CasesFailed(failures, len(missing) - len(failures))
    return PreparedCases(folder, keys, len(missing))


@dataclass(frozen=True)
class _Task:
    case: Case
    plan: Plan
    configuration: str
    folder: Path
    key: str


def case_keys(cases: Sequence[Case], workspace: Workspace) -> dict[str, str]:
    """{case: hash of what its files hold}; files whose size and time of change are known are not read again."""
    hashes = ContentHashes(workspace.root / "cases" / "contents.json")
    keys = {case.name: case_key(case, hashes) for case in cases}
    hashes.save()
    return keys


def read_case(case: Case, *, allow_nonfinite: bool = False) -> tuple[list[Image], Image | None]:
    """A case's channels and its mask, as stored.

    Raises:
        ImageError: a file is broken.
    """
    images = [
        read_image(source.path, case=case.name, component=source.component, allow_nonfinite=allow_nonfinite) for source in case.images
    ]
    return images, None if case.label is None else read_mask(case.label, case=case.name)


def default_workers(count: int, bytes_each: int = 0) -> int:
    """How many processes suit `count` cases: not more than cores, cases, or fit into the free memory; 0 for very few cases."""
    import psutil

    if count < 4:
        return 0
    by_memory = int(0.8 * psutil.virtual_memory().available / (bytes_each + 300_000_000))
    return max(0, min(os.cpu_count() or 1, count, by_memory))


def _prepare(task: _Task) -> None:
    images, mask = read_case(task.case)
    write_case(task.folder, task.case.name, prepare(images, mask, task.plan, task.configuration), key=task.key)
