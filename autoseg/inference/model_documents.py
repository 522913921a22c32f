"""The documents of a model folder and the names of its files: what readers and writers of models share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from autoseg import files
from autoseg.dataset.case import FILE_ENDINGS
from autoseg.errors import ModelError
from planners.labels import LabelScheme, Values, scheme_problems
from planners.plan import Plan, PlanInvalid

PLAN_NAME, DATASET_NAME, FINGERPRINT_NAME, CARD_NAME = "plan.json", "dataset.json", "fingerprint.json", "README.md"
PARTIAL_NAME = "partial_fingerprint.json"
"""What is known of the training cases of an imported model, which has no fingerprint."""
WEIGHTS_NAME = "model.safetensors"
DATASET_SCHEMA = "autoseg-model/1"
FOLD_PREFIX = "fold_"
PREVIOUS_NAME = "previous_stage"
"""The folder of the model that a cascade's stage continues from, inside that stage's."""
LOCK_NAME = ".model-folder.lock"


@dataclass(frozen=True)
class ModelDataset:
    """What the model was trained on and for, as its dataset.json says it.

    Attributes:
        name: the dataset's name.
        channels: channel names in the network's input order.
        labels: label name -> value, or a region's values; background and ignore included.
        file_ending: of the training images, such as ".nii.gz".
        configuration: the plan's configuration that the weights belong to.
        scheme: the fold scheme.
        origin: where an imported model came from and how it was made there, for people; "" for one that was trained here.
        region_order: the value that each region is painted with; empty without regions.
    """

    name: str
    channels: tuple[str, ...]
    labels: dict[str, Values]
    file_ending: str
    configuration: str
    scheme: str = "cv5"
    origin: str = ""
    region_order: tuple[int, ...] = ()

    @property
    def label_scheme(self) -> LabelScheme:
        """What the labels mean to the network."""
        return LabelScheme(self.labels, self.region_order)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with nnU-Net's key names where it has them."""
        return {
            "schema": DATASET_SCHEMA,
            "name": self.name,
            "channel_names": {str(index): name for index, name in enumerate(self.channels)},
            "labels": {name: value if isinstance(value, int) else list(value) for name, value in self.labels.items()},
            **({"regions_class_order": list(self.region_order)} if self.region_order else {}),
            "file_ending": self.file_ending,
            "configuration": self.configuration,
            "scheme": self.scheme,
            **({"origin": self.origin} if self.origin else {}),
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
            labels = {str(name): _values(value) for name, value in document["labels"].items()}
            order = tuple(int(value) for value in document.get("regions_class_order", ()))
            texts = [document[key] for key in ("name", "file_ending", "configuration", "scheme")]
            texts.append(document.get("origin", ""))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{source}: {type(error).__name__}: {error}: a key is missing or of the wrong kind") from None
        if not all(isinstance(text, str) for text in (*texts, *names)):
            raise ModelError(f"{source}: names must be text, found {[t for t in (*texts, *names) if not isinstance(t, str)]}")
        if problems := scheme_problems(labels, order):
            raise ModelError(f"{source}: {'; '.join(problems)}")
        name, ending, configuration, scheme, origin = texts
        return ModelDataset(name, names, labels, ending, configuration, scheme, origin, order)


def _values(value: Any) -> Values:
    return tuple(int(item) for item in value) if isinstance(value, list) else int(value)


def finished_folds(folder: str | Path) -> tuple[str, ...]:
    """Names of the folds whose weights lie in the folder: numbers first, in order, then names."""
    return in_order(path.parent.name.removeprefix(FOLD_PREFIX) for path in Path(folder).glob(weights_name("*")) if path.is_file())


def in_order(folds: Iterable[str]) -> tuple[str, ...]:
    """Fold names without repeats: numbers first, in order, then names."""
    return tuple(sorted(set(folds), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)))


def weights_name(fold: str) -> str:
    """Where a fold's weights lie in a model folder, as the manifest names it."""
    return f"{FOLD_PREFIX}{fold}/{WEIGHTS_NAME}"


