"""Networks trained under the planned normalisation of PET and under nnU-Net's z-score of the whole image: Dice of held-out patients.

    .venv/bin/python benchmarks/pet_normalisation_network.py DATASET FOLDER [--conditions mixed as-they-are] [--folds 0 1 2 3 4]
                                                                [--epochs 8] [--iterations 50] [--seed 1]

DATASET has CT as its first channel and PET in SUV as its second. Each condition's images are written to FOLDER once for each scheme, which
differ by the name of the second channel alone: "PET" is planned as PET, any other name as a z-score. `mixed` changes every case, those
trained on and those held out, as `pet_normalisation.py` does: other fields of view, a hot spot in 40 %, and half of the cases in Bq/ml.
A result that stands in FOLDER is not computed again, so that processes with different --folds may share it. Both networks of a fold have
the same seed; the difference is paired by patient, its interval a bootstrap over patients.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from pet_normalisation import Patient, dice, field_of_view, hot_spot, interval, read

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.images import Geometry, read_image, read_mask, write_image, write_mask
from autoseg.locks import FoldLock
from autoseg.planning.planning import plan
from autoseg.training.segmentation import train

SCHEMES = {"pet": "PET", "z-score": "uptake"}
"""Name of the scheme -> name of the second channel, from which it is planned."""

CONDITIONS = ("mixed", "as-they-are")


def main() -> None:
    """Trains what is missing, then prints the differences over all that is there."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset", type=Path)
    options.add_argument("folder", type=Path)
    options.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    options.add_argument("--folds", type=int, nargs="+", default=range(5))
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--iterations", type=int, default=50)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    for condition in chosen.conditions:
        for fold in chosen.folds:
            for scheme in SCHEMES:
                run(chosen, condition, fold, scheme)
        print(text(chosen.folder, condition), flush=True)


def run(chosen: argparse.Namespace, condition: str, fold: int, scheme: str) -> None:
    """One network; leaves its held-out cases' Dice in one JSON file."""
    result = chosen.folder / condition / f"{scheme}-fold{fold}.json"
    if result.exists():
        return
    started = time.monotonic()
    dataset = chosen.folder / condition / scheme
    dataset.mkdir(parents=True, exist_ok=True)
    with FoldLock(dataset, wait=None):
        if not (dataset / "dataset.json").exists():
            write_dataset(chosen.dataset, dataset, condition, SCHEMES[scheme])
        planned = plan(dataset, preset="laptop", folds="cv5", workers=0).plan
    settings = {"training.epochs": chosen.epochs, "training.iterations": chosen.iterations, "training.validation_iterations": 1}
    done = train(dataset, fold, settings=settings, seed=chosen.seed, workers=0, threads=1)
    masks = sorted((done.folder / "masks").glob("*.nii.gz"))
    scores = {path.name: dice(read_mask(path).array > 0, read_mask(dataset / "labelsTr" / path.name).array > 0) for path in masks}
    kind = planned.configurations["3d_fullres"].normalisation[1].kind
    files.write_json(result, {"normalisation": kind, "dice": scores, "minutes": (time.monotonic() - started) / 60})
    print(f"{condition}, fold {fold}, {scheme} ({kind}): {np.mean(list(scores.values())):.3f}", flush=True)


def write_dataset(source: Path, folder: Path, condition: str, second_channel: str) -> None:
    """The patients under one condition. Their changes depend on their place in the dataset alone, so they are the same for each scheme."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(exist_ok=True)
    cases = Dataset.open(source).cases
    for number, (case, patient) in enumerate(zip(cases, read(source), strict=True)):
        rng = np.random.default_rng((3, number))
        if condition == "mixed":
            patient = hot_spot(field_of_view(patient, rng), rng)
            patient = Patient(patient.ct, patient.pet * (1e3 * rng.uniform(3, 9) if rng.random() < 0.5 else 1), patient.tumour)
        spacing = read_image(case.images[0].path).geometry.spacing
        grid = Geometry(shape=patient.pet.shape, spacing=spacing, origin=(0.0, 0.0, 0.0), direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
        for channel, image in enumerate((patient.ct, patient.pet)):
            write_image(folder / "imagesTr" / f"{case.name}_{channel:04d}.nii.gz", image.astype(np.float32), grid)
        write_mask(folder / "labelsTr" / f"{case.name}.nii.gz", patient.tumour.astype(np.uint8), grid)
    described = {"channel_names": {"0": "CT", "1": second_channel}, "labels": {"background": 0, "tumour": 1}}
    files.write_json(folder / "dataset.json", described | {"numTraining": len(cases), "file_ending": ".nii.gz"})


def text(folder: Path, condition: str) -> str:
    """The condition's means and their paired difference, over the folds that have both networks."""
    found = {scheme: {} for scheme in SCHEMES}
    for scheme, scores in found.items():
        for path in sorted((folder / condition).glob(f"{scheme}-fold*.json")):
            scores.update(json.loads(path.read_text())["dice"])
    both = sorted(set.intersection(*(set(scores) for scores in found.values())))
    pet, zscore = (np.array([found[scheme][case] for case in both]) for scheme in SCHEMES)
    low, high = interval(pet - zscore)
    return (
        f"{condition}, {len(both)} patients: pet {pet.mean():.3f}, z-score {zscore.mean():.3f}; difference {(pet - zscore).mean():+.3f}, "
        f"95 % interval {low:+.3f} to {high:+.3f}; pet is better in {int((pet > zscore).sum())}"
    )


if __name__ == "__main__":
    main()
