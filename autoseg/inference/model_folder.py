"""The model folder: everything that a prediction needs, in files that cannot run code.

    plan.json  dataset.json  fingerprint.json  fold_K/model.safetensors ...  manifest.json  README.md

Training adds folds one at a time, several of them at once; each finished fold is put in place under a lock, together with its manifest
entry. Opening checks the SHA-256 of the documents and of the weights of the folds that are asked for, whatever the other folds are doing.
Weights are tensors and a network is built from the plan's closed schema: nothing is unpickled and no class is looked up by name.
"""

from __future__ import annotations

import json
import logging
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from autoseg import files
from autoseg.errors import LockError, ModelError
from autoseg.inference import model_manifest as manifest
from autoseg.inference.model_archive import Unpacked, refuse_pickles, unpack
from autoseg.inference.model_card import model_card, read_figures
from planners.fingerprint import Fingerprint
from planners.plan import Configuration, Plan, PlanInvalid

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

PLAN_NAME, DATASET_NAME, FINGERPRINT_NAME, CARD_NAME = "plan.json", "dataset.json", "fingerprint.json", "README.md"
WEIGHTS_NAME = "model.safetensors"
DATASET_SCHEMA = "autoseg-model/1"
FOLD_PREFIX = "fold_"
LOCK_NAME = ".model-folder.lock"
LOCK_WAIT_SECONDS = 120.0

READ_WAIT_SECONDS = 10.0
"""How long a reader tries again while a fold is being put in place and the folder does not check."""


@dataclass(frozen=True)
class ModelDataset:
    """What the model was trained on and for, as its dataset.json says it.

    Attributes:
        name: the dataset's name.
        channels: channel names in the network's input order.
        labels: label name -> value, background included.
        file_ending: of the training images, such as ".nii.gz".
        configuration: the plan's configuration that the weights belong to.
        scheme: the fold scheme.
    """

    name: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    file_ending: str
    configuration: str
    scheme: str = "cv5"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with nnU-Net's key names where it has them."""
        return {
            "schema": DATASET_SCHEMA,
            "name": self.name,
            "channel_names": {str(index): name for index, name in enumerate(self.channels)},
            "labels": self.labels,
            "file_ending": self.file_ending,
            "configuration": self.configuration,
            "scheme": self.scheme,
        }

    @staticmethod
    def from_dict(document: Any, source: str = DATASET_NAME) -> ModelDataset:
        """The dataset in such a document.

        Raises:
            ModelError: a key is missing, unknown or of the wrong kind.
        """
        if not isinstance(document, dict) or document.get("schema") != DATASET_SCHEMA:
            raise ModelError(f"{source}: 'schema' must be '{DATASET_SCHEMA}'. This is not a model folder's dataset.json")
        try:
            channels = document["channel_names"]
            names = tuple(channels[str(index)] for index in range(len(channels)))
            labels = {str(name): int(value) for name, value in document["labels"].items()}
            texts = [document[key] for key in ("name", "file_ending", "configuration", "scheme")]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{source}: {type(error).__name__}: {error}: a key is missing or of the wrong kind") from None
        if not all(isinstance(text, str) for text in (*texts, *names)):
            raise ModelError(f"{source}: names must be text, found {[t for t in (*texts, *names) if not isinstance(t, str)]}")
        name, ending, configuration, scheme = texts
        return ModelDataset(name, names, labels, ending, configuration, scheme)


