"""The model folder: everything that a prediction needs, in files that cannot run code.

    plan.json  dataset.json  fingerprint.json  fold_K/model.safetensors ...  manifest.json  README.md

Training adds folds one at a time, several of them at once; each finished fold rewrites manifest and model card under a lock. Opening
checks every file's SHA-256. Weights are tensors and a network is built from the plan's closed schema: nothing is unpickled and no class is
looked up by name.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import shutil
import stat
import tempfile
import time
import weakref
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from autoseg import files
from autoseg.errors import LockError, ModelError
from planners.fingerprint import Fingerprint
from planners.plan import Configuration, Plan, PlanInvalid

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

PLAN_NAME, DATASET_NAME, FINGERPRINT_NAME, CARD_NAME = "plan.json", "dataset.json", "fingerprint.json", "README.md"
WEIGHTS_NAME = "model.safetensors"
SUMMARY_NAME = "summary.json"
DATASET_SCHEMA = "autoseg-model/1"
FOLD_PREFIX = "fold_"
LOCK_WAIT_SECONDS = 120.0

PICKLED = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npz", ".dill", ".model"}
"""Endings of formats that are, or may hold, pickles."""

MAX_UNPACKED_BYTES = 20 << 30


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
        folds: names of the finished folds: "0", "1", ..., a centre, "all".
        key: hash of the verified manifest: changes when anything in the model does.
    """

    folder: Path
    plan: Plan
    dataset: ModelDataset
    fingerprint: Fingerprint | None
    folds: tuple[str, ...]
    key: str
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
    def open(path: str | Path) -> ModelFolder:
        """The model folder, or zip archive of one, at `path`, after every listed file was found intact.

        Raises:
            ModelError: nothing there, a file is missing or damaged (named), an unlisted weight file, a file that may be a pickle, a
                document that does not fit, or no finished fold.
        """
        path = Path(path)
        if path.is_file() and zipfile.is_zipfile(path):
            target = tempfile.mkdtemp(prefix="autoseg-model-")
            holder = _Unpacked(target)
            return _open_folder(_unpack(path, Path(target)), str(path), holder)
        if not path.is_dir():
            raise ModelError(f"{path}: there is no model folder here, and no zip archive of one")
        return _open_folder(path, str(path), None)

    def choose_folds(self, folds: Iterable[str | int] | None) -> tuple[str, ...]:
        """The named folds, all finished ones for None.

        Raises:
            ModelError: one is not finished; names those that are.
        """
        if folds is None:
            return self.folds
        wanted = tuple(dict.fromkeys(str(fold) for fold in folds))
        missing = [fold for fold in wanted if fold not in self.folds]
        if missing or not wanted:
            raise ModelError(
                f"{self.folder}: no finished fold {', '.join(missing) or '(none asked for)'}; finished: {', '.join(self.folds)}. "
                "Ask for those, or train the missing ones with autoseg_train"
            )
        return wanted

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


class _Unpacked:
    """A temporary folder that is removed when the object that holds this one goes."""

    def __init__(self, folder: str):
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)


def write_model_folder(
    folder: str | Path,
    *,
    plan: Plan,
    dataset: ModelDataset,
    fingerprint: Fingerprint | None = None,
    weights: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
) -> Path:
    """Writes a model folder's documents, the weights of the given folds, manifest and model card; returns the folder.

    Args:
        folder: created where missing; finished folds that are already there stay and are listed.
        plan, dataset, fingerprint: the documents; the fingerprint loses the names of cases and patients.
        weights: fold name -> state dict. Training writes its folds itself and calls `update_model_folder`.

    Raises:
        ModelError: `dataset.configuration` is not in the plan, or several folds are there already and need another plan (another network,
            grid, normalisation or label), so that the two cannot share a folder.
    """
    folder = Path(folder)
    _check_configuration(plan, dataset, str(folder))
    with _lock(folder):
        if (folder / PLAN_NAME).is_file() and len(finished_folds(folder)) > 1:
            _check_same_model(_read_plan(folder), plan, dataset.configuration, folder)
        files.write_text(folder / PLAN_NAME, plan.to_json())
        files.write_json(folder / DATASET_NAME, dataset.to_dict())
        if fingerprint is not None:
            files.write_text(folder / FINGERPRINT_NAME, without_names(fingerprint).to_json())
        for fold, tensors in (weights or {}).items():
            write_weights(folder / f"{FOLD_PREFIX}{fold}" / WEIGHTS_NAME, tensors)
        _describe(folder)
    return folder


