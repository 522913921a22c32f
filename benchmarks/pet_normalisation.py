"""Which normalisation brings PETs of different patients onto one scale: how well held-out tumours are found by rules fitted on others.

    .venv/bin/python -P benchmarks/pet_normalisation.py DATASET [--classifier]

DATASET has CT as its first channel and PET in SUV as its second. Under each scheme one threshold of the PET (with `--classifier` also a
gradient-boosted classifier of voxels from PET and CT, smoothed over three distances) is fitted on four fifths of the patients and judged on
the rest. Three conditions: images as they are; other fields of view (each case cut along z outside its tumour, or surrounded by air); a hot
spot of 27 voxels outside the tumour in 40 % of the cases, 5 to 50 times the maximum. The unit needs no condition: all schemes but the first
are the same in any. Prints mean Dice, and its paired difference to the z-score of the whole image, with a bootstrap interval over patients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.images import read_image
from autoseg.preprocessing.normalise import normalise
from planners.plan import PETNormalisation, ZScoreNormalisation

FOLDS = 5


@dataclass(frozen=True)
class Patient:
    """CT, PET and tumour, each (z, y, x)."""

    ct: np.ndarray
    pet: np.ndarray
    tumour: np.ndarray


def body(pet: np.ndarray, share: float = 0.01) -> np.ndarray:
    """The values above a share of the 99.5 percentile."""
    return pet[pet > share * np.percentile(pet, 99.5)]


def robust(pet: np.ndarray) -> np.ndarray:
    """Median and interquartile range of the body."""
    low, middle, high = np.percentile(body(pet), [25, 50, 75])
    return (pet - middle) / max(high - low, 1e-8)


def log(pet: np.ndarray) -> np.ndarray:
    """z-score of log(1 + uptake / the body's mean)."""
    return normalise(np.log1p(np.maximum(pet, 0) / body(pet).mean()), ZScoreNormalisation())


SCHEMES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "z-score of the image": lambda pet: normalise(pet.copy(), ZScoreNormalisation()),
    "SUV as it is": lambda pet: pet,
    "z-score, image clipped at 99.5 %": lambda pet: normalise(np.minimum(pet, np.percentile(pet, 99.5)), ZScoreNormalisation()),
    "body, median and quartiles": robust,
    "body, mean": lambda pet: pet / body(pet).mean(),
    "log, z-score": log,
    "pet: body, clipped at 98 %": lambda pet: normalise(pet.copy(), PETNormalisation(clip=98)),
    "pet: body, clipped at 99.5 %": lambda pet: normalise(pet.copy(), PETNormalisation()),
    "pet: body, clipped at 99.9 %": lambda pet: normalise(pet.copy(), PETNormalisation(clip=99.9)),
}