@dataclass(frozen=True)
class ModelFolder:
    """An opened, verified model folder.

    Attributes:
        folder: where it lies; for an archive, a temporary folder that goes with this object.
        plan, dataset, fingerprint: its documents; `fingerprint` is None where the folder has none (imported models).
        folds: names of the verified folds: "0", "1", ..., a centre, "all".
        hashes: fold -> SHA-256 of its weights.
    """

    folder: Path
    plan: Plan
    dataset: ModelDataset
    fingerprint: Fingerprint | None
    folds: tuple[str, ...]
    hashes: dict[str, str]
    _unpacked: Any = field(default=None, repr=False, compare=False)

    @property
    def configuration(self) -> Configuration:
        """The plan's configuration that the weights belong to."""
        return self.plan.configuration(self.dataset.configuration)

    @property
    def label_values(self) -> tuple[int, ...]:
        """The label value of each of the network's outputs."""
        return tuple(sorted(self.plan.labels.values()))

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
            return _open_folder(unpack(path, holder.folder, PLAN_NAME), str(path), wanted, holder)
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
        applied = _applied(self.plan, self.dataset.configuration) | {"inference": self.configuration.inference.model_dump(mode="json")}
        return files.sha256_json([applied, self.dataset.to_dict(), {fold: self.hashes[fold] for fold in chosen}])

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

        from autoseg.networks import build_network

        configuration, path = self.configuration, self.weights_path(fold)
        network = build_network(configuration.network, len(self.plan.channels), len(self.label_values), configuration.dimension)
        try:
            network.load_state_dict(load_file(path))
        except Exception as error:  # safetensors and load_state_dict raise many kinds, all about the file's content
            raise ModelError(f"{path}: these are not the weights of the plan's network: {_first_lines(str(error))}") from None
        layout = torch.channels_last_3d if configuration.dimension == 3 else torch.channels_last
        return network.to(device=device, memory_format=layout).eval().requires_grad_(False)


def write_model_folder(
    folder: str | Path,
    *,
    plan: Plan,
    dataset: ModelDataset,
    fingerprint: Fingerprint | None = None,
    weights: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
) -> Path:
    """Puts a model's documents and the weights of the given folds in place, with manifest and model card; returns the folder.

    All under the folder's lock, and so that readers find a whole model at every moment, also after a kill.

    Args:
        folder: created where missing; finished folds that are already there stay and are listed.
        plan, dataset, fingerprint: the documents; the fingerprint loses the names of cases and patients. Without one, one that is there
            stays.
        weights: fold name -> state dict.

    Raises:
        ModelError: `dataset.configuration` is not in the plan, or other folds are there already and need another plan (another network,
            grid, normalisation or label), so that they cannot share a folder.
    """
    folder = Path(folder)
    _check_configuration(plan, dataset, str(folder))
    contents = {PLAN_NAME: plan.to_json().encode(), DATASET_NAME: _json_bytes(dataset.to_dict())}
    if fingerprint is not None:
        contents[FINGERPRINT_NAME] = without_names(fingerprint).to_json().encode()
    # Weights come last: whoever finds them finds the plan that they belong to.
    contents |= {_weights_name(fold): _packed(tensors) for fold, tensors in (weights or {}).items()}
    with _lock(folder):
        _make_way(folder, plan, dataset.configuration, set(weights or {}))
        entries = manifest.settled(folder, _names(folder))
        manifest.replace_files(folder, entries, contents)
        _write_card(folder, plan, dataset)
    return folder


def remove_fold(folder: str | Path, fold: str) -> None:
    """Takes a fold's weights out of a model folder: first out of the manifest, then from the disk. No error if it has none."""
    folder = Path(folder)
    if not (folder / _weights_name(fold)).exists():
        return
    with _lock(folder):
        if (folder / files.MANIFEST_NAME).exists():
            manifest.write_entries(folder, manifest.settled(folder, [name for name in _names(folder) if name != _weights_name(fold)]))
        (folder / _weights_name(fold)).unlink(missing_ok=True)
        if (folder / PLAN_NAME).is_file() and (folder / DATASET_NAME).is_file():
            _write_card(folder, _read_plan(folder), _read_dataset(folder, str(folder)))


def without_names(fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint with numbers for the names of cases and patients: models are passed on, and names may tell who it was."""
    cases = (replace(case, case=f"{number:06d}", patient=f"{number:06d}") for number, case in enumerate(fingerprint.cases))
    return replace(fingerprint, cases=tuple(cases))


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes a state dict as one safetensors file, atomically; for a fold of a model folder use `write_model_folder`."""
    files.write_bytes(path, _packed(tensors))


def update_model_folder(folder: str | Path) -> tuple[str, ...]:
    """Rewrites manifest and model card after a fold was validated or removed; the names of the finished folds.

    Weights that the manifest does not list are measured and listed; entries of files that are gone go; entries of files that are there
    stay as they are. Safe beside other folds doing the same.

    Raises:
        ModelError: plan or dataset are missing or damaged.
    """
    folder = Path(folder)
    with _lock(folder):
        plan, dataset = _read_plan(folder), _read_dataset(folder, str(folder))
        manifest.write_entries(folder, manifest.settled(folder, _names(folder)))
        _write_card(folder, plan, dataset)
        return finished_folds(folder)


def finished_folds(folder: str | Path) -> tuple[str, ...]:
    """Names of the folds whose weights lie in the folder: numbers first, in order, then names."""
    return _in_order(path.parent.name.removeprefix(FOLD_PREFIX) for path in Path(folder).glob(_weights_name("*")) if path.is_file())


def _in_order(folds: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(folds), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)))


