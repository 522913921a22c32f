"""Writing model folders: each finished fold is put in place under a lock, together with its manifest entry.

Training adds folds one at a time, several of them at once; a reader finds a whole model at every moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import files
from autoseg.errors import LockError, ModelError
from autoseg.inference import ensemble_document, model_metadata
from autoseg.inference import model_manifest as manifest
from autoseg.inference.model_card import FoldFigures, model_card, read_figures
from autoseg.inference.model_documents import (
    CARD_NAME,
    DATASET_NAME,
    FINGERPRINT_NAME,
    FOLD_PREFIX,
    LOCK_NAME,
    PARTIAL_NAME,
    PLAN_NAME,
    PREVIOUS_NAME,
    WEIGHTS_NAME,
    ModelDataset,
    applied,
    check_configuration,
    finished_folds,
    in_order,
    read_dataset,
    read_plan,
    weights_name,
)
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.trained_on import TrainedOn, read_trained_on
from autoseg.locks import FoldLock
from planners.fingerprint import Fingerprint
from planners.partial_fingerprint import PartialFingerprint
from planners.plan import Plan

if TYPE_CHECKING:
    import torch

LOCK_WAIT_SECONDS = 120.0


def write_model_folder(
    folder: str | Path,
    *,
    plan: Plan,
    dataset: ModelDataset,
    fingerprint: Fingerprint | None = None,
    partial: PartialFingerprint | None = None,
    weights: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    trained_on: Mapping[str, TrainedOn | None] | None = None,
) -> Path:
    """Puts a model's documents and the weights of the given folds in place, with manifest and model card; returns the folder.

    All under the folder's lock, and so that readers find a whole model at every moment, also after a kill.

    Args:
        folder: created where missing; finished folds that are already there stay and are listed.
        plan, dataset, fingerprint: the documents; the fingerprint loses the names of cases and patients. Without one, one that is there
            stays.
        partial: what is known of the training cases where there is no fingerprint.
        weights: fold name -> state dict.
        trained_on: fold name -> the images that its weights saw; a fold that is not in it does not tell.

    Raises:
        ModelError: `dataset.configuration` is not in the plan, or other folds are there already and need another plan (another network,
            grid, normalisation or label), so that they cannot share a folder.
    """
    folder = Path(folder)
    check_configuration(plan, dataset, str(folder))
    contents = {PLAN_NAME: plan.to_json().encode(), DATASET_NAME: json_bytes(dataset.to_dict())}
    if fingerprint is not None:
        contents[FINGERPRINT_NAME] = without_names(fingerprint).to_json().encode()
    if partial is not None:
        contents[PARTIAL_NAME] = partial.to_json().encode()
    # Weights come last: whoever finds them finds the plan that they belong to.
    seen = trained_on or {}
    contents |= {weights_name(fold): pack_weights(tensors, seen.get(fold)) for fold, tensors in (weights or {}).items()}
    with _lock(folder):
        _make_way(folder, plan, dataset.configuration, set(weights or {}))
        entries = manifest.settled(folder, _names(folder))
        contents = {model_metadata.NAME: _metadata(folder, plan, dataset, set(finished_folds(folder)) - set(weights or {})), **contents}
        manifest.replace_files(folder, entries, contents)
        _write_card(folder, plan, dataset)
    return folder


def write_previous_stage(folder: str | Path, previous: ModelFolder) -> None:
    """Puts a copy of the model that `folder` continues from inside it, with the folds that are opened; what is there already stays.

    Raises:
        ModelError: other folds of another plan are there.
    """
    from safetensors.torch import load_file

    nested = Path(folder) / PREVIOUS_NAME
    try:
        there = ModelFolder.open(nested, previous.folds).key(previous.folds) if nested.is_dir() else ""
    except ModelError:  # incomplete or damaged: written anew
        there = ""
    if there == previous.key(previous.folds):
        return
    if previous.previous is not None:
        write_previous_stage(nested, previous.previous)
    paths = {fold: previous.weights_path(fold) for fold in previous.folds}
    write_model_folder(
        nested,
        plan=previous.plan,
        dataset=previous.dataset,
        fingerprint=previous.fingerprint,
        partial=previous.partial,
        weights={fold: load_file(path) for fold, path in paths.items()},
        trained_on={fold: read_trained_on(path) for fold, path in paths.items()},
    )


def remove_fold(folder: str | Path, fold: str) -> None:
    """Takes a fold's weights out of a model folder: first out of the manifest, then from the disk. No error if it has none."""
    folder = Path(folder)
    if not (folder / weights_name(fold)).exists():
        return
    with _lock(folder):
        if (folder / manifest.NAME).exists():
            manifest.write_entries(folder, manifest.settled(folder, [name for name in _names(folder) if name != weights_name(fold)]))
        (folder / weights_name(fold)).unlink(missing_ok=True)
        if (folder / PLAN_NAME).is_file() and (folder / DATASET_NAME).is_file():
            _describe(folder, read_plan(folder), read_dataset(folder, str(folder)))


