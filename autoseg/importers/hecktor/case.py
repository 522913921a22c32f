"""One patient's files, checked, brought onto one grid and written into the dataset folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import files
from autoseg.errors import AutosegError, DatasetError, GeometryError, ImageError
from autoseg.images import Geometry, Image, check_same_grid, read_image, read_mask, write_image, write_mask
from autoseg.importers.hecktor.grids import Onto, field_of_view, resample, resample_mask, same_grid
from autoseg.importers.hecktor.tree import CT, MASK, PT

logger = logging.getLogger(__name__)

SCHEMA = "autoseg-import-case/1"
RECORDS = "import"
"""Folder of one record a case, written when the case is whole."""

FILE_ENDING = ".nii.gz"
LABELS = {"background": 0, "GTVp": 1, "GTVn": 2}
AIR = -1024.0
"""HU beyond the CT's field of view."""

LARGEST_SUV = 200.0
"""A larger value is no SUV of a head and neck scan; Bq/ml and counts lie in the thousands."""


@dataclass(frozen=True)
class Task:
    """What to do.

    Args:
        case: its name.
        sources: `CT`, `PT` and, where there is one, `MASK` -> file.
        onto: the grid.
        folder: the dataset's.
        split: "Tr" or "Ts".
    """

    case: str
    sources: Mapping[str, Path]
    onto: Onto
    folder: Path
    split: str

    @property
    def targets(self) -> dict[str, str]:
        """What is written, relative to the dataset's folder."""
        targets = {
            CT: f"images{self.split}/{self.case}_0000{FILE_ENDING}",
            PT: f"images{self.split}/{self.case}_0001{FILE_ENDING}",
            MASK: f"labels{self.split}/{self.case}{FILE_ENDING}",
        }
        return {role: targets[role] for role in self.sources}


@dataclass(frozen=True)
class Imported:
    """What became of a case.

    Args:
        uncovered: share of the grid's voxels beyond the PET's field of view.
        notes: each names the case.
        stood: an earlier run had imported it.
    """

    case: str
    uncovered: float
    notes: tuple[str, ...]
    stood: bool = False


def import_case(task: Task) -> Imported:
    """Writes a case's images and mask, then its record; a case that cannot be imported leaves nothing behind.

    Raises:
        ImageError: a file is broken, or an image is 2-D.
        GeometryError: the mask is not on the CT's grid, or CT and PET do not overlap.
        DatasetError: the mask holds another value than 0, 1 and 2.
        ResourceError: the disk is full or failing.
    """
    discard_case(task.folder, task.case)
    record = {"schema": SCHEMA, "case": task.case, **_wish(task)}  # before reading: a file that changes meanwhile is imported again
    try:
        imported, grid = _import(task)
        written = {name: (task.folder / name).stat().st_size for name in task.targets.values()}
        facts = {"shape": grid.shape, "spacing": grid.spacing, "uncovered": imported.uncovered, "notes": imported.notes}
        files.write_json(_record_path(task.folder, task.case), {**record, "written": written, **facts})
    except BaseException:
        remove_files(task)
        raise
    return imported


def remove_files(task: Task) -> None:
    """Takes away what a case that failed may have left, also in a process that was killed: an image without its mask is no dataset."""
    for name in task.targets.values():
        (task.folder / name).unlink(missing_ok=True)


def standing_case(task: Task) -> Imported | None:
    """The case as an earlier run imported it; None where it has to be done (again): something is missing or was made from other files."""
    record = _read_record(task.folder, task.case)
    if record is None or {key: record.get(key) for key in ("onto", "sources")} != _wish(task):
        return None
    written = record.get("written", {})
    if set(written) != set(task.targets.values()) or not all(_has_size(task.folder / name, size) for name, size in written.items()):
        return None
    return Imported(task.case, float(record.get("uncovered", 0)), tuple(record.get("notes", ())), stood=True)


def discard_case(folder: Path, case: str) -> None:
    """Takes away what an earlier run wrote for a case."""
    record = _read_record(folder, case)
    _record_path(folder, case).unlink(missing_ok=True)
    for name in (record or {}).get("written", {}):
        if name.split("/")[0] in {"imagesTr", "labelsTr", "imagesTs", "labelsTs"} and ".." not in name:
            (folder / name).unlink(missing_ok=True)


def recorded_cases(folder: Path) -> set[str]:
    """The cases that earlier runs imported."""
    return {path.stem for path in (folder / RECORDS).glob("*.json")}


# --- reading, resampling, writing


