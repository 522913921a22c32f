"""autoseg: segmentation of 3-D medical images that plans itself. For research use only; not a medical device.

The commands' Python faces, loaded when first used:

- `Dataset.open(folder)`: a dataset in nnU-Net's raw layout or MSD's.
- `plan(folder, ...)`: check, fingerprint, plan, folds, prepared cases.
- `train(folder, fold, ...)`: train a fold and predict its held-out cases.
- `pretrain(folder, ...)`: a network learns from images without labels, for `train(..., init=...)` to begin from.
- `choose(folder, ...)`: which trained configuration, or which two together, segment new images.
- `Predictor(model, ...)`: loaded once; takes arrays with spacing, SimpleITK images or paths.
- `evaluate(reference, prediction, ...)`: scores of masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.choosing.choose import choose
    from autoseg.dataset.dataset import Dataset
    from autoseg.evaluation.evaluate import evaluate
    from autoseg.inference.predictor import Predictor
    from autoseg.planning.planning import plan
    from autoseg.training.pretraining import pretrain
    from autoseg.training.segmentation import train

__all__ = ["Dataset", "Predictor", "choose", "evaluate", "plan", "pretrain", "train"]

_HOME = {
    "Dataset": "autoseg.dataset.dataset",
    "Predictor": "autoseg.inference.predictor",
    "choose": "autoseg.choosing.choose",
    "evaluate": "autoseg.evaluation.evaluate",
    "plan": "autoseg.planning.planning",
    "pretrain": "autoseg.training.pretraining",
    "train": "autoseg.training.segmentation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'autoseg' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
