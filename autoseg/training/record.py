"""run.json: what a fold's weights depend on. A run goes on only as what it was begun as."""

from __future__ import annotations

import contextlib
import functools
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.errors import TrainingError
from planners.labels import LabelScheme
from planners.plan import Configuration, Sampling

logger = logging.getLogger(__name__)

SCHEMA = "autoseg-run/1"
NAME = "run.json"

NOT_PART_OF_THE_WEIGHTS = ("epochs", "validation_iterations", "seed", "accumulation", "compile", "deterministic")
"""Fields of `training` left out of the settings' hash: epochs may grow, the seed is compared by itself; micro-batches and what kernels
compute only change the rounding; validation only tells."""

ADDED_LATER: dict[tuple[str, ...], Any] = {
    ("training", "ema"): None,
    ("training", "early_stopping"): None,
    ("training", "sampling"): Sampling().model_dump(mode="json"),
    ("training", "schedule", "warmup_epochs"): 0,
    ("training", "previous_masks"): "out_of_fold",
    ("augmentation", "previous_stage"): None,
    **{("augmentation", name, "channels"): [] for name in ("noise", "blur", "brightness", "contrast", "gamma")},
}
"""Fields that the first plans did not have -> the value that changes nothing: left out of the hash there, so that older runs go on."""


def recorded_settings(folder: Path) -> dict[str, Any]:
    """The plan fields that the run in this folder was begun with in place of the plan's; empty where there is no run."""
    return dict(read_run(folder / NAME)["settings"]) if (folder / NAME).exists() else {}


def read_run(path: Path) -> dict[str, Any]:
    """The document of a run.json.

    Raises:
        TrainingError: it is damaged, or of another release.
    """
    document = files.read_json(path, error=TrainingError)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise TrainingError(
            f"{path}: schema is {schema!r}, this release reads {SCHEMA!r}. Train with the release that began the run, or start over with "
            "--restart"
        )
    return document


def identity(spec: Configuration, scheme: LabelScheme, cases: Mapping[str, str], prepared: str) -> dict[str, Any]:
    """All that the weights depend on, but for the number of epochs.

    Args:
        spec: the configuration with the run's settings.
        scheme: what the dataset's labels mean.
        cases: training case -> hash of its files.
        prepared: hash of the plan fields that shape prepared cases.
    """
    document = spec.model_dump(mode="json", exclude={"inference": True, "pretraining": True, "training": set(NOT_PART_OF_THE_WEIGHTS)})
    for (*parents, name), without in ADDED_LATER.items():
        part = functools.reduce(dict.__getitem__, parents, document)
        if part is not None and part[name] == without:
            del part[name]
    return {
        "settings": files.sha256_json(document),
        "seed": spec.training.seed,
        "training cases": files.sha256_json(dict(sorted(cases.items()))),
        "labels": files.sha256_json(scheme.meaning),
        "preparation": prepared,
    }


class RunRecord:
    """The run in a fold's folder, read or begun.

    Args:
        folder: the fold's.
        identity: from `identity`.
        epochs: how many are asked for.
        settings: plan fields replaced for this run, recorded.
        facts: device, precision and threads of a run that begins now.

    Raises:
        TrainingError: the run there was begun as something else, or is longer than what is asked for.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], epochs: int, settings: Mapping[str, Any], facts: Mapping[str, Any]):
        self.path = folder / NAME
        self.epochs = epochs
        self.outdated = ""
        if self.path.exists():
            self.document = read_run(self.path)
            self._compare(identity)
            if not self.outdated:
                self._change_epochs()
        else:
            self.document = {"schema": SCHEMA, "identity": dict(identity), "finished_epochs": 0, **facts, "versions": software_versions()}
        if not self.outdated:
            self.update(epochs=epochs, settings=dict(settings))

    def __getitem__(self, key: str) -> Any:
        return self.document[key]

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained, or training came to an early stop."""
        return bool(self.outdated) or self._stopped_early or self.document["finished_epochs"] >= self.epochs

    @property
    def _stopped_early(self) -> bool:
        return bool(self.document.get("early_stopping", {}).get("stopped"))

    def validated(self, held_out: Mapping[str, str]) -> bool:
        """Whether these held-out cases (name -> hash of their files) were predicted and scored with the final weights."""
        return self.document.get("validated") == {"epochs": self.document["finished_epochs"], "cases": dict(held_out)}

    def update(self, **fields: Any) -> None:
        """Sets fields and writes the record."""
        self.document |= fields
        files.write_json(self.path, self.document)

    def _compare(self, identity: Mapping[str, Any]) -> None:
        before = self.document["identity"]
        changed = ", ".join(key for key in identity if before.get(key) != identity[key])
        if not changed:
            return
        if self.document["finished_epochs"] < self.document["epochs"] and not self._stopped_early:
            raise TrainingError(
                f"{self.path.parent}: was begun with other {changed}. Give the same settings to go on, or --restart to start over"
            )
        self.outdated = changed
        logger.warning("%s is finished, but was trained with other %s; train it anew with --restart", self.path.parent.name, changed)

    def _change_epochs(self) -> None:
        before, done = self.document["epochs"], self.document["finished_epochs"]
        if self.epochs == before or self._stopped_early:
            return
        if done > self.epochs:
            raise TrainingError(
                f"{self.path.parent.name} is already trained for {done} epochs; --epochs {self.epochs} asks for fewer. "
                "Use --restart to start over"
            )
        logger.warning(
            "%s: %d epochs now, %d before: the learning-rate schedule is recomputed over %d epochs from where training stands",
            self.path.parent.name,
            self.epochs,
            before,
            self.epochs,
        )


def require_same_siblings(folder: Path, identity: Mapping[str, Any]) -> None:
    """Checks that a fold may join the others of its model folder: folds are ensembled, so they must share the network and its settings.

    Raises:
        TrainingError: another fold has other settings.
    """
    for other in sorted(folder.parent.glob(f"fold_*/{NAME}")):
        if other.parent != folder and files.read_json(other)["identity"]["settings"] != identity["settings"]:
            raise TrainingError(
                f"{other.parent.name} was trained with other settings than {folder.name} is asked for, and a model's folds are ensembled. "
                f"Give the same --set values, plan under another --name, or train all folds anew after removing {folder.parent}"
            )


def software_versions() -> dict[str, str]:
    """Versions of what takes part in a result."""
    found = {"python": platform.python_version()}
    for package in ("autoseg", "torch", "numpy", "SimpleITK"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