def _import(task: Task) -> tuple[Imported, Geometry]:
    ct = read_image(task.sources[CT], case=task.case)
    pt = read_image(task.sources[PT], case=task.case)
    mask = _mask(task, ct) if MASK in task.sources else None
    notes = [*ct.notes, *pt.notes, *(mask.notes if mask else ()), *implausible(task.case, ct, pt)]
    for role, image in ((CT, ct), (PT, pt)):
        if image.geometry.dimension != 3:
            raise ImageError(f"case {task.case}: its {role} ({task.sources[role]}) is 2-D; expected is a volume. Export the series again")
    grid = task.onto.grid(ct.geometry, pt.geometry)
    covered = field_of_view(pt.geometry, grid)
    if not covered.any() or not field_of_view(ct.geometry, grid).any():
        raise GeometryError(
            f"case {task.case}: CT and PT do not overlap: CT is {ct.geometry}; PT is {pt.geometry}. Export both again; if a header is "
            "known to be wrong, mend it"
        )
    if mask is not None:
        labels = resample_mask(mask.array, mask.geometry, grid)
        notes += _lesion_notes(task.case, mask, labels, grid, covered)
        write_mask(task.folder / task.targets[MASK], labels, grid)
        del labels
    uncovered = 1 - np.count_nonzero(covered) / covered.size
    del mask, covered
    write_image(task.folder / task.targets[PT], resample(pt, grid, outside=0.0), grid)
    _write_ct(task, ct, grid)
    return Imported(task.case, uncovered, tuple(notes)), grid


def _mask(task: Task, ct: Image) -> Image:
    """The mask, after its values and its grid were found right."""
    path = task.sources[MASK]
    mask = read_mask(path, case=task.case)
    values, counts = np.unique(mask.array, return_counts=True)
    unknown = {int(value): int(count) for value, count in zip(values, counts, strict=True) if value not in LABELS.values()}
    if unknown:
        found = ", ".join(f"{value} ({count} voxels)" for value, count in unknown.items())
        raise DatasetError(
            f"case {task.case}: {path}: a HECKTOR mask holds 0, 1 (GTVp) and 2 (GTVn), found also {found}. Take another file, or mend it"
        )
    note = check_same_grid(ct.geometry, mask.geometry, case=task.case, names=("the CT", "the mask"))
    # The CT's grid counts from here on: what a header lost in rounding must not make the mask be resampled.
    return Image(mask.array, ct.geometry, mask.path, (*mask.notes, *((note,) if note else ())))


def implausible(case: str, ct: Image, pt: Image) -> list[str]:
    """What makes one ask whether the CT is in HU and the PET in SUV."""
    notes = []
    if ct.array.min() >= 0:
        notes.append(f"case {case}: its CT holds no value below {ct.array.min():g}: is it in HU, where air is -1000?")
    if pt.array.max() > LARGEST_SUV:
        notes.append(f"case {case}: its PT holds values up to {pt.array.max():g}: is it in SUV, and not in Bq/ml?")
    return notes


def _lesion_notes(case: str, mask: Image, labels: np.ndarray, grid: Geometry, covered: np.ndarray) -> list[str]:
    notes = []
    for name, value in LABELS.items():
        before, after = mask.array == value, labels == value
        if value == 0 or not before.any():
            continue
        volume, new_volume = _millilitres(before, mask.geometry), _millilitres(after, grid)
        beyond = _millilitres(after & ~covered, grid)
        if not new_volume:
            notes.append(f"case {case}: its {name} of {volume:.2g} ml is lost on a grid of {_spacing(grid)} mm")
        elif beyond:
            notes.append(
                f"case {case}: {beyond:.2g} of {new_volume:.2g} ml of its {name} lie beyond the PET's field of view, where PET is 0"
            )
    if not mask.array.any():
        notes.append(f"case {case}: its mask is empty")
    return notes


def _millilitres(voxels: np.ndarray, geometry: Geometry) -> float:
    return float(np.count_nonzero(voxels) * np.prod(geometry.spacing) / 1000)


def _spacing(geometry: Geometry) -> str:
    return " x ".join(f"{value:.3g}" for value in geometry.spacing)


def _write_ct(task: Task, ct: Image, grid: Geometry) -> None:
    target = task.folder / task.targets[CT]
    source = task.sources[CT]
    if same_grid(ct.geometry, grid) and source.name.endswith(FILE_ENDING):
        files.replace_with(target, lambda temporary: _copy(source, temporary, task.case))  # as it is: smaller than floats, and quicker
    else:
        write_image(target, resample(ct, grid, outside=AIR), grid)


def _copy(source: Path, target: Path, case: str) -> None:
    shutil.copyfile(source, target)
    if files.sha256_file(source) != files.sha256_file(target):
        raise ImageError(f"case {case}: {source}: what was copied is not what is there. Check both disks")


# --- records


def _wish(task: Task) -> dict[str, Any]:
    return {"onto": str(task.onto), "sources": {role: _state(path) for role, path in sorted(task.sources.items())}}


def _state(path: Path) -> dict[str, Any]:
    try:
        state = path.stat()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}.") from None
    return {"path": str(path.absolute()), "size": state.st_size, "mtime_ns": state.st_mtime_ns}


def _record_path(folder: Path, case: str) -> Path:
    return folder / RECORDS / f"{case}.json"


def _read_record(folder: Path, case: str) -> dict[str, Any] | None:
    """The record; None where there is none that can be read."""
    with suppress(AutosegError):
        record = files.read_json(_record_path(folder, case))
        if isinstance(record, dict) and record.get("schema") == SCHEMA:
            return record
    return None


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