def without_names(fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint with numbers for the names of cases and patients: models are passed on, and names may tell who it was."""
    cases = (replace(case, case=f"{number:06d}", patient=f"{number:06d}") for number, case in enumerate(fingerprint.cases))
    return replace(fingerprint, cases=tuple(cases))


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes a state dict as one safetensors file, atomically."""
    from safetensors.torch import save

    files.write_bytes(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def update_model_folder(folder: str | Path) -> tuple[str, ...]:
    """Rewrites manifest and model card after a fold finished or was validated; the names of the finished folds.

    Safe beside other folds doing the same.
    """
    folder = Path(folder)
    with _lock(folder):
        return _describe(folder)


def finished_folds(folder: str | Path) -> tuple[str, ...]:
    """Names of the folds whose weights lie in the folder: numbers first, in order, then names."""
    names = [p.parent.name.removeprefix(FOLD_PREFIX) for p in Path(folder).glob(f"{FOLD_PREFIX}*/{WEIGHTS_NAME}") if p.is_file()]
    return tuple(sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)))


def _describe(folder: Path) -> tuple[str, ...]:
    folds = finished_folds(folder)
    plan = _read_plan(folder)
    dataset = ModelDataset.from_dict(files.read_json(folder / DATASET_NAME, error=ModelError), str(folder / DATASET_NAME))
    files.write_text(folder / CARD_NAME, model_card(plan, dataset, {fold: _figures(folder / f"{FOLD_PREFIX}{fold}") for fold in folds}))
    names = [PLAN_NAME, DATASET_NAME, CARD_NAME, *(f"{FOLD_PREFIX}{fold}/{WEIGHTS_NAME}" for fold in folds)]
    if (folder / FINGERPRINT_NAME).is_file():
        names.append(FINGERPRINT_NAME)
    files.write_manifest(folder, names)
    return folds


def _check_same_model(present: Plan, new: Plan, configuration: str, folder: Path) -> None:
    """Folds of one folder are applied with one plan; how long and on what augmentation each was trained may differ."""
    before, after = (_applied(plan, configuration) for plan in (present, new))
    different = sorted(name for name in after if before.get(name) != after[name])
    if different:
        raise ModelError(
            f"{folder}: the folds that are there were trained with another {', '.join(different)}. Train all folds with the same plan, or "
            "this one under another plan name (--name), or delete the other fold folders"
        )


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
    lock = files.FoldLock(folder / ".model-folder.lock")
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