def fold_of(name: str) -> str:
    """The fold whose weights a listed name means; "" for any other file."""
    path = PurePosixPath(name)
    fold = path.parent.name.removeprefix(FOLD_PREFIX)
    return fold if name == weights_name(fold) and "\\" not in name else ""


def applied(plan: Plan, configuration: str) -> dict[str, Any]:
    """What of a plan decides how its weights are applied: folds that share a folder agree in it, field by field."""
    document = plan.configurations[configuration].model_dump(mode="json") if configuration in plan.configurations else {}
    for name in ("training", "pretraining", "augmentation", "inference", "batch_size", "median_shape"):
        document.pop(name, None)
    whole = ("channels", "labels", "orientation", "transpose", "file_ending")
    found = document | {name: getattr(plan, name) for name in whole}
    if plan.label_scheme.has_regions:
        found["region_order"] = plan.label_scheme.meaning
    if plan.region_of_interest is not None:
        found["region_of_interest"] = plan.region_of_interest.model_dump(mode="json")
    return found


def read_plan(folder: Path) -> Plan:
    """The plan of a model folder; ModelError where it is missing or not valid."""
    try:
        return parse_plan((folder / PLAN_NAME).read_bytes(), str(folder / PLAN_NAME))
    except OSError as error:
        raise ModelError(str(error)) from None


def parse_plan(data: bytes, source: str) -> Plan:
    """The plan in a file's bytes; ModelError where it is not valid."""
    try:
        return Plan.from_json(data.decode(), source)
    except PlanInvalid as error:
        raise ModelError(str(error)) from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{source}: is no text in UTF-8: {error}") from None


def read_dataset(folder: Path, source: str) -> ModelDataset:
    """The dataset.json of a model folder; ModelError where it is missing or not valid."""
    return ModelDataset.from_dict(files.read_json(folder / DATASET_NAME, error=ModelError), f"{source}: {DATASET_NAME}")


def parse_dataset(data: bytes, source: str) -> ModelDataset:
    """The dataset.json in a file's bytes; ModelError where it is not valid."""
    try:
        return ModelDataset.from_dict(json.loads(data), source)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source}: is no valid JSON: {error}") from None


def check_configuration(plan: Plan, dataset: ModelDataset, source: str) -> None:
    """ModelError where the plan and the dataset of a model do not go together."""
    if dataset.configuration not in plan.configurations:
        raise ModelError(
            f"{source}: {DATASET_NAME} names the configuration {dataset.configuration!r}, the plan has: {', '.join(plan.configurations)}"
        )
    endings = {PLAN_NAME: plan.file_ending, DATASET_NAME: dataset.file_ending}
    if strange := [name for name, ending in endings.items() if ending not in FILE_ENDINGS]:  # it becomes a part of the masks' paths
        raise ModelError(
            f"{source}: {strange[0]}: file_ending is {endings[strange[0]]!r}; masks can be written as {', '.join(FILE_ENDINGS)}"
        )
    if dataset.label_scheme.meaning != plan.label_scheme.meaning or dataset.channels != plan.channels:
        raise ModelError(f"{source}: labels or channels of {DATASET_NAME} and {PLAN_NAME} differ")


def check_previous_stage(plan: Plan, configuration: str, previous: Plan, previous_configuration: str, source: str) -> None:
    """ModelError where a model cannot continue from the masks of another; `source` names the other."""
    wanted = plan.configurations[configuration].previous_stage
    if previous_configuration != wanted:
        raise ModelError(f"{source}: is a model of {previous_configuration}; {configuration} continues from {wanted}")
    different = [name for name in ("channels", "labels", "orientation") if getattr(plan, name) != getattr(previous, name)]
    if different:
        raise ModelError(
            f"{source}: {configuration} continues from it, but its {', '.join(different)} are others. Both stages must be trained from one "
            "plan: train them anew, or plan under another --name"
        )
