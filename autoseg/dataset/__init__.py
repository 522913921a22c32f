"""The dataset folder in nnU-Net's and MSD's layout, cases.csv, fold schemes, and the checks of what is inside."""

from autoseg.dataset.case import FILE_ENDINGS, Case, Source
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.fold_file import load_folds
from autoseg.dataset.fold_schemes import make_folds
from autoseg.dataset.folds import Fold, Folds
from autoseg.dataset.prediction import find_cases

__all__ = [
    "FILE_ENDINGS",
    "Case",
    "CaseFacts",
    "Dataset",
    "Fold",
    "Folds",
    "Source",
    "check_case",
    "check_labels",
    "find_cases",
    "load_folds",
    "make_folds",
    "presence",
]

_LATER = {"CaseFacts", "check_case", "check_labels", "presence"}


def __getattr__(name: str) -> object:
    # These read images; a command's --help must not wait for what reads images.
    if name in _LATER:
        from autoseg.dataset import checks

        return getattr(checks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
