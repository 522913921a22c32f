"""Writes the phantom cohort: as an edition of HECKTOR hands out its data, or as tables alone; and the truth beside it."""

from __future__ import annotations

import hashlib
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import files
from autoseg.errors import DatasetError, ResourceError
from autoseg.importers.cohort.anatomy import draw_scene
from autoseg.importers.cohort.centres import Scanner, first_centres
from autoseg.importers.cohort.imaging import Pose, Scan, scan
from autoseg.importers.cohort.layouts import LAYOUTS, Layout, layout_of
from autoseg.importers.cohort.measured import measured_features
from autoseg.importers.cohort.patients import Patients, Tumours, simulate
from autoseg.importers.cohort.tables import cases_table, csv_text
from autoseg.importers.cohort.truth import ceiling_text, truth_columns, truth_document
from autoseg.workers import map_cases

logger = logging.getLogger(__name__)

TRUTH, TRUTH_TABLE = "truth.json", "truth.csv"
CASES, FEATURES = "cases.csv", "features.csv"
SIZES = ("demo", "full")

NEW_STREAM = 1
BYTES_PER_VOXEL = 24
"""Memory of a worker at its peak, for each voxel of the CT: the CT as it is written and as it is read back."""

DISK_BYTES_PER_VOXEL = 2.5
"""Of the CT's voxels, compressed noise; PET and mask are small beside it."""


@dataclass(frozen=True)
class Written:
    """A cohort on disk.

    Attributes:
        folder: holds the edition's two folders or the tables, and the truth.
        patients: those with outcomes.
        new: names of the new patients.
        without_tumour: the new patient who has none; "" where nobody.
        truth: what truth.json says.
    """

    folder: Path
    patients: Patients
    new: tuple[str, ...]
    without_tumour: str
    truth: dict[str, Any]

    def text(self) -> str:
        """For a person."""
        centre = np.bincount(self.patients.centre, minlength=len(self.patients.centres))
        of = ", ".join(f"{one.name} {count}" for one, count in zip(self.patients.centres, centre, strict=True))
        rows = self.truth["rows"]
        lines = [
            f"{self.folder}: {len(self.patients)} patients ({of}), seed {self.patients.seed}",
            f"  {rows['events']} relapses in {rows['with_outcome']} patients with follow-up, "
            f"{rows['hpv_positive']} HPV positive of {rows['hpv_known']} tested",
        ]
        if self.new:
            lines.append(f"  {len(self.new)} new patients" + (f", {self.without_tumour} without any tumour" if self.without_tumour else ""))
        return "\n".join([*lines, "", ceiling_text(self.truth)])

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "folder": str(self.folder),
            "patients": len(self.patients),
            "centres": [centre.name for centre in self.patients.centres],
            "seed": self.patients.seed,
            "new_patients": list(self.new),
            "without_tumour": self.without_tumour,
            "truth": self.truth,
        }