def _open_folder(folder: Path, source: str, holder: _Unpacked | None) -> ModelFolder:
    _refuse_pickles(folder, source)
    missing = [name for name in (files.MANIFEST_NAME, PLAN_NAME, DATASET_NAME) if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{source}: is not a complete model folder: {', '.join(missing)} missing. Finished training writes it")
    listed = set(files.verify_manifest(folder))
    folds = finished_folds(folder)
    needed = [PLAN_NAME, DATASET_NAME, *(f"{FOLD_PREFIX}{fold}/{WEIGHTS_NAME}" for fold in folds)]
    if unlisted := [name for name in needed if name not in listed]:
        raise ModelError(
            f"{source}: {files.MANIFEST_NAME} does not list {', '.join(unlisted)}: nothing says that these are intact. Copy it again"
        )
    plan = _read_plan(folder)
    dataset = ModelDataset.from_dict(files.read_json(folder / DATASET_NAME, error=ModelError), f"{source}: {DATASET_NAME}")
    _check_configuration(plan, dataset, source)
    if not folds:
        raise ModelError(f"{source}: no fold is finished yet. Train one with autoseg_train")
    fingerprint = None
    if FINGERPRINT_NAME in listed:
        try:
            fingerprint = Fingerprint.from_json((folder / FINGERPRINT_NAME).read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{source}: {FINGERPRINT_NAME} does not fit its schema: {error}") from None
    key = files.sha256_json(files.read_json(folder / files.MANIFEST_NAME, error=ModelError))
    return ModelFolder(folder, plan, dataset, fingerprint, folds, key, holder)


def _read_plan(folder: Path) -> Plan:
    try:
        return Plan.from_json((folder / PLAN_NAME).read_text(encoding="utf-8"), str(folder / PLAN_NAME))
    except (PlanInvalid, OSError, UnicodeDecodeError) as error:
        raise ModelError(str(error)) from None


def _check_configuration(plan: Plan, dataset: ModelDataset, source: str) -> None:
    if dataset.configuration not in plan.configurations:
        raise ModelError(
            f"{source}: {DATASET_NAME} names the configuration {dataset.configuration!r}, the plan has: {', '.join(plan.configurations)}"
        )
    if dataset.labels != plan.labels or dataset.channels != plan.channels:
        raise ModelError(f"{source}: labels or channels of {DATASET_NAME} and {PLAN_NAME} differ")


def _refuse_pickles(folder: Path, source: str) -> None:
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in PICKLED]
    if found:
        raise ModelError(
            f"{source}: holds {', '.join(sorted(found)[:5])}: a pickled file can run any code when it is opened, so such a folder is "
            "refused. Models are shared as safetensors; remove these files if you know where they come from"
        )


def _unpack(archive: Path, target: Path) -> Path:
    """Unpacks an archive that somebody else made: only plain files below the target, and no more bytes than announced."""
    with zipfile.ZipFile(archive) as opened:
        entries = [entry for entry in opened.infolist() if not entry.is_dir()]
        for entry in entries:
            name = PurePosixPath(entry.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
                raise ModelError(f"{archive}: holds {entry.filename!r}, which points out of it; refused before anything was written")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise ModelError(f"{archive}: holds the link {entry.filename!r}; refused before anything was written")
            if name.suffix.lower() in PICKLED:
                raise ModelError(f"{archive}: holds {entry.filename!r}: pickled files can run code and are refused")
        total = sum(entry.file_size for entry in entries)
        if total > min(MAX_UNPACKED_BYTES, shutil.disk_usage(target).free):
            raise ModelError(f"{archive}: would unpack to {total / 2**30:.1f} GiB; more than a model has, or than is free in {target}")
        try:
            opened.extractall(target, members=entries)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise ModelError(f"{archive}: cannot be unpacked: {error}") from None
    plans = sorted(target.rglob(PLAN_NAME), key=lambda p: len(p.parts))
    return plans[0].parent if plans else target


def _figures(fold_folder: Path) -> dict[str, float] | None:
    """Mean Dice of the fold's own validation, overall and a label, where its summary is there."""
    try:
        figures = json.loads((fold_folder / SUMMARY_NAME).read_text(encoding="utf-8"))["dice"]
        return {str(name): float(value) for name, value in figures.items() if isinstance(value, int | float)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def model_card(plan: Plan, dataset: ModelDataset, figures: Mapping[str, Mapping[str, float] | None]) -> str:
    """The model card, Markdown: what the model is for and not for, its input, its labels, each fold's validation figures.

    Args:
        figures: finished fold -> {"mean" or label: Dice}, or None where no summary is there.
    """
    configuration = plan.configuration(dataset.configuration)
    foreground = [name for name, value in dataset.labels.items() if value > 0]
    lines = [
        f"# {dataset.name}: {', '.join(foreground)}",
        "",
        "**Research use only. Not a medical device: not for diagnosis, treatment or any clinical decision.**",
        "",
        f"- Input: {len(dataset.channels)} channel(s), in this order: {', '.join(dataset.channels)}",
        f"- Labels: {', '.join(f'{value} {name}' for name, value in sorted(dataset.labels.items(), key=lambda item: item[1]))}",
        f"- Plan: {plan.name} (preset {plan.preset}), configuration {dataset.configuration}, orientation {plan.orientation}",
        f"- Grid: spacing {_row(configuration.spacing)} mm, patch {_row(configuration.patch_size)} voxels (network axis order)",
        f"- Network: {configuration.network.kind}, {len(configuration.network.features)} stages",
        f"- Fold scheme: {dataset.scheme}; finished folds: {', '.join(figures) or 'none'}",
        f"- Written with: {', '.join(f'{name} {version}' for name, version in _versions())}",
        "",
        "## Validation of each fold (Dice on the cases that the fold did not train on)",
        "",
        *_table(figures),
        "",
        "Figures hold for images like the training ones. On a scanner, protocol or hospital that is not among them, measure first.",
        "",
        "Use: `autoseg_predict -m THIS_FOLDER -i IMAGES -o MASKS`. `manifest.json` holds every file's SHA-256, which opening checks.",
        "",
    ]
    return "\n".join(lines)


def _table(figures: Mapping[str, Mapping[str, float] | None]) -> list[str]:
    measured = {fold: scores for fold, scores in figures.items() if scores}
    if not measured:
        return ["No fold has a validation summary."]
    columns = list(dict.fromkeys(name for scores in measured.values() for name in scores))
    rows = [f"| fold | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for fold, scores in measured.items():
        cells = [f"{scores[name]:.3f}" if name in scores else "n/a" for name in columns]
        rows.append(f"| {fold} | {' | '.join(cells)} |")
    return rows


def _versions() -> list[tuple[str, str]]:
    found = [("Python", platform.python_version())]
    for package in ("autoseg", "torch", "numpy", "SimpleITK"):
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _row(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _first_lines(text: str, count: int = 3) -> str:
    return "; ".join(line.strip() for line in text.splitlines()[:count])
