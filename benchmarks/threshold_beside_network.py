"""Out-of-fold Dice of a trained dataset, paired with the best single threshold of one channel fitted inside each training fold.

    python benchmarks/threshold_beside_network.py DATASET WORK [--channel 1] [--configuration 3d_fullres]

The threshold of a fold maximises the mean Dice of its training cases; it is then applied to the fold's held-out cases, as the network was.
Prints both means, the paired difference with a bootstrap interval over patients, and how many cases each wins.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.evaluation.overlap import dice
from autoseg.images import read_image, read_mask
from autoseg.inference.predict import own_model

THRESHOLDS = np.round(np.arange(0.25, 12.01, 0.05), 2)
RESAMPLES = 10_000


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset", type=Path)
    options.add_argument("work", type=Path)
    options.add_argument("--channel", type=int, default=1)
    options.add_argument("--configuration", default="3d_fullres")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    dataset = Dataset.open(chosen.dataset)
    workspace = Workspace.of(dataset.folder, chosen.work)
    model = own_model(dataset.folder, chosen.work, workspace.name, chosen.configuration)
    folds = json.loads(workspace.folds.read_text())["folds"]
    references = {case.name: read_mask(case.label).array > 0 for case in dataset.cases}
    by_threshold = {
        case.name: dice_of_thresholds(read_image(case.images[chosen.channel].path).array, references[case.name]) for case in dataset.cases
    }
    rows = []
    for name, fold in folds.items():
        best = int(np.mean([by_threshold[case] for case in fold["training"]], axis=0).argmax())
        for case in fold["validation"]:
            mask = read_mask(model / f"fold_{name}" / "masks" / f"{case}.nii.gz").array > 0
            network = dice(mask, references[case])
            rows.append((case, name, float(THRESHOLDS[best]), float(by_threshold[case][best]), float(network)))
    difference = np.array([row[4] - row[3] for row in rows])
    rng = np.random.default_rng(0)
    means = rng.choice(difference, (RESAMPLES, len(difference))).mean(1)
    overall = np.mean(list(by_threshold.values()), axis=0)
    result = {
        "cases": len(rows),
        "network": float(np.mean([row[4] for row in rows])),
        "threshold_in_fold": float(np.mean([row[3] for row in rows])),
        "threshold_on_all": [float(THRESHOLDS[overall.argmax()]), float(overall.max())],
        "difference": float(difference.mean()),
        "interval_95": np.percentile(means, [2.5, 97.5]).tolist(),
        "network_wins": int((difference > 0).sum()),
        "thresholds": {name: next(row[2] for row in rows if row[1] == name) for name in folds},
        "rows": rows,
    }
    low, high = result["interval_95"]
    print(
        f"{len(rows)} cases, out of fold: network {result['network']:.3f}, threshold {result['threshold_in_fold']:.3f}, fitted in each fold"
    )
    print(f"best single threshold on all cases: {result['threshold_on_all'][0]} with {result['threshold_on_all'][1]:.3f}")
    print(f"difference {result['difference']:+.3f}, 95 % bootstrap interval {low:+.3f} to {high:+.3f}")
    print(f"the network wins {result['network_wins']} of {len(rows)} cases")
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1))
    return 0


def dice_of_thresholds(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Dice of image >= t for every threshold t."""
    inside = np.sort(image[reference].astype(np.float64))
    everything = np.sort(image.astype(np.float64), axis=None)
    overlap = len(inside) - np.searchsorted(inside, THRESHOLDS, "left")
    predicted = everything.size - np.searchsorted(everything, THRESHOLDS, "left")
    return 2 * overlap / (predicted + len(inside))


if __name__ == "__main__":
    sys.exit(main())
