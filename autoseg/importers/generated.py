"""The generated dataset as a folder in nnU-Net's raw layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoseg import files
from autoseg.dataset import table
from autoseg.errors import DatasetError
from autoseg.importers.phantom import CENTRES, CHANNELS, LABELS, Centre, generate_case

FILE_ENDING = ".nii.gz"
NAME = "Generated two-channel phantoms"
FIRST_TEST_PATIENT = 501
"""Test patients have numbers of their own, so that their voxels do not depend on how many are for training."""

SECOND_SCAN_EVERY = 6
"""Every so many patients one comes twice: folds must keep both scans together."""


@dataclass(frozen=True)
class _Scan:
    case: str
    patient: str
    number: int
    visit: int
    centre: Centre


def write_generated_dataset(
    folder: str | Path,
    *,
    cases: int = 24,
    test_cases: int = 8,
    seed: int = 1,
    shape: tuple[int, int, int] | None = None,
    centres: tuple[Centre, ...] = CENTRES,
) -> Path:
    """Writes a dataset (dataset.json, cases.csv, casesTs.csv, imagesTr, labelsTr, imagesTs, labelsTs) and returns its folder.

    The same arguments give the same voxels; a case does not depend on how many others there are. The centres take turns; the second one
    stores its images flipped (RAS where the first has LPS), as hospitals do.

    Args:
        folder: made where it is missing; it must not hold a dataset yet.
        cases, test_cases: how many scans for training and for testing.
        seed: of everything.
        shape: voxels (z, y, x) of all images, for tests that need tiny ones; the field of view stays. None: each centre's own.
        centres: how they image.

    Raises:
        DatasetError: the folder holds a dataset already, or `cases` or `test_cases` is not sensible.
    """
    folder = Path(folder)
    if cases < 1 or test_cases < 0:
        raise DatasetError(f"a generated dataset needs at least 1 case and 0 test cases, found {cases} and {test_cases}")
    if (folder / "dataset.json").exists():
        raise DatasetError(f"{folder}: holds a dataset already; name another folder")
    if shape is not None:
        centres = tuple(_with_shape(centre, shape) for centre in centres)
    for name in ("imagesTr", "labelsTr", *(("imagesTs", "labelsTs") if test_cases else ())):
        (folder / name).mkdir(parents=True, exist_ok=True)
    training, test = list(_scans(cases, 1, centres)), list(_scans(test_cases, FIRST_TEST_PATIENT, centres))
    for scans, kind in ((training, "Tr"), (test, "Ts")):
        for scan in scans:
            _write_scan(folder, kind, scan, seed)
    for name, scans in ((table.FILE_NAME, training), (table.NEW_FILE_NAME, test)):
        if scans:
            table.write_table(folder / name, [table.Row(scan.case, scan.patient, scan.centre.name, {}) for scan in scans], ())
    files.write_json(
        folder / "dataset.json",
        {
            "name": NAME,
            "description": f"Two-channel phantoms, seed {seed}; no patient data.",
            "channel_names": CHANNELS,
            "labels": LABELS,
            "numTraining": len(training),
            "file_ending": FILE_ENDING,
        },
    )
    return folder


def _scans(count: int, first: int, centres: tuple[Centre, ...]) -> Iterator[_Scan]:
    number, made = first, 0
    while made < count:
        centre = centres[number % len(centres)]
        patient = f"{centre.name.lower()}-{number:03d}"
        visits = 2 if number % SECOND_SCAN_EVERY == 0 else 1
        for visit in range(min(visits, count - made)):
            yield _Scan(patient + ("b" if visit else ""), patient, number, visit, centre)
            made += 1
        number += 1


def _with_shape(centre: Centre, shape: tuple[int, int, int]) -> Centre:
    spacing = tuple(s * old / new for s, old, new in zip(centre.spacing, centre.shape, shape, strict=True))
    return replace(centre, shape=shape, spacing=spacing)


def _write_scan(folder: Path, kind: str, scan: _Scan, seed: int) -> None:
    from autoseg.images import Geometry, write_image, write_mask

    phantom = generate_case(seed, scan.number, scan.visit, scan.centre)
    flipped = scan.number % 2 == 1
    signs = np.array([-1.0, -1.0, 1.0]) if flipped else np.ones(3)
    # x, y, z of the middle of the first voxel, with the middle of the image at 0
    size = np.array(phantom.spacing[::-1]) * (np.array(phantom.labels.shape[::-1]) - 1)
    geometry = Geometry(
        shape=phantom.labels.shape,
        spacing=phantom.spacing,
        origin=tuple(float(v) for v in -signs * size / 2),
        direction=tuple(float(v) for v in np.diag(signs).ravel()),
    )

    def stored(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(array, (1, 2))) if flipped else array

    ct, pet = phantom.images
    write_image(folder / f"images{kind}" / f"{scan.case}_0000{FILE_ENDING}", stored(ct.astype(np.int16)), geometry)
    write_image(folder / f"images{kind}" / f"{scan.case}_0001{FILE_ENDING}", stored(pet), geometry)
    write_mask(folder / f"labels{kind}" / f"{scan.case}{FILE_ENDING}", stored(phantom.labels), geometry)
