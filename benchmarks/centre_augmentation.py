"""Augmentation widened by how far the centres lie apart, beside nnU-Net's published ranges: mean Dice at a hospital that was not seen.

    python benchmarks/centre_augmentation.py FOLDER [--settings development|confirmation] [--seeds 1 2 3] [--epochs 8] [--iterations 50]
                                             [--held-out CENTRE ...] [--device auto] [--json FILE]

For every seed and every hospital: plan on the other hospitals' cases alone, train one small network for each of the two augmentations, with
the same seed, and predict the hospital that was left out. What is done is kept in FOLDER and not done again, so that several processes with
different --seeds or --held-out may share it; each ends with the summary of all that is there. The difference is paired by seed and case;
its interval resamples the pairs of networks (seed x hospital), and within each the cases.

A patient is a body with lesions that are dense in CT and bright in PET, among look-alikes that are only one of both. Scanners
differ in spacing, blur, noise, gain and tone. There are two sets of hospitals: the rules were made on `development`; `confirmation` is for
one run after they were frozen.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from autoseg import files
from autoseg.evaluation.overlap import dice
from autoseg.images import Geometry, read_mask, write_image, write_mask
from autoseg.importers.shapes import Waves, ellipsoid_distance, gap, soft_inside
from autoseg.inference.predict import predict_folder
from autoseg.planning.planning import plan
from autoseg.training.segmentation import train

FIELD_OF_VIEW = (96.0, 112.0, 112.0)
"""mm, (z, y, x)."""

CHANNELS, LABELS = {"0": "CT", "1": "PET"}, {"background": 0, "lesion": 1}

TISSUE, FAT, DENSE = 40.0, -90.0, 130.0
"""HU."""


@dataclass(frozen=True)
class Scanner:
    """How a hospital images.

    Attributes:
        name: as in cases.csv.
        spacing: mm, (z, y, x).
        ct_blur, pet_blur: standard deviation, mm.
        ct_noise: HU; pet_noise: standard deviation at an uptake of 1, it grows with the square root.
        ct_gain: factor on HU (tube voltage and contrast medium change how far tissues lie apart).
        pet_tone: exponent on uptake (reconstructions differ in how much they recover of small bright structures).
    """

    name: str
    spacing: tuple[float, float, float]
    ct_blur: float
    ct_noise: float
    ct_gain: float
    pet_blur: float
    pet_noise: float
    pet_tone: float


@dataclass(frozen=True)
class Settings:
    """One set of hospitals. `patients`: of each; where a hospital takes part, the first `tested` are kept out of training."""

    scanners: tuple[Scanner, ...]
    patients: int = 8
    tested: int = 2


SETTINGS = {
    "development": Settings(
        (
            Scanner("ASH", (3.0, 3.0, 3.0), ct_blur=0.0, ct_noise=15.0, ct_gain=1.0, pet_blur=2.0, pet_noise=0.10, pet_tone=1.0),
            Scanner("BAY", (4.0, 3.5, 3.5), ct_blur=1.5, ct_noise=30.0, ct_gain=1.15, pet_blur=3.0, pet_noise=0.20, pet_tone=0.8),
            Scanner("COL", (5.0, 3.0, 3.0), ct_blur=0.0, ct_noise=60.0, ct_gain=0.8, pet_blur=2.5, pet_noise=0.30, pet_tone=1.2),
            Scanner("DAL", (3.5, 4.5, 4.5), ct_blur=3.0, ct_noise=20.0, ct_gain=1.3, pet_blur=4.0, pet_noise=0.15, pet_tone=0.7),
        )
    ),
    "confirmation": Settings(
        (
            Scanner("ELM", (4.5, 2.8, 2.8), ct_blur=0.5, ct_noise=45.0, ct_gain=1.2, pet_blur=2.2, pet_noise=0.12, pet_tone=0.9),
            Scanner("FEN", (3.2, 3.2, 3.2), ct_blur=2.0, ct_noise=12.0, ct_gain=0.85, pet_blur=3.6, pet_noise=0.25, pet_tone=1.25),
            Scanner("GLE", (3.8, 4.2, 4.2), ct_blur=0.0, ct_noise=70.0, ct_gain=1.0, pet_blur=3.0, pet_noise=0.18, pet_tone=0.65),
            Scanner("HAY", (5.5, 3.6, 3.6), ct_blur=1.0, ct_noise=25.0, ct_gain=1.4, pet_blur=2.6, pet_noise=0.35, pet_tone=1.0),
            Scanner("ISL", (3.0, 3.8, 3.8), ct_blur=3.2, ct_noise=35.0, ct_gain=0.75, pet_blur=4.2, pet_noise=0.10, pet_tone=1.1),
        )
    ),
}


def write_dataset(folder: Path, settings: Settings, seed: int, held_out: str) -> Path:
    """Writes a dataset without one hospital, whose patients go to imagesTs and labelsTs, and its folds; returns the folds' file.

    A patient depends on seed and hospital alone, not on which hospital is held out. The one fold trains on the hospitals' patients but the
    `tested` ones, which are held out from training too: they tell how well a hospital does that was seen.
    """
    training, tested, rows = [], [], []
    for number, scanner in enumerate(settings.scanners):
        for patient in range(settings.patients):
            case = f"{scanner.name.lower()}-{patient:02d}"
            unseen = scanner.name == held_out
            _write_case(folder, "Ts" if unseen else "Tr", case, scanner, (seed, 100 * number + patient))
            rows.append((case, case, scanner.name))
            if not unseen:
                (tested if patient < settings.tested else training).append(case)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("case", "patient", "centre"), *rows])
    files.write_text(folder / "cases.csv", table.getvalue())
    description = {"channel_names": CHANNELS, "labels": LABELS, "numTraining": len(training) + len(tested), "file_ending": ".nii.gz"}
    files.write_json(folder / "dataset.json", description)
    folds = folder / "one_fold.json"
    files.write_json(folds, [{"train": training, "val": tested}])
    return folds


def _write_case(folder: Path, kind: str, case: str, scanner: Scanner, seeds: tuple[int, int]) -> None:
    shape = tuple(round(extent / s) for extent, s in zip(FIELD_OF_VIEW, scanner.spacing, strict=True))
    rng = np.random.default_rng(seeds)
    ct, pet, labels = ideal_patient(rng, shape, scanner.spacing)
    origin = tuple(float(-s * (n - 1) / 2) for n, s in zip(shape[::-1], scanner.spacing[::-1], strict=True))
    geometry = Geometry(shape=shape, spacing=scanner.spacing, origin=origin, direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    for channel, image in enumerate(scan(ct, pet, scanner, rng)):
        path = folder / f"images{kind}" / f"{case}_{channel:04d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, image, geometry)
    (folder / f"labels{kind}").mkdir(parents=True, exist_ok=True)
    write_mask(folder / f"labels{kind}" / f"{case}.nii.gz", labels, geometry)


def ideal_patient(rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT (HU), uptake (1 in tissue) and labels of a new patient before any scanner: (z, y, x) on a grid around the body's middle."""
    grid = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    edge = float(np.mean(spacing)) / 2
    scale = rng.uniform(0.92, 1.05)
    share = soft_inside(ellipsoid_distance(tuple(grid), np.array([80.0, 50.0, 50.0]) * scale), edge)
    ct, pet = FAT + share * (TISSUE - FAT), 0.2 + 0.8 * share
    labels = np.zeros(shape, np.uint8)
    placed: list[tuple[np.ndarray, np.ndarray]] = []
    for dense, bright in [(True, True)] * int(rng.integers(2, 5)) + [(False, True)] * 3 + [(True, False)] * 2:
        spot = _place(rng, placed, scale)
        if spot is None:
            continue
        position, radii = spot
        distance = ellipsoid_distance(tuple(g - p for g, p in zip(grid, position, strict=True)), radii)
        share = soft_inside(distance + Waves.draw(rng, 3, (20.0, 40.0), 0.8).at(*grid), edge)
        density, uptake = rng.uniform(0.8, 1.2) * (DENSE if dense else TISSUE), rng.uniform(3.5, 8.0) if bright else rng.uniform(0.8, 1.3)
        ct, pet = ct + share * (density - ct), pet + share * (uptake - pet)
        if dense and bright:
            labels[share >= 0.5] = 1
    return ct, pet, labels


