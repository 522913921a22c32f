"""Input folders as the challenges' platform makes them."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from segmented import SPACING, head

EHR = {"CenterID": 5, "Age": 61, "Gender": 1, "Tobacco Consumption": None, "M-stage": "M0"}


def write(path: Path, array, spacing, origin=(0.0, 0.0, 0.0)) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_pair(ct_path, pet_path, seed=10, pet_factor=1.0):
    """A CT, and a PET on a grid of its own: every second voxel in plane, and one slice less."""
    ct, pet, _ = head(seed)
    write(ct_path, ct.astype(np.int16), SPACING)
    write(pet_path, pet_factor * pet[1:, ::2, ::2], (SPACING[0], 2 * SPACING[1], 2 * SPACING[2]), (0.0, 0.0, SPACING[0]))


class Input:
    """An input folder."""

    def __init__(self, folder: Path, ehr=EHR, **images):
        self.folder = folder
        self.ct, self.pet = folder / "images" / "ct" / "3f2a-11.mha", folder / "images" / "pet" / "9bc0-57.mha"
        write_pair(self.ct, self.pet, **images)
        self.record = folder / "ehr.json"
        self.record.write_text(ehr if isinstance(ehr, str) else json.dumps(ehr))
