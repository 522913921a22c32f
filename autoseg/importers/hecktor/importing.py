"""A HECKTOR folder as a dataset folder. A second run does only what is missing or has changed."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from autoseg import files
from autoseg.dataset.case import list_names
from autoseg.dataset.table import NEW_FILE_NAME
from autoseg.errors import AutosegError, DatasetError, ResourceError
from autoseg.images import read_header
from autoseg.importers.hecktor.case import (
    FILE_ENDING,
    LABELS,
    Imported,
    Task,
    discard_case,
    import_case,
    recorded_cases,
    remove_files,
    standing_case,
)
from autoseg.importers.hecktor.grids import Onto
from autoseg.importers.hecktor.source import Source, require_apart, write_tables
from autoseg.importers.hecktor.tree import CT, MASK, PT
from autoseg.locks import FoldLock
from autoseg.preprocessing.cases import default_workers, failure_text, timed
from autoseg.workers import map_cases

logger = logging.getLogger(__name__)

SCHEMA = "autoseg-import/1"
RECORD = "import.json"
CHANNELS = {"0": "CT", "1": "PET"}
MEMORY_PER_VOXEL = 16
"""Bytes of a worker at its peak, by voxels of the CT or of the new grid, whichever are more: 8 to 14 measured."""

DISK_PER_VOXEL = 3
"""Bytes by voxels of the new grid. A resampled PET compresses to 3.5 where it is not 0; much of a CT's field of view is beyond it."""


@dataclass(frozen=True)
class ImportResult:
    """What importing left in the dataset folder.

    Attributes:
        folder: the dataset's.
        edition: of the layout that was found.
        onto: the grid, as asked for.
        training, new: cases in imagesTr with masks, and in imagesTs.
        imported: how many of them were done now; the others stood.
        centres: centre -> training cases.
        failures: one message for each patient who could not be imported; the others are done.
        notes: what a user should know.
    """

    folder: Path
    edition: str
    onto: str
    training: tuple[str, ...]
    new: tuple[str, ...]
    imported: int
    centres: dict[str, int]
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """For a person."""
        grid = {"CT": "PET on the CT's grid", "PT": "CT and mask on the PET's grid"}.get(self.onto, f"all at {self.onto} mm")
        lines = [f"{self.folder}: HECKTOR {self.edition}, {len(self.training)} training cases with masks, {grid}"]
        lines.append("  centres: " + ", ".join(f"{name or 'unknown'} {count}" for name, count in self.centres.items()))
        if self.new:
            lines.append(f"  {len(self.new)} cases to predict: imagesTs, {NEW_FILE_NAME}")
        lines.append(f"  {self.imported} cases imported now, {len(self.training) + len(self.new) - self.imported} stood from before")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "dataset": str(self.folder),
            "edition": self.edition,
            "onto": self.onto,
            "cases": len(self.training),
            "new_cases": len(self.new),
            "imported": self.imported,
            "centres": self.centres,
            "failures": list(self.failures),
            "notes": list(self.notes),
        }


