"""Where a trained model lies: in nnU-Net's own folder, somewhere below a folder of results, or in a zip archive of either."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from autoseg import files
from autoseg.dataset.case import list_names
from autoseg.errors import ModelError
from autoseg.importers.nnunet.checkpoint import CHECKPOINTS
from autoseg.inference.model_archive import Unpacked, opened_archive, unpack_chosen

PLANS, DATASET, SUMMARY = "plans.json", "dataset.json", "validation/summary.json"
FINGERPRINT = "dataset_fingerprint.json"
"""Spacings and shapes of the training cases; nnU-Net's training puts it beside plans.json."""
FIRST_VERSION = "plans.pkl"
"""What nnU-Net v1 wrote in place of plans.json."""
ALL = "all"
DEPTH = 4
"""How far below the given folder models are looked for: results/DATASET/TRAINER__PLANS__CONFIGURATION, and one more for an archive's."""

_FOLD = re.compile(r"fold_(\d+|all)")


@dataclass(frozen=True)
class TrainedModel:
    """A folder that nnU-Net's trainer wrote.

    Attributes:
        folder: with plans.json, dataset.json and fold_*.
        shown: its place for people; in an archive, behind the archive's.
        checkpoint: which file of each fold is taken: "final", "best" or "latest".
    """

    folder: Path
    shown: str
    checkpoint: str
    _unpacked: Any = field(default=None, repr=False, compare=False)

    def document(self, name: str) -> Any:
        """The value of a JSON file of the model; ModelError where it is missing or broken."""
        if not (self.folder / name).is_file():
            raise ModelError(
                f"{self.shown}: {name} is missing. A model that nnU-Net v2 trained has {PLANS}, {DATASET} and fold_* beside it"
            )
        return files.read_json(self.folder / name, error=ModelError)

    def stage(self, configuration: str) -> TrainedModel:
        """The model of another configuration by the same trainer and plans, which lies beside this one; ModelError where it does not."""
        name = f"{self.folder.name.rpartition('__')[0]}__{configuration}"
        folder = self.folder.with_name(name)
        if not folder.is_dir():
            raise ModelError(f"{self.shown}: continues from the masks of {configuration}; that model, {name}, must lie beside it")
        return replace(self, folder=folder, shown=f"{self.shown.removesuffix(self.folder.name)}{name}")

    def checkpoint_path(self, fold: str) -> Path:
        """The checkpoint of a fold."""
        return self.folder / f"fold_{fold}" / CHECKPOINTS[self.checkpoint]

    def folds(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """The folds to import: those named; for None the numbered ones, or the one trained on all cases where there is no other.

        Raises:
            ModelError: one that is named, or any, is not there; tells what is.
        """
        finished = [fold for fold in self._begun() if self.checkpoint_path(fold).is_file()]
        name = CHECKPOINTS[self.checkpoint]
        if not finished:
            found = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob("fold_*/checkpoint_*.pth"))
            raise ModelError(f"{self.shown}: no fold has {name}; found: {list_names(found) or 'no checkpoint'}. Choose with --checkpoint")
        if wanted is None:
            return tuple(fold for fold in finished if fold != ALL) or tuple(finished)
        if missing := [fold for fold in wanted if fold not in finished]:
            raise ModelError(f"{self.shown}: no {name} in fold {', '.join(missing)}; finished: {', '.join(finished)}")
        return tuple(dict.fromkeys(wanted))

    def unfinished(self) -> dict[str, tuple[str, ...]]:
        """Numbered fold that has no such checkpoint -> the checkpoints that it has."""
        begun = {fold: self.checkpoint_path(fold) for fold in self._begun() if fold != ALL}
        return {
            fold: tuple(name for name in CHECKPOINTS.values() if path.with_name(name).is_file())
            for fold, path in begun.items()
            if not path.is_file()
        }

    def _begun(self) -> list[str]:
        there = [path.name.removeprefix("fold_") for path in self.folder.glob("fold_*") if _FOLD.fullmatch(path.name)]
        return sorted(there, key=lambda fold: (fold == ALL, len(fold), fold))


def find_model(source: Path, *, model: str | None = None, checkpoint: str = "final") -> TrainedModel:
    """The trained model at a place.

    Args:
        source: the model's folder, one above it, or a zip archive as nnU-Net exports it or of such a folder.
        model: the folder's name (TRAINER__PLANS__CONFIGURATION) or the end of its path, where several are there.
        checkpoint: a key of `CHECKPOINTS`.

    Raises:
        ModelError: nothing there; an archive that points out of itself, holds links, is too large or damaged; no model, or several; one
            that nnU-Net v1 trained.
    """
    holder = None
    root = source
    if source.is_file() and zipfile.is_zipfile(source):
        with opened_archive(source) as opened:
            names_in_archive = opened.namelist()
        if any(PurePosixPath(name).name == FIRST_VERSION for name in names_in_archive):
            _refuse_first_version(source)
        holder = Unpacked()
        root = holder.folder
        unpack_chosen(source, root, lambda name: _is_wanted(name, checkpoint))
    elif not source.is_dir():
        raise ModelError(f"{source}: there is no folder here, and no zip archive")
    found = _model_folders(root)
    if not found:
        raise ModelError(
            f"{source}: no folder of a model that nnU-Net v2 trained lies here: one with {PLANS} and fold_0, fold_1, ... beside it, "
            "usually nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION"
        )
    names = {folder: folder.relative_to(root).as_posix() for folder in found}
    chosen = [folder for folder in found if model is None or _ends_with(names[folder], model)]
    if len(chosen) != 1:
        problem = f"holds {len(found)} models" if model is None else f"{len(chosen)} models are called {model!r}"
        raise ModelError(f"{source}: {problem}; name one with --model: {list_names(sorted(names.values()))}")
    folder = chosen[0]
    shown = str(source) if names[folder] == "." else f"{source}/{names[folder]}"
    if (folder / FIRST_VERSION).is_file():
        _refuse_first_version(shown)
    return TrainedModel(folder, shown, checkpoint, holder)


def _refuse_first_version(shown: str | Path) -> NoReturn:
    raise ModelError(
        f"{shown}: is a model of nnU-Net v1: {FIRST_VERSION} is a pickle, which is not opened, and its networks are other ones. Models "
        f"that nnU-Net v2 trained ({PLANS}, checkpoint_final.pth) can be imported. Train this one anew"
    )


def _model_folders(root: Path) -> list[Path]:
    """Folders with plans and folds, at most `DEPTH` below; nothing inside one is looked at."""
    level, found = [root], []
    for _ in range(DEPTH + 1):
        deeper = []
        for folder in level:
            folds = [path for path in folder.glob("fold_*") if _FOLD.fullmatch(path.name) and path.is_dir()]
            if folds:
                found.append(folder)
            else:
                deeper += _subfolders(folder)
        level = deeper
    return found


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:  # somebody else's folder beside the model's
        return []


def _is_wanted(name: PurePosixPath, checkpoint: str) -> bool:
    in_fold = any(_FOLD.fullmatch(part) for part in name.parts[:-1])
    if not in_fold:
        return name.name in (PLANS, DATASET, FINGERPRINT)
    return name.name == CHECKPOINTS[checkpoint] or "/".join(name.parts[-2:]) == SUMMARY


def _ends_with(path: str, wanted: str) -> bool:
    parts, ending = PurePosixPath(path).parts, PurePosixPath(wanted).parts
    return bool(ending) and parts[-len(ending) :] == ending
