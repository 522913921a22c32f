"""What bringing a PET onto its CT's grid does to its values, linear beside a cubic spline: on scans that have both grids.

python benchmarks/pet_interpolation.py [FOLDER]      FOLDER: sts_raw_grids, by default that of $AUTOSEG_DATA
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import SimpleITK

from autoseg.images import Geometry, Image, from_sitk, read_header, read_image, to_sitk
from autoseg.importers.hecktor.grids import resample


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("AUTOSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("folder", nargs="?", type=Path, default=data / "sts_raw_grids")
    folder = parser.parse_args().folder
    cases = sorted(path.parent for path in folder.glob("*/PET_image.nii.gz"))
    if not cases:
        raise SystemExit(f"{folder}: no CASE/PET_image.nii.gz beside CASE/CT_image.nii.gz")
    print(f"{'case':>10} {'largest SUV':>11} {'linear / it':>11} {'spline / it':>11} {'negative: linear':>17} {'spline':>7}")
    for case in cases:
        pet, grid = read_image(case / "PET_image.nii.gz"), read_header(case / "CT_image.nii.gz").geometry
        linear, spline = resample(pet, grid, outside=0.0), _spline(pet, grid)
        largest = float(pet.array.max())
        ratios = f"{linear.max() / largest:>11.3f} {spline.max() / largest:>11.3f}"
        print(f"{case.name:>10} {largest:>11.2f} {ratios} {np.count_nonzero(linear < 0):>17} {np.count_nonzero(spline < 0):>7}", flush=True)


def _spline(pet: Image, grid: Geometry) -> np.ndarray:
    image, reference = to_sitk(pet.array.astype(np.float32), pet.geometry), to_sitk(np.zeros(grid.shape, np.uint8), grid)
    spline = SimpleITK.Resample(image, reference, SimpleITK.Transform(), SimpleITK.sitkBSpline3, 0.0, SimpleITK.sitkFloat32)
    return from_sitk(spline).array


if __name__ == "__main__":
    main()