def import_hecktor(
    source: str | Path,
    folder: str | Path,
    *,
    new: str | Path | None = None,
    onto: str = "CT",
    edition: str | None = None,
    workers: int | None = None,
) -> ImportResult:
    """Writes a dataset folder (imagesTr, labelsTr, cases.csv; imagesTs, labelsTs, casesTs.csv; dataset.json) from HECKTOR data.

    Every patient of the clinical tables and of the images has a row in cases.csv, also one without images. A patient without a mask cannot
    be trained on: its images go to imagesTs and its row also to casesTs.csv. A patient of the edition's own imagesTs is not learned from:
    images, mask and row go to imagesTs, labelsTs and casesTs.csv alone.

    Args:
        source: the folder as one of the editions hands it out.
        folder: the dataset's; made where it is missing. A run that was interrupted, or whose source has changed since, goes on in it.
        new: a folder of an edition's layout with new patients, for imagesTs; None: the one of an earlier run into this folder, if any.
        onto: "CT", "PT" or a spacing in mm; see `Onto.parse`.
        edition: "2022", "2025" or "2026", of both folders; None: found by the layout of each.
        workers: processes; 0 everything here; default by cores and memory.

    Raises:
        DatasetError: no known layout, tables that contradict each other, a patient both in `source` and `new`, or a folder that holds
            something else; nothing is written.
        ResourceError: the disk is too small, found before starting.
    """
    source, folder, grid = Path(source), Path(folder), Onto.parse(onto)
    before = _begun(folder, source, grid)
    new = new or before.get("new")
    sources = [Source.read(path, edition) for path in (source, new) if path is not None]
    if len(sources) > 1:
        require_apart(*sources)
    tasks = _tasks(sources, folder, grid)
    problems = [problem for read in sources for problem in read.tree.problems]
    if not tasks and not problems:
        raise DatasetError(f"{source}: there are no patients in it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be made: {error.strerror}. Name another folder") from None
    with FoldLock(folder):
        asked = {"source": str(source.absolute()), "onto": str(grid), "new": str(Path(new).absolute()) if new else None}
        files.write_json(folder / RECORD, {"schema": SCHEMA, "edition": sources[0].tree.edition, **asked})
        gone = _discard_gone(folder, tasks)
        standing = {task.case: found for task in tasks if (found := standing_case(task))}
        done, failures = _import_all([task for task in tasks if task.case not in standing], folder, workers)
        result = _finish(folder, str(grid), sources, tasks, standing | done, [*problems, *failures], gone)
    for note in result.notes:
        logger.warning("%s", note)
    return result


def _begun(folder: Path, source: Path, onto: Onto) -> dict[str, Any]:
    """What an earlier run into this folder was asked; {} where there was none.

    Raises:
        DatasetError: the folder holds something else, or was begun from another source or onto another grid.
    """
    if folder.resolve().is_relative_to(source.resolve()):
        raise DatasetError(f"{folder}: lies in the folder that is imported. Name another one")
    if not (folder / RECORD).exists():
        if (folder / "dataset.json").exists():
            raise DatasetError(f"{folder}: holds a dataset already that was not imported. Name another folder")
        return {}
    record = files.read_json(folder / RECORD, error=DatasetError)
    begun = record if isinstance(record, dict) and record.get("schema") == SCHEMA else {}
    if (begun.get("source"), begun.get("onto")) != (str(source.absolute()), str(onto)):
        raise DatasetError(
            f"{folder}: holds an import of {begun.get('source')} onto {begun.get('onto')}; asked for is {source.absolute()} onto {onto}. "
            "Name another folder, or take this one away"
        )
    return begun


def _tasks(sources: Sequence[Source], folder: Path, grid: Onto) -> list[Task]:
    return [
        Task(study.patient, study.files, grid, folder, "Tr" if index == 0 and MASK in study.files and not study.is_test else "Ts")
        for index, source in enumerate(sources)
        for study in source.tree.studies
    ]


def _discard_gone(folder: Path, tasks: Sequence[Task]) -> list[str]:
    """Takes away the cases of earlier runs that are not in the source any more, so that none is left without a row; their names."""
    gone = sorted(recorded_cases(folder) - {task.case for task in tasks})
    for case in gone:
        discard_case(folder, case)
    return gone


# --- the cases


def _import_all(tasks: Sequence[Task], folder: Path, workers: int | None) -> tuple[dict[str, Imported], list[str]]:
    if not tasks:
        return {}, []
    sizes = _sizes(tasks)
    _require_room(folder, DISK_PER_VOXEL * sum(grid for grid, _ in sizes), len(tasks))
    if workers is None:
        workers = default_workers(len(tasks), bytes_each=MEMORY_PER_VOXEL * max((max(pair) for pair in sizes), default=0))
    logger.info("importing %d cases with %d workers", len(tasks), workers)
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        if (folder / name).is_dir():
            files.remove_leftovers(folder / name)
    outcomes = map_cases(import_case, tasks, workers=workers, names=[task.case for task in tasks], progress="importing")
    by_name = {task.case: task for task in tasks}
    done, failures = {}, []
    for outcome in timed(outcomes, len(tasks), workers, "importing"):
        if outcome.value is None:
            remove_files(by_name[outcome.name])
            failures.append(failure_text(outcome))
        else:
            done[outcome.name] = outcome.value
    return done, sorted(failures)


