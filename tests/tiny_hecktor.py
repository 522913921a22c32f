"""Tiny HECKTOR folders of real files, written by SimpleITK."""

import csv
import io
from pathlib import Path

import numpy as np
import SimpleITK as sitk

CT_GRID = {"shape": (6, 10, 12), "spacing": (3.0, 1.0, 1.0), "origin": (-6.0, -5.0, -9.0)}
PT_GRID = {"shape": (4, 4, 5), "spacing": (4.0, 3.0, 3.0), "origin": (-7.0, -4.5, -9.0)}
SLOPE, LEVEL = np.array([0.02, -0.03, 0.05]), 2.0
"""PET = LEVEL + SLOPE . (x, y, z): what linear interpolation must give back."""

COLUMNS = ("PatientID", "CenterID", "Age", "Relapse", "RFS", "HPV Status")


def write(path: Path, array: np.ndarray, grid: dict) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid["spacing"][::-1])
    image.SetOrigin(grid["origin"])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def positions(grid: dict) -> np.ndarray:
    """x, y, z of each voxel's centre, mm; (z, y, x, 3)."""
    z, y, x = np.indices(grid["shape"])
    return np.stack([x, y, z], -1) * np.array(grid["spacing"][::-1]) + np.array(grid["origin"])


class Hecktor:
    """A folder in HECKTOR 2025's layout."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)

    def path(self, patient: str, role: str = "", *, task: int = 1, within: str | None = None) -> Path:
        suffix = f"__{role}" if role else ""
        return self.folder / f"Task {task}" / (within or patient) / f"{patient}{suffix}.nii.gz"

    def add(self, patient: str, *, task: int = 1, within: str | None = None, roles=("CT", "PT", "")) -> None:
        arrays = {"CT": (self.ct(patient), CT_GRID), "PT": (self.pt(), PT_GRID), "": (self.mask(), CT_GRID)}
        for role in roles:
            write(self.path(patient, role, task=task, within=within), *arrays[role])

    def ct(self, patient: str) -> np.ndarray:
        return np.random.default_rng([*patient.encode()]).integers(-1000, 1000, CT_GRID["shape"]).astype(np.int16)

    def pt(self) -> np.ndarray:
        return (LEVEL + positions(PT_GRID) @ SLOPE).astype(np.float32)

    def mask(self) -> np.ndarray:
        mask = np.zeros(CT_GRID["shape"], np.uint8)
        mask[2:4, 3:6, 4:7] = 1
        mask[4, 7:9, 2:5] = 2
        return mask

    def table(self, *rows: dict, task: int = 1, columns=COLUMNS, text: str | None = None, name: str | None = None) -> Path:
        stream = io.StringIO()
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([row.get(column, "") for column in columns] for row in rows)
        path = self.folder / (name or f"HECKTOR_2025_Training_Task_{task}.csv")
        path.write_text(stream.getvalue() if text is None else text)
        return path