def main() -> None:
    """Prints the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("dataset", type=Path)
    options.add_argument("--classifier", action="store_true", help="also the classifier of voxels: some minutes")
    options.add_argument("--json", type=Path)
    parsed = options.parse_args()
    patients = read(parsed.dataset)
    found: dict[str, dict[str, list[float]]] = {}
    for condition, change in {"as they are": None, "other fields of view": field_of_view, "hot spots": hot_spot}.items():
        rng = np.random.default_rng(3)
        changed = patients if change is None else [change(patient, rng) for patient in patients]
        for rule in [threshold, *([classifier] if parsed.classifier else [])]:
            scores = {name: out_of_fold(changed, scheme, rule) for name, scheme in SCHEMES.items()}
            print(f"\n{condition}, {rule.__name__}, {len(patients)} patients")
            reference = next(iter(scores.values()))
            for name, dice in scores.items():
                low, high = interval(dice - reference)
                print(f"  {name:36s} {dice.mean():.3f}   {(dice - reference).mean():+.3f} ({low:+.3f} to {high:+.3f})", flush=True)
            found[f"{condition}, {rule.__name__}"] = {name: dice.tolist() for name, dice in scores.items()}
    if parsed.json:
        files.write_json(parsed.json, found)


def read(folder: Path) -> list[Patient]:
    """The patients of a dataset folder."""
    patients = []
    for case in Dataset.open(folder).cases:
        ct, pet = (read_image(source.path).array.astype(np.float32) for source in case.images)
        patients.append(Patient(ct, pet, read_image(case.label).array > 0))
    return patients


def field_of_view(patient: Patient, rng: np.random.Generator) -> Patient:
    """Cut outside the tumour along z, or surrounded by air, or both, or neither."""
    planes = np.flatnonzero(patient.tumour.any(axis=(1, 2)))
    first = int(rng.integers(0, planes[0] + 1)) if rng.random() < 0.5 else 0
    last = int(rng.integers(planes[-1] + 1, len(patient.pet) + 1)) if rng.random() < 0.5 else len(patient.pet)
    air = int(rng.integers(0, 20)) if rng.random() < 0.5 else 0
    margin = ((0, 0), (air, air), (air, air))
    ct, pet, tumour = (array[first:last] for array in (patient.ct, patient.pet, patient.tumour))
    return Patient(np.pad(ct, margin, constant_values=-1000), np.pad(pet, margin), np.pad(tumour, margin))


def hot_spot(patient: Patient, rng: np.random.Generator) -> Patient:
    """In four of ten, 3 x 3 x 3 voxels outside the tumour far above the maximum."""
    if rng.random() >= 0.4:
        return patient
    pet = patient.pet.copy()
    places = np.flatnonzero(~patient.tumour & (pet > 0.1 * pet.max()))
    middle = np.unravel_index(rng.choice(places), pet.shape)
    spot = tuple(slice(max(0, int(m) - 1), int(m) + 2) for m in middle)
    pet[spot] = np.where(patient.tumour[spot], pet[spot], pet.max() * rng.uniform(5, 50))
    return Patient(patient.ct, pet, patient.tumour)


Rule = Callable[[Sequence[Patient], Sequence[np.ndarray], Sequence[int], Sequence[int]], list[np.ndarray]]


def out_of_fold(patients: Sequence[Patient], scheme: Callable[[np.ndarray], np.ndarray], rule: Rule) -> np.ndarray:
    """Dice of each patient, found by a rule that was fitted without the patient's fold."""
    values = [scheme(patient.pet) for patient in patients]
    fold = np.random.default_rng(0).permutation(len(patients)) % FOLDS
    scores = np.zeros(len(patients))
    for held_out in range(FOLDS):
        training, test = np.flatnonzero(fold != held_out).tolist(), np.flatnonzero(fold == held_out).tolist()
        for index, mask in zip(test, rule(patients, values, training, test), strict=True):
            scores[index] = dice(mask, patients[index].tumour)
    return scores


def threshold(patients: Sequence[Patient], values: Sequence[np.ndarray], training: Sequence[int], test: Sequence[int]) -> list[np.ndarray]:
    """What lies above the threshold that is best on the training patients."""
    inside = np.concatenate([values[i][patients[i].tumour][::7] for i in training])
    levels = np.quantile(inside, np.linspace(0.01, 0.9, 40))
    means = [np.mean([dice(values[i] >= level, patients[i].tumour) for i in training]) for level in levels]
    return [values[i] >= levels[int(np.argmax(means))] for i in test]


def classifier(patients: Sequence[Patient], values: Sequence[np.ndarray], training: Sequence[int], test: Sequence[int]) -> list[np.ndarray]:
    """Voxels that gradient boosting takes for tumour."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(0)
    features, classes, weights = [], [], []
    for i in training:
        table, truth = describe(patients[i].ct, values[i]), patients[i].tumour.ravel()
        for kind, wanted in ((True, 800), (False, 2500)):
            all_of_it = np.flatnonzero(truth == kind)
            drawn = rng.choice(all_of_it, min(wanted, len(all_of_it)), replace=False)
            features.append(table[drawn])
            classes.append(truth[drawn])
            weights.append(np.full(len(drawn), len(all_of_it) / len(drawn) / truth.size))
    fitted = HistGradientBoostingClassifier(max_iter=60, random_state=0)
    fitted.fit(np.concatenate(features), np.concatenate(classes), np.concatenate(weights))
    return [(fitted.predict_proba(describe(patients[i].ct, values[i]))[:, 1] >= 0.4).reshape(values[i].shape) for i in test]


def describe(ct: np.ndarray, pet: np.ndarray) -> np.ndarray:
    """A row a voxel: the PET and its surroundings, the CT and its own."""
    blurred = [gaussian_filter(pet, sigma) for sigma in (1, 2.5, 5)]
    return np.stack([pet, *blurred, maximum_filter(pet, 5), ct, gaussian_filter(ct, 1.5)], axis=-1).reshape(-1, 7)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two masks; 1 where both are empty."""
    both = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / both if both else 1.0


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over patients."""
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(len(differences), size=len(differences))].mean() for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
