"""Writes a golden folder: python tests/golden/write_golden.py MODEL IMAGES OUT, with the release whose format is to be kept.

MODEL is a model folder of a tiny trained network (some ten thousand weights, features [4, 6, 8] or so), IMAGES a folder with one small
case that it was not trained on. What is written, and the rules, stand in README.md beside this file.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from autoseg.images import write_mask
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import write_model_folder
from autoseg.inference.predictor import Predictor
from planners.fingerprint import merge

CERTAIN = 0.05
"""How far each voxel's two largest probabilities must lie apart, so that rounding on another machine changes no label."""


def patch_logits(model: ModelFolder, fold: str) -> np.ndarray:
    """Every third logit of the network's answer to a patch of sin(0.1 k)."""
    configuration = model.configuration
    shape = (1, len(model.plan.channels), *configuration.patch_size)
    values = np.sin(0.1 * np.arange(np.prod(shape), dtype=np.float64)).astype(np.float32)
    with torch.inference_mode():
        logits = model.load_network(fold)(torch.from_numpy(values.reshape(shape)))
    return logits[0].numpy()[(slice(None), *(slice(None, None, 3),) * configuration.dimension)]


def main(source: Path, images: Path, out: Path) -> None:
    if out.exists():
        sys.exit(f"{out} is there already; golden folders are never replaced")
    opened = ModelFolder.open(source)
    fold = opened.folds[0]
    fingerprint = opened.fingerprint and merge(opened.fingerprint.channels, opened.fingerprint.labels, list(opened.fingerprint.cases[:2]))
    weights = {name: tensor.contiguous() for name, tensor in opened.load_network(fold).state_dict().items()}
    write_model_folder(out / "model", plan=opened.plan, dataset=opened.dataset, fingerprint=fingerprint, weights={fold: weights})
    shutil.copytree(images, out / "images")
    predictor = Predictor(out / "model", device="cpu", precision="fp32")
    found = predictor.predict([str(path) for path in sorted((out / "images").iterdir())], probabilities=True)
    largest, second = np.sort(found.probabilities.astype(np.float32), axis=0)[:-3:-1]
    if (largest - second).min() < CERTAIN or len(np.unique(found.mask)) < len(opened.plan.labels):
        shutil.rmtree(out)
        sys.exit(f"not certain enough ({(largest - second).min():.3f}), or a label is missing ({np.unique(found.mask)}): train it longer")
    write_mask(out / "mask.nii.gz", found.mask, found.geometry)
    np.save(out / "logits.npy", patch_logits(predictor.model, fold))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