def _weights_name(fold: str) -> str:
    return f"{FOLD_PREFIX}{fold}/{WEIGHTS_NAME}"


def _fold_of(name: str) -> str:
    """The fold whose weights a listed name means; "" for any other file."""
    path = PurePosixPath(name)
    fold = path.parent.name.removeprefix(FOLD_PREFIX)
    return fold if name == _weights_name(fold) and "\\" not in name else ""


def _names(folder: Path) -> list[str]:
    """The files that the manifest lists: all that a prediction depends on. The card is for people and changes at other times."""
    documents = [name for name in (PLAN_NAME, DATASET_NAME, FINGERPRINT_NAME) if (folder / name).is_file()]
    return [*documents, *(_weights_name(fold) for fold in finished_folds(folder))]


def _packed(tensors: Mapping[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _json_bytes(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write_card(folder: Path, plan: Plan, dataset: ModelDataset) -> None:
    figures = {fold: read_figures(folder / f"{FOLD_PREFIX}{fold}") for fold in finished_folds(folder)}
    files.write_text(folder / CARD_NAME, model_card(plan, dataset, figures))


def _make_way(folder: Path, plan: Plan, configuration: str, replaced: set[str]) -> None:
    """Refuses a plan that other folds do not fit; weights of another plan that are about to be replaced go first, lest the two meet."""
    there = set(finished_folds(folder))
    if not there or not (folder / PLAN_NAME).is_file():
        return
    others = there - replaced
    # A caller that put its weights there itself has one fold among them that already goes with the new plan.
    if others and (replaced or len(others) > 1):
        _check_same_model(_read_plan(folder), plan, configuration, folder)
    elif replaced and _differs(folder, plan, configuration):
        manifest.write_entries(folder, manifest.settled(folder, [name for name in _names(folder) if not name.endswith(WEIGHTS_NAME)]))
        for fold in there:
            (folder / _weights_name(fold)).unlink(missing_ok=True)


def _differs(folder: Path, plan: Plan, configuration: str) -> bool:
    try:
        return bool(_different(_read_plan(folder), plan, configuration))
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
    before, after = (_applied(plan, configuration) for plan in (present, new))
    return sorted(name for name in after if before.get(name) != after[name])


def _applied(plan: Plan, configuration: str) -> dict[str, Any]:
    document = plan.configurations[configuration].model_dump(mode="json") if configuration in plan.configurations else {}
    for name in ("training", "augmentation", "inference", "batch_size", "median_shape"):
        document.pop(name, None)
    whole = ("channels", "labels", "orientation", "transpose", "file_ending")
    return document | {name: getattr(plan, name) for name in whole}


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """The folder's lock, waited for: another fold's update holds it for seconds at most."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = files.FoldLock(folder / LOCK_NAME)
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


def _change_marks(folder: Path) -> tuple[Any, ...]:
    """Differs before and after a change of the folder, and during it."""
    try:
        state = (folder / files.MANIFEST_NAME).stat()
    except OSError:
        return ((folder / LOCK_NAME).exists(),)
    return ((folder / LOCK_NAME).exists(), state.st_ino, state.st_mtime_ns, state.st_size)


def _open_folder(folder: Path, source: str, wanted: tuple[str, ...] | None, holder: Unpacked | None) -> ModelFolder:
    refuse_pickles(folder, source)
    missing = [name for name in (files.MANIFEST_NAME, PLAN_NAME, DATASET_NAME) if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{source}: is not a complete model folder: {', '.join(missing)} missing. Finished training writes it")
    entries = manifest.read_entries(folder)
    documents, problems = _documents(folder, entries)
    folds, hashes = (), {}
    if not problems:
        folds, hashes, problems = _verify_folds(folder, source, entries, wanted)
    if problems:
        raise ModelError(f"{source}: not what {files.MANIFEST_NAME} says: {'; '.join(problems)}. Copy the folder again")
    plan = _parse_plan(documents[PLAN_NAME], str(folder / PLAN_NAME))
    dataset = _parse_dataset(documents[DATASET_NAME], f"{source}: {DATASET_NAME}")
    _check_configuration(plan, dataset, source)
    fingerprint = None
    if FINGERPRINT_NAME in documents:
        try:
            fingerprint = Fingerprint.from_json(documents[FINGERPRINT_NAME].decode())
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{source}: {FINGERPRINT_NAME} does not fit its schema: {error}") from None
    return ModelFolder(folder, plan, dataset, fingerprint, folds, hashes, holder)


def _documents(folder: Path, entries: Mapping[str, manifest.Entry]) -> tuple[dict[str, bytes], list[str]]:
    """The documents' contents, and what is wrong with them. What is checked is what is used: each is read once."""
    found, problems = {}, []
    for name in (PLAN_NAME, DATASET_NAME, FINGERPRINT_NAME):
        optional = name == FINGERPRINT_NAME and (name not in entries or not manifest.is_held(entries[name]))
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            if not optional:
                problems.append(f"{name} cannot be read ({error.strerror})")
            continue
        if name == FINGERPRINT_NAME and name not in entries:
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
    held = {fold for name, entry in entries.items() if manifest.is_held(entry) and (fold := _fold_of(name))}
    known = _in_order({*there, *held})
    if not known:
        raise ModelError(f"{source}: no fold is finished yet. Train one with autoseg_train")
    folds, hashes, problems = _choose(wanted, known, source), {}, []
    for fold in folds:
        name = _weights_name(fold)
        hashes[fold], problem = manifest.damage(folder / name, entries.get(name))
        if problem:
            problems.append(f"{name} {problem}")
    return folds, hashes, problems


def _choose(wanted: tuple[str, ...] | None, finished: tuple[str, ...], source: str) -> tuple[str, ...]:
    if wanted is None:
        return finished
    missing = [fold for fold in wanted if fold not in finished]
    if missing or not wanted:
        raise ModelError(
            f"{source}: no finished fold {', '.join(missing) or '(none asked for)'}; finished: {', '.join(finished)}. "
            "Ask for those, or train the missing ones with autoseg_train"
        )
    return wanted


def _read_plan(folder: Path) -> Plan:
    try:
        return _parse_plan((folder / PLAN_NAME).read_bytes(), str(folder / PLAN_NAME))
    except OSError as error:
        raise ModelError(str(error)) from None


def _parse_plan(data: bytes, source: str) -> Plan:
    try:
        return Plan.from_json(data.decode(), source)
    except (PlanInvalid, UnicodeDecodeError) as error:
        raise ModelError(str(error)) from None


def _read_dataset(folder: Path, source: str) -> ModelDataset:
    return ModelDataset.from_dict(files.read_json(folder / DATASET_NAME, error=ModelError), f"{source}: {DATASET_NAME}")


def _parse_dataset(data: bytes, source: str) -> ModelDataset:
    try:
        return ModelDataset.from_dict(json.loads(data), source)
    except ValueError as error:
        raise ModelError(f"{source}: is no valid JSON: {error}") from None


def _check_configuration(plan: Plan, dataset: ModelDataset, source: str) -> None:
    if dataset.configuration not in plan.configurations:
        raise ModelError(
            f"{source}: {DATASET_NAME} names the configuration {dataset.configuration!r}, the plan has: {', '.join(plan.configurations)}"
        )
    if dataset.labels != plan.labels or dataset.channels != plan.channels:
        raise ModelError(f"{source}: labels or channels of {DATASET_NAME} and {PLAN_NAME} differ")


def _first_lines(text: str, count: int = 3) -> str:
    return "; ".join(line.strip() for line in text.splitlines()[:count])
