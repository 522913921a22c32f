"""Small datasets of real files, and the installed commands' names."""

import json
import sysconfig
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
QUICK = ("--epochs", "2", "--iterations", "3", "--set", "training.validation_iterations=1")


def command_line(name: str, *arguments: object) -> list[str]:
    return [str(Path(sysconfig.get_path("scripts")) / f"autoseg_{name}"), *map(str, arguments)]


class TinyDataset:
    """A two-channel dataset in nnU-Net's raw layout: a bright ball in noise, in volumes of a few thousand voxels."""

    spacing = (2.0, 1.5, 1.0)

    def __init__(self, folder: Path, cases: int = 6, shape=(12, 20, 16), seed: int = 0):
        self.folder, self.shape, self.seed = folder, shape, seed
        self.names = [f"case{index:02d}" for index in range(cases)]
        self.describe()
        for name in self.names:
            self.add(name)

    def describe(self, **changes) -> None:
        document = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "ball": 1}, "file_ending": ".nii.gz"}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "dataset.json").write_text(json.dumps({**document, "numTraining": len(self.names), **changes}))

    def arrays(self, name: str):
        """(CT, PET, mask) of a case."""
        rng = np.random.default_rng([self.seed, *name.encode()])
        z, y, x = np.indices(self.shape)
        centre = [rng.uniform(0.3, 0.7) * n for n in self.shape]
        mask = sum(((axis - c) * s) ** 2 for axis, c, s in zip((z, y, x), centre, self.spacing, strict=True)) < 5.0**2
        ct = rng.normal(0, 20, self.shape) + 60 * mask + 1
        pet = rng.gamma(2, 0.3, self.shape) + 3 * mask + 0.1
        return ct.astype(np.float32), pet.astype(np.float32), mask.astype(np.uint8)

    def image(self, name: str, channel: int, folder: str = "imagesTr") -> Path:
        return self.folder / folder / f"{name}_{channel:04d}.nii.gz"

    def label(self, name: str) -> Path:
        return self.folder / "labelsTr" / f"{name}.nii.gz"

    def add(self, name: str, folder: str = "imagesTr", *, label: bool = True) -> None:
        ct, pet, mask = self.arrays(name)
        for channel, array in enumerate((ct, pet)):
            self.write(array, self.image(name, channel, folder))
        if label:
            self.write(mask, self.label(name))

    def write(self, array: np.ndarray, path: Path, spacing=None) -> Path:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((spacing or self.spacing)[::-1])
        image.SetOrigin((-20.0, 11.0, 3.5))
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path))
        return path

    @property
    def work(self) -> Path:
        return self.folder / "autoseg-work"