def _place(rng: np.random.Generator, placed: list[tuple[np.ndarray, np.ndarray]], scale: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Middle and radii (mm) of a further ellipsoid that keeps 4 mm from those placed, which it then is; None where there is no room."""
    for _ in range(200):
        radii = rng.uniform(8.0, 14.0) * rng.uniform(0.85, 1.15, 3)
        position = rng.uniform(-1, 1, 3) * (np.array([38.0, 42.0, 42.0]) * scale - radii)
        if np.hypot(*position[1:]) < 46 * scale - radii.max() and all(gap(position, radii, *other) > 4 for other in placed):
            placed.append((position, radii))
            return position, radii
    return None


def scan(ct: np.ndarray, pet: np.ndarray, scanner: Scanner, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """CT (int16) and PET (float32) of an ideal patient: blurred, then the scanner's gain and tone, then noise."""
    ct, pet = (gaussian_filter(image, [mm / s for s in scanner.spacing]) for image, mm in ((ct, scanner.ct_blur), (pet, scanner.pet_blur)))
    ct = ct * scanner.ct_gain + scanner.ct_noise * rng.normal(size=ct.shape)
    pet = np.maximum(pet, 0) ** scanner.pet_tone
    pet = np.maximum(pet + scanner.pet_noise * np.sqrt(np.maximum(pet, 0.05)) * rng.normal(size=pet.shape), 0)
    return np.clip(np.rint(ct), -1024, 3071).astype(np.int16), pet.astype(np.float32)


ARMS = ("default", "centres")
FEATURES = (8, 16, 32, 64, 64)
MOMENTUM = 0.9
"""The published 0.99 takes longer to start than these networks are trained."""

RESAMPLES = 10_000


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--settings", choices=SETTINGS, default="development")
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--held-out", nargs="+")
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--iterations", type=int, default=50)
    options.add_argument("--device", default="auto")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    names = [scanner.name for scanner in SETTINGS[chosen.settings].scanners]
    for seed in chosen.seeds:
        for held_out in chosen.held_out or names:
            run(chosen, seed, held_out)
    result = summary(list(_results(chosen.folder / chosen.settings)))
    print(text(result))
    if chosen.json:
        files.write_json(chosen.json, result)
    return 0


def run(chosen: argparse.Namespace, seed: int, held_out: str) -> None:
    """Both networks of one seed and held-out hospital; leaves one JSON file each."""
    folder = chosen.folder / chosen.settings / f"seed-{seed}" / held_out
    for arm in ARMS:
        path = folder / f"{arm}.json"
        if path.exists():
            continue
        started = time.monotonic()
        dataset = folder / arm
        shutil.rmtree(dataset, ignore_errors=True)
        dataset.mkdir(parents=True)
        folds = write_dataset(dataset, SETTINGS[chosen.settings], seed, held_out)
        planned = plan(dataset, preset="laptop", folds=str(folds), augmentation=arm, workers=0).plan
        spec = planned.configurations["3d_fullres"]
        run_settings = {
            "network.features": list(FEATURES[: len(spec.network.features)]),
            "training.validation_iterations": 1,
            "training.epochs": chosen.epochs,
            "training.iterations": chosen.iterations,
            "training.optimiser.momentum": MOMENTUM,
        }
        done = train(dataset, 0, settings=run_settings, seed=seed, workers=0, threads=1, device=chosen.device)
        predict_folder([dataset / "imagesTs"], dataset / "predicted", dataset=dataset, workers=0, device=chosen.device)
        told = {
            "seed": seed,
            "held_out": held_out,
            "arm": arm,
            "unseen": _scores(dataset / "predicted", dataset / "labelsTs"),
            "seen": _scores(done.folder / "masks", dataset / "labelsTr"),
            "augmentation": spec.augmentation.model_dump(mode="json"),
            "reasons": {key: why for key, why in planned.reasons.items() if "augmentation" in key and not key.startswith("2d")},
            "run": run_settings,
            "minutes": (time.monotonic() - started) / 60,
        }
        files.write_json(path, told)
        shutil.rmtree(dataset)
        print(
            f"seed {seed}, {held_out} held out, {arm}: {_mean_dice(told, 'unseen'):.3f} unseen, {_mean_dice(told, 'seen'):.3f} seen",
            flush=True,
        )


def _scores(predicted: Path, references: Path) -> dict[str, dict[str, float]]:
    """Case -> label -> Dice."""
    found = {}
    for path in sorted(predicted.glob("*.nii.gz")):
        mask, reference = read_mask(path).array, read_mask(references / path.name).array
        found[path.name.removesuffix(".nii.gz")] = {n: float(dice(mask == v, reference == v)) for n, v in LABELS.items() if v}
    return found


def _results(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("seed-*/*/*.json")):
        yield json.loads(path.read_text())


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The paired difference over all seeds and hospitals for which both networks are done."""
    by_key = {(told["seed"], told["held_out"], told["arm"]): told for told in results}
    pairs = sorted({key[:2] for key in by_key if all((*key[:2], arm) in by_key for arm in ARMS)})
    found: dict[str, Any] = {"pairs": pairs}
    for region in ("unseen", "seen"):
        groups = [_differences(*(by_key[(*pair, arm)][region] for arm in ARMS)) for pair in pairs]
        means = {arm: [_mean_dice(by_key[(*pair, arm)], region) for pair in pairs] for arm in ARMS}
        found[region] = {"means": means, "difference": None, "interval_95": None, "better_pairs": None}
        if groups:
            difference = float(np.mean(np.concatenate(groups)))
            found[region] |= {"difference": difference, "interval_95": interval(groups), "better_pairs": sum(g.mean() > 0 for g in groups)}
    return found


def _differences(default: dict[str, dict[str, float]], centres: dict[str, dict[str, float]]) -> np.ndarray:
    """Centre-aware minus default, one value a case (mean over labels)."""
    if set(default) != set(centres):
        sys.exit(f"the two networks were tested on different cases: {sorted(set(default) ^ set(centres))}")
    return np.array([statistics.fmean(centres[case].values()) - statistics.fmean(default[case].values()) for case in sorted(default)])


def interval(groups: Sequence[np.ndarray], seed: int = 0) -> list[float]:
    """The 95 % bootstrap interval of the mean over all cases: groups drawn with replacement, then cases inside each."""
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = [groups[index] for index in rng.integers(len(groups), size=len(groups))]
        means.append(np.concatenate([group[rng.integers(len(group), size=len(group))] for group in drawn]).mean())
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def _mean_dice(told: dict[str, Any], region: str) -> float:
    return statistics.fmean(statistics.fmean(labels.values()) for labels in told[region].values())


def text(result: dict[str, Any]) -> str:
    """A line a pair of networks, then the differences."""
    lines = ["seed  held out  unseen: default  centres  seen: default  centres"]
    for place, (seed, held_out) in enumerate(result["pairs"]):
        cells = [result[region]["means"][arm][place] for region in ("unseen", "seen") for arm in ARMS]
        lines.append(f"{seed:4d}  {held_out:8s}  {cells[0]:15.3f}  {cells[1]:7.3f}  {cells[2]:13.3f}  {cells[3]:7.3f}")
    for region in ("unseen", "seen"):
        told = result[region]
        if told["difference"] is not None:
            low, high = told["interval_95"]
            means = ", ".join(f"{arm} {statistics.fmean(told['means'][arm]):.3f}" for arm in ARMS)
            lines.append(
                f"{region} hospitals: {means}; centres - default {told['difference']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}; "
                f"better in {told['better_pairs']} of {len(result['pairs'])} pairs"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
