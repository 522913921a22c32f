"""The model folder: everything that a prediction needs, in files that cannot run code.

    plan.json  dataset.json  fingerprint.json  metadata.json  fold_K/model.safetensors ...  manifest.json  README.md
    previous_stage/  the same again, for the stage that a cascade continues from
    ensemble.json  member_1/ ...  where several models segment together, or rules follow: the other models

Opening checks the SHA-256 of the documents and of the weights of the folds that are asked for, whatever the other folds are doing.
Weights are tensors and a network is built from the plan's closed schema: nothing is unpickled and no class is looked up by name.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from autoseg import files
from autoseg.errors import FoldNotFinished, ModelError
from autoseg.inference import ensemble_document, model_metadata
from autoseg.inference import model_manifest as manifest
from autoseg.inference.ensemble_document import EnsembleDocument
from autoseg.inference.model_archive import Unpacked, refuse_pickles, unpack
from autoseg.inference.model_documents import (
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
    check_previous_stage,
    finished_folds,
    fold_of,
    in_order,
    parse_dataset,
    parse_plan,
    weights_name,
)
from planners.fingerprint import Fingerprint
from planners.partial_fingerprint import PartialFingerprint
from planners.plan import Configuration, Plan

if TYPE_CHECKING:
    import torch
    from torch import nn

Seen = TypeVar("Seen", Fingerprint, PartialFingerprint)

OPTIONAL = (FINGERPRINT_NAME, PARTIAL_NAME, model_metadata.NAME, ensemble_document.NAME)
"""Documents that not every model has: imported ones, those of early releases, those that segment alone."""

READ_WAIT_SECONDS = 10.0
"""How long a reader tries again while a fold is being put in place and the folder does not check."""


@dataclass(frozen=True)
class ModelFolder:
    """An opened, verified model folder.

    Attributes:
        folder: where it lies; for an archive, a temporary folder that goes with this object.
        plan, dataset, fingerprint: its documents; `fingerprint` is None where the folder has none (imported models).
        partial: what is known of the training cases of such a model; None where nothing is.
        folds: names of the verified folds: "0", "1", ..., a centre, "all".
        hashes: fold -> SHA-256 of its weights.
        metadata: what metadata.json says, None where the folder has none; nothing is computed from it.
        previous: the model whose masks this one continues from, with the same folds; None where it starts from the images.
        ensemble, others: what ensemble.json says, and the models that segment together with this one; its own masks do not depend on them.
    """

    folder: Path
    plan: Plan
    dataset: ModelDataset
    fingerprint: Fingerprint | None
    folds: tuple[str, ...]
    hashes: dict[str, str]
    metadata: dict[str, Any] | None = None
    previous: ModelFolder | None = None
    ensemble: EnsembleDocument | None = None
    others: tuple[ModelFolder, ...] = ()
    partial: PartialFingerprint | None = None
    _unpacked: Any = field(default=None, repr=False, compare=False)

    @property
    def configuration(self) -> Configuration:
        """The plan's configuration that the weights belong to."""
        return self.plan.configuration(self.dataset.configuration)

    @property
    def label_values(self) -> tuple[int, ...]:
        """The label value of each of the network's outputs."""
        return self.plan.label_scheme.painted_values

    @staticmethod
    def open(path: str | Path, folds: Iterable[str | int] | None = None) -> ModelFolder:
        """The model folder, or zip archive of one, at `path`, after its documents and the weights of the folds were found intact.

        Where a fold is being put in place meanwhile, this tries again for up to `READ_WAIT_SECONDS`.

        Args:
            folds: those that are opened; None means all finished ones. The files of other folds are not looked at.

        Raises:
            ModelError: nothing there, a file is missing or damaged (named), an unlisted weight file, a file that may be a pickle, a
                document that does not fit, or a fold that is not finished.
        """
        path = Path(path)
        wanted = None if folds is None else tuple(dict.fromkeys(str(fold) for fold in folds))
        if path.is_file() and zipfile.is_zipfile(path):
            holder = Unpacked()
            unpack(path, holder.folder)
            return _open_folder(holder.folder, str(path), wanted, holder)
        if not path.is_dir():
            raise ModelError(f"{path}: there is no model folder here, and no zip archive of one")
        deadline = time.monotonic() + READ_WAIT_SECONDS
        while True:
            before = _change_marks(path)
            try:
                return _open_folder(path, str(path), wanted, None)
            except ModelError:
                after = _change_marks(path)
                changing = before != after or (path / LOCK_NAME).exists()
                if not changing or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def choose_folds(self, folds: Iterable[str | int] | None) -> tuple[str, ...]:
        """The named folds, all opened ones for None.

        Raises:
            ModelError: one is not there; names those that are.
        """
        return _choose(None if folds is None else tuple(dict.fromkeys(str(fold) for fold in folds)), self.folds, str(self.folder))

    def key(self, folds: Iterable[str | int] | None = None) -> str:
        """A hash of all that masks of these folds depend on: how the plan is applied, the dataset, the weights; all opened folds for None.

        Other folds that finish, and settings that only training reads, leave it as it is.
        """
        chosen = self.choose_folds(folds)
        settings = applied(self.plan, self.dataset.configuration) | {"inference": self.configuration.inference.model_dump(mode="json")}
        parts: list[Any] = [settings, self.dataset.to_dict(), {fold: self.hashes[fold] for fold in chosen}]
        return files.sha256_json(parts if self.previous is None else [*parts, self.previous.key(chosen)])

    def weights_path(self, fold: str) -> Path:
        """The safetensors file of a fold."""
        return self.folder / f"{FOLD_PREFIX}{fold}" / WEIGHTS_NAME

    def load_network(self, fold: str, device: torch.device | str = "cpu") -> nn.Module:
        """The fold's network with its weights, in evaluation mode, laid out channels-last.

        Raises:
            ModelError: the weights are not those of the plan's network.
        """
        import torch
        from safetensors.torch import load_file

        from autoseg.networks import network_without_weights

        configuration, path = self.configuration, self.weights_path(fold)
        channels, heads = self.plan.input_channels(self.dataset.configuration), self.plan.label_scheme.heads
        # A plan from somewhere else may name any size: memory is taken for what the file holds, not for what the plan says.
        network = network_without_weights(configuration.network, channels, heads, configuration.dimension)
        try:
            weights = {name: tensor.to(torch.float32, copy=True) for name, tensor in load_file(path).items()}
            network.load_state_dict(weights, assign=True)
        except MemoryError:
            raise
        except Exception as error:  # safetensors and load_state_dict raise many kinds, all about the file's content
            raise ModelError(f"{path}: these are not the weights of the plan's network: {_first_lines(str(error))}") from None
        layout = torch.channels_last_3d if configuration.dimension == 3 else torch.channels_last
        return network.to(device=device, memory_format=layout).eval().requires_grad_(False)