def _sizes(tasks: Sequence[Task]) -> list[tuple[int, int]]:
    """Voxels of each case's new grid and of its CT, as far as headers can be read; importing itself tells what is wrong with the others."""
    sizes = []
    for task in tasks:
        with suppress(AutosegError):
            ct, pt = (read_header(task.sources[role]).geometry for role in (CT, PT))
            sizes.append((prod(task.onto.grid(ct, pt).shape), prod(ct.shape)))
    return sizes


def _require_room(folder: Path, needed: int, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"{folder}: importing {count} cases needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. Free some space, name a "
            "folder on another disk, or take coarser voxels with --onto"
        )


# --- after


def _finish(
    folder: Path,
    onto: str,
    sources: Sequence[Source],
    tasks: Sequence[Task],
    imported: Mapping[str, Imported],
    failures: Sequence[str],
    gone: Sequence[str],
) -> ImportResult:
    """Writes the tables and dataset.json, when every case that can be imported is."""
    cases = [(task, imported[task.case]) for task in tasks if task.case in imported]
    training = tuple(task.case for task, _ in cases if task.split == "Tr")
    centres, centre_notes = write_tables(folder, sources[0], sources[1] if len(sources) > 1 else None)
    edition = sources[0].tree.edition
    if training:
        files.write_json(folder / "dataset.json", _description(edition, onto, len(training)))
    else:
        (folder / "dataset.json").unlink(missing_ok=True)
    notes = [note for source in sources for note in source.notes] + list(centre_notes)
    if unlabelled := sources[0].unlabelled:
        notes.append(f"{len(unlabelled)} patient(s) have no mask; their images are in imagesTs, to be predicted: {list_names(unlabelled)}")
    if tested := sources[0].tested:
        notes.append(
            f"{len(tested)} patient(s) of imagesTs are to be tested on: their images, masks and rows are in imagesTs, labelsTs and "
            f"{NEW_FILE_NAME} alone: {list_names(tested)}"
        )
    if gone:
        notes.append(
            f"{len(gone)} case(s) of an earlier run are gone from the source, or not whole there, and were taken away: {list_names(gone)}"
        )
    notes += [note for _, case in cases for note in case.notes] + _coverage_notes([case for _, case in cases])
    return ImportResult(
        folder,
        edition,
        onto,
        training,
        tuple(task.case for task, _ in cases if task.split == "Ts"),
        sum(not case.stood for _, case in cases),
        dict(sorted(Counter(centres[case] for case in training).items())),
        tuple(failures),
        tuple(dict.fromkeys(notes)),
    )


def _coverage_notes(cases: Sequence[Imported]) -> list[str]:
    beyond = sorted((case for case in cases if case.uncovered > 0), key=lambda case: case.uncovered)
    if not beyond:
        return []
    middle = median(case.uncovered for case in beyond)
    return [
        f"in {len(beyond)} of {len(cases)} cases the grid reaches beyond the PET's field of view, where PET is 0: {middle:.1%} of the "
        f"voxels in the median case, {beyond[-1].uncovered:.1%} in {beyond[-1].case}"
    ]


def _description(edition: str, onto: str, count: int) -> dict[str, Any]:
    return {
        "name": f"HECKTOR {edition}",
        "description": f"Imported from the HECKTOR {edition} layout onto {onto}. For research use only; not a medical device.",
        "channel_names": CHANNELS,
        "labels": LABELS,
        "numTraining": count,
        "file_ending": FILE_ENDING,
    }
