"""Masks of a previous stage beside the prepared cases, on the same grid: further input channels of the network that continues from them.

They lie in the cases' folder, `previous/CASE.KEY.npy`, where KEY is the hash of the case's files and of the mask file's content. So folds
and schemes share what is equal, a stage that is trained again leaves what a running fold reads, and its new masks are prepared beside them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import files
from autoseg.errors import CasesFailed, DatasetError
from autoseg.images import read_mask
from autoseg.locks import FoldLock
from autoseg.preprocessing.cases import PreparedCases, default_workers, failure_text
from autoseg.preprocessing.prepare import CaseProperties, network_view
from autoseg.preprocessing.resample import resample_labels
from autoseg.preprocessing.store import StoredFile, open_case, write_array
from autoseg.workers import map_cases
from planners.plan import Resampling

logger = logging.getLogger(__name__)

FOLDER = "previous"
SCHEMA = "autoseg-previous-mask/1"
VERSION = 1
"""Raised when the same case and mask would give other prepared voxels than before."""


@dataclass(frozen=True)
class MaskSource:
    """A mask file of a previous stage, on its image's own grid, and the SHA-256 of its content."""

    path: Path
    sha256: str


def onto_network_grid(mask: np.ndarray, properties: CaseProperties, rule: Resampling) -> np.ndarray:
    """A mask on its image's own grid (z, y, x), brought where the prepared case's channels lie: int8, or int16 where a label needs it.

    It goes the way of a reference mask: reoriented, transposed, cropped, resampled as the plan says for labels.

    Args:
        properties: of the prepared case.
        rule: the plan's, of the configuration that the case is prepared for.
    """
    seen = network_view(mask, properties)
    kind = np.int8 if seen.size == 0 or seen.max() <= np.iinfo(np.int8).max else np.int16
    own = np.array(seen, dtype=kind, order="C")
    return resample_labels(own, properties.shape_after_resampling, properties.spacing, properties.new_spacing, rule)


def prepare_masks(
    cases: PreparedCases, sources: Mapping[str, MaskSource], rule: Resampling, *, workers: int | None = None, verify: bool = False
) -> PreparedCases:
    """The prepared cases with a previous stage's masks beside them; masks of the same content that are there already are kept.

    Args:
        sources: one for each case that is wanted.
        rule: the plan's, of the configuration that the cases are prepared for.
        verify: compare what is there with its checksum; what was damaged on the disk is made anew, and said.

    Raises:
        CasesFailed: some masks could not be prepared; the others are done.
    """
    keys = {name: _key(cases.keys[name], source) for name, source in sources.items()}
    folder = cases.folder / FOLDER
    missing = [name for name, key in keys.items() if not _is_whole(folder, name, key, verify=verify)]
    if missing:
        folder.mkdir(exist_ok=True)
        # Several folds start at once and want the same masks: one prepares them, the others wait and then find them done.
        with FoldLock(folder, wait=None):
            files.remove_leftovers(folder)
            missing = [name for name in missing if not _is_whole(folder, name, keys[name], verify=verify)]
            tasks = [_Task(cases.folder, name, sources[name], keys[name], rule) for name in missing]
            count = default_workers(len(tasks)) if workers is None else workers
            outcomes = map_cases(_prepare, tasks, workers=count, names=missing, progress="previous stage's masks")
            failures = [failure_text(outcome) for outcome in outcomes if outcome.error is not None]
        if failures:
            raise CasesFailed(failures, len(missing) - len(failures))
    return replace(cases, previous=keys)


def open_mask(folder: Path, name: str, key: str) -> np.ndarray:
    """A prepared mask (z, y, x) as a read-only memory map.

    Args:
        folder: of the prepared cases.
        name, key: the case, and its key in `PreparedCases.previous`.

    Raises:
        DatasetError: it is missing or damaged.
    """
    path = _path(folder / FOLDER, name, key)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise DatasetError(
            f"case {name}: the prepared mask of its previous stage, {path}, cannot be read: {error}. Run autoseg_train again: it prepares "
            "this mask anew"
        ) from None


@dataclass(frozen=True)
class _Task:
    folder: Path
    name: str
    source: MaskSource
    key: str
    rule: Resampling


def _prepare(task: _Task) -> None:
    case = open_case(task.folder, task.name)
    mask = read_mask(task.source.path, case=task.name)
    if files.sha256_file(task.source.path) != task.source.sha256:
        raise DatasetError(f"case {task.name}: {task.source.path} changed while it was being read. Run the same command again")
    if mask.array.shape != case.properties.geometry.shape:
        raise DatasetError(
            f"case {task.name}: {task.source.path} has shape {mask.array.shape}, the image {case.properties.geometry.shape} (z, y, x): it "
            "was predicted from another image. Remove it and run autoseg_train for that fold of the previous stage again"
        )
    path = _path(task.folder / FOLDER, task.name, task.key)
    path.with_suffix(".json").unlink(missing_ok=True)
    written = write_array(path, onto_network_grid(mask.array, case.properties, task.rule))
    files.write_json(path.with_suffix(".json"), {"schema": SCHEMA, **written.model_dump()})


def _key(case: str, source: MaskSource) -> str:
    return files.sha256_json({"version": VERSION, "case": case, "mask": source.sha256})[:16]


def _path(folder: Path, name: str, key: str) -> Path:
    return folder / f"{name}.{key}.npy"


def _is_whole(folder: Path, name: str, key: str, *, verify: bool) -> bool:
    path = _path(folder, name, key)
    described = path.with_suffix(".json")
    if not described.is_file() or not path.is_file():
        return False
    try:
        document: Any = files.read_json(described, error=DatasetError)
        written = StoredFile(size=document["size"], sha256=document["sha256"])
        if path.stat().st_size == written.size and (not verify or files.sha256_file(path) == written.sha256):
            return True
    except (DatasetError, KeyError, TypeError, ValueError):  # the description itself is damaged
        pass
    logger.warning("%s is damaged. It is prepared anew", path)
    return False