def update_model_folder(folder: str | Path) -> tuple[str, ...]:
    """Rewrites manifest, metadata and model card after a fold was validated or removed; the names of the finished folds.

    Weights that the manifest does not list are measured and listed; entries of files that are gone go; entries of files that are there
    stay as they are. Safe beside other folds doing the same.

    Raises:
        ModelError: plan or dataset are missing or damaged.
    """
    folder = Path(folder)
    with _lock(folder):
        _describe(folder, read_plan(folder), read_dataset(folder, str(folder)))
        return finished_folds(folder)


def without_names(fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint with numbers for the names of cases and patients: models are passed on, and names may tell who it was."""
    cases = (replace(case, case=f"{number:06d}", patient=f"{number:06d}") for number, case in enumerate(fingerprint.cases))
    return replace(fingerprint, cases=tuple(cases))


def _names(folder: Path) -> list[str]:
    """The files that the manifest lists: the documents and the weights. The card is for people and changes at other times."""
    documents = [
        name
        for name in (PLAN_NAME, DATASET_NAME, FINGERPRINT_NAME, PARTIAL_NAME, model_metadata.NAME, ensemble_document.NAME)
        if (folder / name).is_file()
    ]
    return [*documents, *(weights_name(fold) for fold in finished_folds(folder))]


def pack_weights(tensors: Mapping[str, torch.Tensor], trained_on: TrainedOn | None) -> bytes:
    """A safetensors file's bytes: the weights, and what they were trained on."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata=trained_on.metadata() if trained_on else None)


def json_bytes(document: Any) -> bytes:
    """A document as the files of a model folder hold it."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def fold_figures(folder: Path, known: Mapping[str, Any], folds: Iterable[str]) -> dict[str, FoldFigures | None]:
    """Each fold's validation: from its summary, else as the metadata `known` tell it."""
    return {fold: read_figures(folder / f"{FOLD_PREFIX}{fold}") or model_metadata.known_figures(known, fold) for fold in folds}


def _metadata(folder: Path, plan: Plan, dataset: ModelDataset, folds: Iterable[str]) -> bytes:
    known = model_metadata.read_known(folder)
    return json_bytes(model_metadata.metadata(plan, dataset, fold_figures(folder, known, in_order(folds)), known))


def _describe(folder: Path, plan: Plan, dataset: ModelDataset) -> None:
    """Rewrites what is told about the folds that are there: manifest, metadata, card."""
    document = _metadata(folder, plan, dataset, finished_folds(folder))
    manifest.replace_files(folder, manifest.settled(folder, _names(folder)), {model_metadata.NAME: document})
    _write_card(folder, plan, dataset)


def _write_card(folder: Path, plan: Plan, dataset: ModelDataset) -> None:
    figures = fold_figures(folder, model_metadata.read_known(folder), finished_folds(folder))
    files.write_text(folder / CARD_NAME, model_card(plan, dataset, figures))


def _make_way(folder: Path, plan: Plan, configuration: str, replaced: set[str]) -> None:
    """Refuses a plan that other folds do not fit; weights of another plan that are about to be replaced go first, lest the two meet."""
    there = set(finished_folds(folder))
    if not there or not (folder / PLAN_NAME).is_file():
        return
    others = there - replaced
    # A caller that put its weights there itself has one fold among them that already goes with the new plan.
    if others and (replaced or len(others) > 1):
        _check_same_model(read_plan(folder), plan, configuration, folder)
    elif replaced and _differs(folder, plan, configuration):
        manifest.write_entries(folder, manifest.settled(folder, [name for name in _names(folder) if not name.endswith(WEIGHTS_NAME)]))
        for fold in there:
            (folder / weights_name(fold)).unlink(missing_ok=True)


def _differs(folder: Path, plan: Plan, configuration: str) -> bool:
    try:
        return bool(_different(read_plan(folder), plan, configuration))
    except ModelError:  # it is damaged, and about to be replaced
        return True


def _check_same_model(present: Plan, new: Plan, configuration: str, folder: Path) -> None:
    """Folds of one folder are applied with one plan; how long and on what augmentation each was trained may differ."""
    if different := _different(present, new, configuration):
        raise ModelError(
            f"{folder}: the folds that are there were trained with another {', '.join(different)}. Train all folds with the same plan, or "
            "this one under another plan name (--name), or delete the other fold folders"
        )


def _different(present: Plan, new: Plan, configuration: str) -> list[str]:
    before, after = (applied(plan, configuration) for plan in (present, new))
    return sorted(name for name in before | after if before.get(name) != after.get(name))


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """The folder's lock, waited for: another fold's update holds it for seconds at most."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FoldLock(folder / LOCK_NAME)
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            lock.acquire()
            break
        except LockError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()