def write_cohort(
    folder: str | Path,
    *,
    patients: int = 30,
    centres: int = 3,
    seed: int = 1,
    new_patients: int = 0,
    size: str = "demo",
    edition: str = "2025",
    table_only: bool = False,
    signal: bool = True,
    workers: int | None = None,
) -> Written:
    """Writes a phantom cohort and tells what was written.

    The same arguments give the same bytes, and a patient is the same however many others there are.

    Args:
        folder: made where it is missing; it must not hold a cohort yet.
        patients, centres: how many.
        new_patients: how many more, with images and without masks and outcomes; the last of two or more has no tumour.
        size: of the images: "demo" (about 30x32x32) or "full" (CT of 512x512x200).
        edition: of HECKTOR, "2022", "2025" or "2026": layout, names and columns; the patients are the same in each.
        table_only: cases.csv and features.csv in place of images.
        signal: False: relapse depends on nothing, HPV on the centre alone.
        workers: processes; 0 everything here; default by cores and memory.

    Raises:
        DatasetError: the folder holds a cohort already, or a number makes no sense; nothing is written.
        ResourceError: the disk is too small, found before starting.
    """
    folder, layout = Path(folder), layout_of(edition)
    _check(folder, patients, new_patients, seed, size, table_only)
    cohort = simulate(patients, first_centres(centres), seed, signal=signal)
    new = simulate(new_patients, cohort.centres, seed, signal=signal, stream=NEW_STREAM)
    truth = truth_document(cohort)
    if not table_only:
        _require_room(folder, cohort, new, size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be made: {error.strerror}. Name another folder") from None
    if table_only:
        _write_tables(folder, cohort, layout)
    else:
        _write_images(folder, cohort, new, layout, size, workers)
    files.write_text(folder / TRUTH_TABLE, csv_text(truth_columns(cohort)))
    files.write_json(folder / TRUTH, truth)
    return Written(folder, cohort, tuple(new.names), new.names[-1] if new_patients > 1 else "", truth)


def _check(folder: Path, patients: int, new_patients: int, seed: int, size: str, table_only: bool) -> None:
    if patients < 1 or new_patients < 0 or seed < 0:
        raise DatasetError(f"a cohort needs 1 patient, 0 new patients and seed 0 or more, found {patients}, {new_patients} and {seed}")
    if size not in SIZES:
        raise DatasetError(f"--size {size}: the sizes are {' and '.join(SIZES)}")
    if table_only and new_patients:
        raise DatasetError(f"--new-patients {new_patients}: new patients are images; a cohort of tables alone has none")
    folders = [name for layout in LAYOUTS.values() for name in (layout.training, layout.new)]
    there = [name for name in (*folders, TRUTH, TRUTH_TABLE, CASES, FEATURES) if (folder / name).exists()]
    if there:
        raise DatasetError(f"{folder}: holds {there[0]} already; name another folder, or take the old cohort away")


# --- tables alone


def _write_tables(folder: Path, cohort: Patients, layout: Layout) -> None:
    features = {name: values.tolist() for name, values in measured_features(cohort).items()}
    flags = ["" if count else "no_nodes" for count in cohort.node_count]
    table = csv_text({"patient": cohort.names, "case": cohort.names, "flags": flags, **features})
    files.write_text(folder / CASES, cases_table(cohort, layout.columns))
    files.write_text(folder / FEATURES, table)
    files.write_json(
        (folder / FEATURES).with_suffix(".json"),
        {
            "schema": "autoseg-features/1",
            "csv_sha256": hashlib.sha256(table.encode()).hexdigest(),
            # No network drew anything here, so none has seen a centre.
            "segmentation_saw_centre": None,
            "scheme": "",
            "configuration": "",
            "labels": {},
            "patients": len(cohort),
            "notes": ["worked out from simulated patients, with measurement noise and without images"],
            "unmeasured": {},
            "masks": {},
        },
    )


# --- images


@dataclass(frozen=True)
class _Task:
    """One patient to be imaged.

    Attributes:
        ct, pt, mask: the files to write; `mask` is None for a new patient.
    """

    name: str
    ct: Path
    pt: Path
    mask: Path | None
    tumours: Tumours
    scanner: Scanner
    size: str
    seed: tuple[int, ...]


def _write_images(folder: Path, cohort: Patients, new: Patients, layout: Layout, size: str, workers: int | None) -> None:
    from autoseg.preprocessing.cases import default_workers

    tasks = _tasks(folder, cohort, layout, size, new=False) + _tasks(folder, new, layout, size, new=True)
    if workers is None:
        workers = default_workers(len(tasks), bytes_each=BYTES_PER_VOXEL * max(_voxels(task.scanner, size) for task in tasks))
    try:
        for outcome in map_cases(_image, tasks, workers=workers, names=[task.name for task in tasks], progress="imaging"):
            if outcome.error is not None:
                raise outcome.error
        for name, text in layout.tables(cohort).items():
            files.write_text(folder / layout.training / name, text)
        for name, text in layout.new_tables(new).items() if len(new) else ():
            files.write_text(folder / layout.new / name, text)
    except BaseException:
        for name in (layout.training, layout.new):
            with suppress(OSError):
                shutil.rmtree(folder / name)
        raise


def _tasks(folder: Path, patients: Patients, layout: Layout, size: str, *, new: bool) -> list[_Task]:
    tasks = []
    within = folder / (layout.new if new else layout.training)
    for row, name in enumerate(patients.names):
        healthy = new and row == len(patients) - 1 and row > 0
        tumours = Tumours((), (), (), 0.0) if healthy else patients.tumours(row)
        scanner = patients.centres[patients.centre[row]].scanner
        seed = (patients.seed, patients.stream, 1, row)
        ct, pt = (within / layout.image(name, role, new) for role in ("CT", "PT"))
        tasks.append(_Task(name, ct, pt, None if new else within / layout.mask(name), tumours, scanner, size, seed))
    return tasks


def _image(task: _Task) -> None:
    from autoseg.images import write_image, write_mask

    made = image_patient(task.tumours, task.scanner, task.size, task.seed)
    for path in (task.ct, task.pt, *([task.mask] if task.mask else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_image(task.ct, made.ct, made.ct_geometry)
    write_image(task.pt, made.pet, made.pet_geometry)
    if task.mask:
        write_mask(task.mask, made.mask, made.ct_geometry)


def image_patient(tumours: Tumours, scanner: Scanner, size: str, seed: tuple[int, ...]) -> Scan:
    """The images of a patient with these lesions; the seed decides on all else."""
    rng = np.random.default_rng(seed)
    pose = Pose.draw(rng)
    return scan(draw_scene(tumours, pose.scale, rng), pose, scanner, size, rng)


def _voxels(scanner: Scanner, size: str) -> int:
    return prod(scanner.grids[size][0].shape)


def _require_room(folder: Path, cohort: Patients, new: Patients, size: str) -> None:
    voxels = sum(_voxels(patients.centres[index].scanner, size) for patients in (cohort, new) for index in patients.centre)
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    needed, free = int(DISK_BYTES_PER_VOXEL * voxels), shutil.disk_usage(place).free
    if free < needed:
        raise ResourceError(
            f"{folder}: {len(cohort) + len(new)} patients of size {size} need about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. "
            "Free some space, or name a folder on another disk"
        )
