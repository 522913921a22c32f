"""What a prediction writes and where: the mask, its probabilities, and never over an input."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case, split_ending
from autoseg.errors import AutosegError, DatasetError

PROBABILITIES_ENDING = ".probabilities.npy"


def probabilities_path(mask: Path) -> Path:
    """Where the probabilities that go with a mask file are written: CASE.probabilities.npy beside it."""
    return mask.with_name(split_ending(mask.name)[0] + PROBABILITIES_ENDING)


def output_files(mask: Path, save_probabilities: bool) -> list[Path]:
    """All files of a case's prediction."""
    return [mask, probabilities_path(mask)] if save_probabilities else [mask]


def refuse_to_overwrite(cases: Iterable[Case], outputs: Iterable[Path]) -> None:
    """Makes sure that no output would replace an image or a reference mask of the cases.

    Raises:
        DatasetError: one would, under whatever name (a link, other capitals on a disk that ignores them); names it.
    """
    inputs = [source.path for case in cases for source in case.images]
    inputs += [case.label for case in cases if case.label is not None]
    known = {identity: path for path in inputs for identity in _identities(path)}
    for output in outputs:
        hit = next((known[identity] for identity in _identities(output) if identity in known), None)
        if hit is not None:
            raise DatasetError(f"{output}: this mask would replace the input {hit}. Choose another output folder; nothing was written")


def refuse_foreign_masks(records: Path, outputs: Iterable[Path]) -> None:
    """Makes sure that no output would replace a file that no prediction wrote, such as a reference mask in labelsTs.

    Args:
        records: the folder's predictions.jsonl, which is there before the first mask is.

    Raises:
        DatasetError: an output lies there already, and the folder has no such file; names it.
    """
    if records.exists():
        return
    hit = next((output for output in outputs if output.exists()), None)
    if hit is not None:
        raise DatasetError(
            f"{hit}: lies there already, and as there is no {records.name} beside it, no prediction wrote it. "
            "Choose another output folder; nothing was written"
        )


def _identities(path: Path) -> list[Any]:
    """What tells that two paths lead to one file: the resolved path, and for an existing file its place on the disk."""
    try:
        state = path.stat()
    except OSError:
        return [path.resolve()]
    return [path.resolve(), *([(state.st_dev, state.st_ino)] if state.st_ino else [])]


def writable_folder(folder: Path) -> Path:
    """The folder, made where missing.

    Raises:
        AutosegError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutosegError(f"{folder}: cannot be made: {error.strerror}. Choose another output folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AutosegError(f"{folder}: cannot be written to. Choose another output folder")
    return folder
