"""Preparing a dataset's cases for a configuration: only what is missing or has changed, in parallel, restartable."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace, require_disk
from autoseg.durations import duration
from autoseg.errors import CasesFailed, DatasetError
from autoseg.images import Image, read_channels, read_mask
from autoseg.locks import FoldLock
from autoseg.preprocessing.content import ContentHashes, case_key
from autoseg.preprocessing.prepare import prepare
from autoseg.preprocessing.store import add_lesions, case_damage, cases_key, discard_case, has_lesions, is_complete, write_case
from autoseg.resources import available_memory, usable_cores
from autoseg.workers import Outcome, map_cases
from planners.plan import Plan

logger = logging.getLogger(__name__)

T = TypeVar("T")

TOLD_BYTES = 2_000_000_000
"""From here on, hashing files takes long enough to be told."""


@dataclass(frozen=True)
class PreparedCases:
    """Where a configuration's prepared cases lie.

    Args:
        folder: the folder; its name is the hash of what shaped them.
        keys: {case: hash of the files it was made from}.
        made: how many had to be made now.
        previous: {case: key of its previous stage's mask}; empty where the configuration has no such stage.
    """

    folder: Path
    keys: Mapping[str, str]
    made: int
    previous: Mapping[str, str] = field(default_factory=dict)

    def inputs(self, names: Iterable[str]) -> dict[str, str]:
        """{case: hash of all that a network sees of it, and of its label}."""
        return {name: f"{self.keys[name]}+{self.previous[name]}" if name in self.previous else self.keys[name] for name in names}


def prepare_cases(
    dataset: Dataset,
    plan: Plan,
    configuration: str,
    workspace: Workspace,
    *,
    names: Sequence[str] | None = None,
    workers: int | None = None,
    keys: Mapping[str, str] | None = None,
    verify: bool = False,
    lesions: bool = False,
) -> PreparedCases:
    """Makes sure that the cases stand prepared; what is there and was made from the same files is kept.

    Args:
        names: which cases; default all.
        keys: content hashes, where they are known already.
        verify: read what is there in full and compare it with its checksums; what was damaged on the disk is made anew, and said.
        lesions: also make sure that each case tells its lesions, which are found in what is prepared; nothing is prepared anew for it.

    Raises:
        CasesFailed: some could not be prepared; the others are done.
        DatasetError: files cannot be read.
        ResourceError: the disk is too small, found before starting.
    """
    wanted = None if names is None else set(names)
    chosen = [case for case in dataset.cases if wanted is None or case.name in wanted]
    keys = {case.name: keys[case.name] for case in chosen} if keys else case_keys(chosen, workspace)
    folder = workspace.cases(cases_key(plan, configuration))
    damaged = _damaged(chosen, folder, keys) if verify else []
    if not damaged and not _missing(chosen, folder, keys) and not (lesions and _without_lesions(chosen, folder)):
        return PreparedCases(folder, keys, 0)
    folder.mkdir(parents=True, exist_ok=True)
    # Several folds start at once and want the same cases: one prepares them, the others wait and then find them done.
    with FoldLock(folder, wait=None):
        files.remove_leftovers(folder)
        for case in _damaged(damaged, folder, keys):  # asked again: another job may have mended it meanwhile
            discard_case(folder, case.name)
        missing = _missing(chosen, folder, keys)
        if missing:
            _prepare_all(missing, plan, configuration, folder, keys, workers)
        if lesions:
            _add_lesions(_without_lesions(chosen, folder), plan, configuration, folder, workers)
    return PreparedCases(folder, keys, len(missing))


def _without_lesions(cases: Sequence[Case], folder: Path) -> list[Case]:
    return [case for case in cases if not has_lesions(folder, case.name)]


def _add_lesions(cases: Sequence[Case], plan: Plan, configuration: str, folder: Path, workers: int | None) -> None:
    names = [case.name for case in cases]
    # a label, its mask, its components and their order
    workers = default_workers(len(cases), bytes_each=20 * median_voxels(plan, configuration)) if workers is None else workers
    logger.info("finding the lesions of %d prepared cases", len(cases))
    outcomes = map_cases(partial(add_lesions, folder, scheme=plan.label_scheme), names, workers=workers, names=names, progress="lesions")
    failures = [failure_text(outcome) for outcome in outcomes if outcome.error is not None]
    if failures:
        raise CasesFailed(failures, len(cases) - len(failures))


def _missing(cases: Sequence[Case], folder: Path, keys: Mapping[str, str]) -> list[Case]:
    return [case for case in cases if not is_complete(folder, case.name, keys[case.name])]


def _damaged(cases: Sequence[Case], folder: Path, keys: Mapping[str, str]) -> list[Case]:
    """Those of the prepared cases whose files are not what was written."""
    from tqdm import tqdm

    standing = [case for case in cases if is_complete(folder, case.name, keys[case.name])]
    damaged = []
    with (
        ThreadPoolExecutor(min(8, usable_cores())) as pool,
        tqdm(total=len(standing), desc="checking", unit="case", disable=None, delay=2) as bar,
    ):
        for case, problem in zip(standing, pool.map(lambda case: case_damage(folder, case.name), standing), strict=True):
            bar.update()
            if problem:
                logger.warning("%s. It is prepared anew", problem)
                damaged.append(case)
    return damaged


def _prepare_all(cases: Sequence[Case], plan: Plan, configuration: str, folder: Path, keys: Mapping[str, str], workers: int | None) -> None:
    voxels = median_voxels(plan, configuration)
    bytes_each = voxels * (len(plan.channels) * 4 + 2)
    require_disk(folder, int(1.5 * bytes_each * len(cases)), f"preparing {len(cases)} cases")
    memory = 12 * bytes_each
    workers = default_workers(len(cases), bytes_each=memory) if workers is None else workers
    logger.info(
        "preparing %d cases for %s with %d workers: about %.2f GB of disk, %.1f GB of memory a worker. The time needed is told after the "
        "first ones",
        len(cases),
        configuration,
        workers,
        bytes_each * len(cases) / 1e9,
        memory / 1e9 + 0.3,
    )
    tasks = [_Task(case, plan, configuration, folder, keys[case.name]) for case in cases]
    outcomes = map_cases(_prepare, tasks, workers=workers, names=[case.name for case in cases], progress="preparing")
    failures = [failure_text(outcome) for outcome in timed(outcomes, len(cases), workers, "preparing") if outcome.error is not None]
    if failures:
        raise CasesFailed(failures, len(cases) - len(failures))


def median_voxels(plan: Plan, configuration: str) -> int:
    """Voxels of the median prepared case: a 2-D configuration keeps all slices of a volume."""
    spec = plan.configuration(configuration)
    slices = 1.0
    if spec.dimension == 2:
        volume = next((other for other in plan.configurations.values() if other.dimension == 3), None)
        slices = volume.median_shape[0] if volume else 1.0
    return round(prod(spec.median_shape) * slices)


def failure_text(outcome: Outcome[Any]) -> str:
    """An error's message that names its case."""
    text = str(outcome.error)
    return text if outcome.name in text else f"case {outcome.name}: {text}"


def timed(outcomes: Iterable[Outcome[T]], total: int, workers: int, what: str) -> Iterator[Outcome[T]]:
    """The outcomes; after the first ones tells, once, how long the others will take."""
    started = time.monotonic()
    first = max(1, workers)
    for done, outcome in enumerate(outcomes, 1):
        if done == first and done < total:
            seconds = (time.monotonic() - started) / done * (total - done)
            logger.info("%s the other %d cases takes about %s", what, total - done, duration(seconds))
        yield outcome


@dataclass(frozen=True)
class _Task:
    case: Case
    plan: Plan
    configuration: str
    folder: Path
    key: str


def case_keys(cases: Sequence[Case], workspace: Workspace) -> dict[str, str]:
    """{case: hash of what its files hold}; files whose size and time of change are known are not read again.

    Raises:
        DatasetError: files cannot be read; all of them are named.
    """
    from tqdm import tqdm

    hashes = ContentHashes(workspace.contents)
    size = sum(hashes.unread_bytes(path) for case in cases for path in _paths(case))
    if size > TOLD_BYTES:
        logger.info("reading %.1f GB of files to see which cases are new", size / 1e9)
    keys, problems = {}, []
    # Hashing lets other threads run, and several requests at once are what a network disk needs.
    with (
        ThreadPoolExecutor(min(8, usable_cores())) as pool,
        tqdm(total=len(cases), desc="hashing", unit="case", disable=None, delay=2) as bar,
    ):
        for case, key in zip(cases, pool.map(lambda case: _key(case, hashes), cases), strict=True):
            bar.update()
            if isinstance(key, OSError):
                problems.append(f"case {case.name}: {key.filename}: cannot be read: {key.strerror}")
            else:
                keys[case.name] = key
    hashes.save()
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise DatasetError(f"{len(problems)} of {len(cases)} cases cannot be read. Give yourself the right to read them:\n{listed}")
    return keys


def _key(case: Case, hashes: ContentHashes) -> str | OSError:
    try:
        return case_key(case, hashes)
    except OSError as error:
        return error


def _paths(case: Case) -> list[Path]:
    paths = {source.path for source in case.images}
    return sorted(paths if case.label is None else {*paths, case.label})


def read_case(case: Case, *, allow_nonfinite: bool = False) -> tuple[list[Image], Image | None]:
    """A case's channels and its mask, as stored.

    Raises:
        ImageError: a file is broken.
    """
    images = read_channels(case.sources, case=case.name, allow_nonfinite=allow_nonfinite)
    return images, None if case.label is None else read_mask(case.label, case=case.name)


def default_workers(count: int, bytes_each: int = 0) -> int:
    """How many processes suit `count` cases: not more than cores, cases, or fit into the free memory; 0 for very few cases."""
    if count < 4:
        return 0
    by_memory = int(0.8 * available_memory() / (bytes_each + 300_000_000))
    return max(0, min(usable_cores(), count, by_memory))


def _prepare(task: _Task) -> None:
    images, mask = read_case(task.case)
    prepared = prepare(images, mask, task.plan, task.configuration)
    write_case(task.folder, task.case.name, prepared, key=task.key, scheme=task.plan.label_scheme)
