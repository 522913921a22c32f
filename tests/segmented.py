"""A small head-and-neck dataset of real files with a plan, folds and out-of-fold masks, as training leaves them; nothing is trained."""

import json
from pathlib import Path

import numpy as np

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.fold_schemes import make_folds
from autoseg.dataset.workspace import Workspace
from autoseg.images import Geometry, write_image, write_mask
from autoseg.inference.records import hash_inputs
from planners.plan import Configuration, CTNormalisation, Plan, UNetSpec, ZScoreNormalisation

LABELS = {"background": 0, "GTVp": 1, "GTVn": 2}
SHAPE, SPACING = (10, 14, 12), (3.0, 2.0, 2.0)
CONFIGURATION = "3d_fullres"
CENTRES = ("A", "A", "B", "B", "C", "C")


def head(seed: int, *, nodes: int = 1, primary: bool = True):
    """(CT, PET, mask): soft tissue in air; a primary with SUV 8 at its hottest and `nodes` nodes with SUV 5."""
    rng = np.random.default_rng(seed)
    ct = np.full(SHAPE, -1000.0)
    ct[:, 2:12, 1:11] = 40 + rng.normal(0, 10, (SHAPE[0], 10, 10))
    pet = np.where(ct > -500, rng.uniform(0.4, 0.9, SHAPE), 0.01)
    mask = np.zeros(SHAPE, np.uint8)
    if primary:
        mask[3:7, 4:8, 4 : 7 + seed % 2] = 1
        pet[mask == 1] = rng.uniform(4, 7, int((mask == 1).sum()))
        pet[5, 6, 5] = 8.0
    for node in range(nodes):
        mask[1 + 3 * node : 3 + 3 * node, 9:11, 8:10] = 2
    pet[mask == 2] = 5.0
    return ct.astype(np.float32), pet.astype(np.float32), mask


class SegmentedDataset:
    """Six patients of three centres.

    Args:
        scheme: of the folds.
        predicted: case index -> keywords of `head` for its out-of-fold mask, where that differs from the reference.
    """

    def __init__(self, folder: Path, scheme: str = "loco", patients: dict[str, str] | None = None):
        self.folder, self.scheme = folder, scheme
        self.names = [f"{centre}-{index:03d}" for index, centre in enumerate(CENTRES)]
        self.patients = patients or {}
        self.geometry = Geometry(SHAPE, SPACING)
        folder.mkdir(parents=True)
        channels = {"0": "CT", "1": "PET"}
        (folder / "dataset.json").write_text(json.dumps({"channel_names": channels, "labels": LABELS, "file_ending": ".nii.gz"}))
        rows = [f"{name},{self.patients.get(name, name)},{centre}" for name, centre in zip(self.names, CENTRES, strict=True)]
        (folder / "cases.csv").write_text("\n".join(["case,patient,centre", *rows]) + "\n")
        for index, name in enumerate(self.names):
            self.write_images(name, *head(index)[:2])
            write_mask(folder / "labelsTr" / f"{name}.nii.gz", head(index)[2], self.geometry)
        self.work = Workspace.of(folder)
        self.plan()

    def plan(self) -> None:
        """Writes plan and folds."""
        ones, twos, threes = (1, 1, 1), (2, 2, 2), (3, 3, 3)
        network = UNetSpec(
            features=(4, 8), strides=(ones, twos), kernels=(threes, threes), convs_per_stage=(1, 1), convs_per_decoder_stage=(1,)
        )
        configuration = Configuration(
            dimension=3,
            spacing=SPACING,
            median_shape=SHAPE,
            patch_size=(8, 8, 8),
            batch_size=2,
            normalisation=(CTNormalisation(lower=-200, upper=300, mean=20, std=80), ZScoreNormalisation()),
            network=network,
        )
        plan = Plan(
            channels=("CT", "PET"),
            labels=LABELS,
            file_ending=".nii.gz",
            orientation="canonical",
            transpose=(0, 1, 2),
            configurations={CONFIGURATION: configuration},
        )
        files.write_text(self.work.plan, plan.to_json())
        self.folds = make_folds(self.dataset.cases, self.scheme, seed=0)
        files.write_json(self.work.folds, self.folds.to_json())

    @property
    def dataset(self) -> Dataset:
        return Dataset.open(self.folder)

    def write_images(self, name: str, ct, pet, folder: str = "imagesTr") -> None:
        for channel, array in enumerate((ct, pet)):
            write_image(self.folder / folder / f"{name}_{channel:04d}.nii.gz", array, self.geometry)

    def fold(self, name: str) -> Path:
        return self.work.fold(CONFIGURATION, self.scheme, name)

    def mask(self, case: str) -> Path:
        fold = next(name for name, fold in self.folds.folds.items() if case in fold.validation)
        return self.fold(fold) / "masks" / f"{case}.nii.gz"

    def predict(self, name: str, masks=None) -> None:
        """Leaves a fold as training does: masks of the held-out cases, their record, and run.json.

        Args:
            masks: case -> array, where it is not the reference.
        """
        fold = self.fold(name)
        held_out = self.folds.fold(name).validation
        lines = []
        for case in held_out:
            array = (masks or {}).get(case, head(self.names.index(case))[2])
            path = fold / "masks" / f"{case}.nii.gz"
            write_mask(path, array, self.geometry)
            outputs = {path.name: files.sha256_file(path)}
            record = {"case": case, "settings": "s", "inputs": hash_inputs(self.dataset.case(case)), "outputs": outputs, "notes": []}
            lines.append("\n" + json.dumps(record) + "\n")
        files.write_text(fold / "masks" / "predictions.jsonl", "".join(lines))
        run = {"finished_epochs": 2, "epochs": 2, "validated": {"epochs": 2, "cases": dict.fromkeys(held_out, "hash")}}
        files.write_json(fold / "run.json", run)

    def predict_all(self, masks=None) -> None:
        for name in self.folds.folds:
            self.predict(name, masks)