def _change_marks(folder: Path) -> tuple[Any, ...]:
    """Differs before and after a change of the folder, and during it."""
    try:
        state = (folder / manifest.NAME).stat()
    except OSError:
        return ((folder / LOCK_NAME).exists(),)
    return ((folder / LOCK_NAME).exists(), state.st_ino, state.st_mtime_ns, state.st_size)


def _open_folder(folder: Path, source: str, wanted: tuple[str, ...] | None, holder: Unpacked | None) -> ModelFolder:
    refuse_pickles(folder, source)
    missing = [name for name in (manifest.NAME, PLAN_NAME, DATASET_NAME) if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{source}: is not a complete model folder: {', '.join(missing)} missing. Finished training writes it")
    entries = manifest.read_entries(folder)
    documents, problems = _documents(folder, entries)
    folds, hashes = (), {}
    if not problems:
        folds, hashes, problems = _verify_folds(folder, source, entries, wanted)
    if problems:
        raise ModelError(f"{source}: not what {manifest.NAME} says: {'; '.join(problems)}. Copy the folder again")
    plan = parse_plan(documents[PLAN_NAME], f"{source}: {PLAN_NAME}")
    dataset = parse_dataset(documents[DATASET_NAME], f"{source}: {DATASET_NAME}")
    check_configuration(plan, dataset, source)
    fingerprint = _seen(Fingerprint, documents, FINGERPRINT_NAME, plan, source)
    partial = _seen(PartialFingerprint, documents, PARTIAL_NAME, plan, source)
    metadata = None
    if model_metadata.NAME in documents:
        metadata = model_metadata.parse(documents[model_metadata.NAME], f"{source}: {model_metadata.NAME}")
    previous = _open_previous(folder, source, plan, dataset.configuration, folds)
    ensemble, others = _open_others(folder, source, documents, wanted)
    return ModelFolder(folder, plan, dataset, fingerprint, folds, hashes, metadata, previous, ensemble, others, partial, holder)


def _seen(kind: type[Seen], documents: Mapping[str, bytes], name: str, plan: Plan, source: str) -> Seen | None:
    """What a document tells of the training cases; None where it is not there."""
    if name not in documents:
        return None
    try:
        found = kind.from_json(documents[name].decode())
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{source}: {name} does not fit its schema: {error}") from None
    if found.channels != plan.channels:
        raise ModelError(f"{source}: channels of {name} and {PLAN_NAME} differ")
    return found


def _open_previous(folder: Path, source: str, plan: Plan, configuration: str, folds: tuple[str, ...]) -> ModelFolder | None:
    wanted = plan.configurations[configuration].previous_stage
    if wanted is None:
        return None
    nested, name = folder / PREVIOUS_NAME, f"{source}, {PREVIOUS_NAME}"
    if not nested.is_dir():
        raise ModelError(
            f"{source}: {configuration} continues from {wanted}, but the folder {PREVIOUS_NAME} is missing. Copy the folder again"
        )
    previous = _open_folder(nested, name, folds, None)
    check_previous_stage(plan, configuration, previous.plan, previous.dataset.configuration, name)
    return previous


def _open_others(
    folder: Path, source: str, documents: Mapping[str, bytes], wanted: tuple[str, ...] | None
) -> tuple[EnsembleDocument | None, tuple[ModelFolder, ...]]:
    """What ensemble.json says, and the models that it names, opened."""
    if ensemble_document.NAME not in documents:
        return None, ()
    found = ensemble_document.parse(documents[ensemble_document.NAME], f"{source}: {ensemble_document.NAME}")
    missing = [name for name in found.folders if not (folder / name).is_dir()]
    if missing:
        raise ModelError(
            f"{source}: {ensemble_document.NAME} names {len(found.members)} models, but {', '.join(missing)} missing. Copy it again"
        )
    return found, tuple(_open_folder(folder / name, f"{source}, {name}", wanted, None) for name in found.folders)


def _documents(folder: Path, entries: Mapping[str, manifest.Entry]) -> tuple[dict[str, bytes], list[str]]:
    """The documents' contents, and what is wrong with them. What is checked is what is used: each is read once."""
    found, problems = {}, []
    for name in (PLAN_NAME, DATASET_NAME, *OPTIONAL):
        optional = name in OPTIONAL and (name not in entries or not manifest.is_held(entries[name]))
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            if not optional:
                problems.append(f"{name} cannot be read ({error.strerror})")
            continue
        if name in OPTIONAL and name not in entries:
            continue
        _, problem = manifest.damage(folder / name, entries.get(name), data)
        if problem:
            problems.append(f"{name} {problem}")
        found[name] = data
    return found, problems


def _verify_folds(
    folder: Path, source: str, entries: Mapping[str, manifest.Entry], wanted: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, str], list[str]]:
    there = finished_folds(folder)
    held = {fold for name, entry in entries.items() if manifest.is_held(entry) and (fold := fold_of(name))}
    known = in_order({*there, *held})
    if not known:
        raise ModelError(f"{source}: no fold is finished yet. Train one with autoseg_train")
    folds, hashes, problems = _choose(wanted, known, source), {}, []
    for fold in folds:
        name = weights_name(fold)
        hashes[fold], problem = manifest.damage(folder / name, entries.get(name))
        if problem:
            problems.append(f"{name} {problem}")
    return folds, hashes, problems


def _choose(wanted: tuple[str, ...] | None, finished: tuple[str, ...], source: str) -> tuple[str, ...]:
    if wanted is None:
        return finished
    missing = [fold for fold in wanted if fold not in finished]
    if missing or not wanted:
        raise FoldNotFinished(
            f"{source}: no finished fold {', '.join(missing) or '(none asked for)'}; finished: {', '.join(finished)}. "
            "Ask for one of those; a fold that its scheme has can be trained with autoseg_train"
        )
    return wanted


def _first_lines(text: str, count: int = 3) -> str:
    return "; ".join(line.strip() for line in text.splitlines()[:count])
