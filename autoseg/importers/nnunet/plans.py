"""nnU-Net's plans.json and dataset.json -> a native plan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autoseg.dataset.description import Description, parse_description
from autoseg.errors import DatasetError, ModelError
from autoseg.importers.nnunet.configuration import native_configuration
from autoseg.importers.nnunet.section import Section
from planners.labels import LabelScheme
from planners.plan import Configuration, Plan
from planners.schema.augmentation import PreviousStageMasks

logger = logging.getLogger(__name__)

READERS: dict[str, Literal["as_stored", "ras"]] = {
    "SimpleITKIO": "as_stored",
    "NibabelIO": "as_stored",
    "NibabelIOWithReorient": "ras",
}
"""nnU-Net's reader -> how the network saw images."""

DESCRIBED = ("name", "channel_names", "modality", "labels", "regions_class_order", "file_ending")
"""What of dataset.json says something about the model; the rest is about the dataset's files, which are elsewhere."""


@dataclass(frozen=True)
class Trained:
    """What the checkpoints say about a model.

    Attributes:
        configuration: the plan's configuration that was trained.
        trainer: the trainer class' name.
        mirror_axes: flips to average over at prediction, network order.
    """

    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]


def read_dataset_description(document: Any, where: str, name: str) -> Description:
    """Channels, labels and file ending in a dataset.json that nnU-Net copied beside a model.

    Raises:
        ModelError: it is not of the form that nnU-Net wants, or asks for something that is not supported.
    """
    section = Section.of(document, where)
    described = {key: section.values[key] for key in DESCRIBED if key in section}
    labels = described.get("labels")
    if isinstance(labels, dict) and not any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
        described.pop("regions_class_order", None)  # nnU-Net looks at it only where a class is a region
    try:
        return parse_description(described, where, name)
    except DatasetError as error:
        raise ModelError(str(error)) from None


def native_plan(document: Any, where: str, description: Description, trained: Trained) -> Plan:
    """The plan with every configuration that has an equal here, images in the orientation that nnU-Net read them in.

    Args:
        document: plans.json.
        where: the file, for messages.
        description: the dataset's channels and labels.
        trained: the trained configuration must be there and have an equal; others that have none are left out, with the reason.

    Raises:
        ModelError: a value is missing or wrong, or has no equal here; named.
    """
    plans = Section.of(document, where)
    orientation = _orientation(plans)
    transpose = plans.sequence("transpose_forward", 3)
    if sorted(map(str, transpose)) != ["0", "1", "2"]:
        raise plans.wrong("transpose_forward", "the axes 0, 1 and 2 in some order", transpose)
    found = plans.section("configurations")
    if trained.configuration not in found:
        raise ModelError(f"{found.where}: there is no {trained.configuration!r}, which was trained; found: {', '.join(found.values)}")
    origin = f"{plans.text('plans_name', 'plans')} ({plans.text('experiment_planner_used', 'planner unknown')})"
    translated, left_out = _configurations(plans, found, description, trained)
    for name, why in left_out.items():
        logger.info("configuration %s is left out of the plan: %s", name, why)
    return Plan(
        name=plans.text("plans_name", "nnU-Net"),
        preset="nnU-Net",
        channels=description.channels,
        labels=description.labels,
        region_order=description.region_order,
        file_ending=description.file_ending,
        orientation=orientation,
        transpose=(int(transpose[0]), int(transpose[1]), int(transpose[2])),
        configurations=translated,
        reasons={"plan": f"translated from nnU-Net's {origin}"} | {name: f"left out: {why}" for name, why in left_out.items()},
    )


def _orientation(plans: Section) -> Literal["as_stored", "ras"]:
    reader = plans.text("image_reader_writer", "SimpleITKIO")
    manager = plans.text("label_manager", "LabelManager")
    if manager != "LabelManager":
        raise ModelError(f"{plans.where}: labels were handled by {manager!r}; only nnU-Net's own LabelManager can be imported")
    if reader not in READERS:
        raise ModelError(f"{plans.where}: images were read by {reader!r}; models of {', '.join(READERS)} can be imported")
    return READERS[reader]


def _configurations(
    plans: Section, found: Section, description: Description, trained: Trained
) -> tuple[dict[str, Configuration], dict[str, str]]:
    """The configurations that have an equal, and why each of the others has none."""
    translated: dict[str, Configuration] = {}
    left_out: dict[str, str] = {}
    for name in found.values:
        try:
            translated[name] = _configuration(plans, found, name, description, trained)
        except ModelError as error:
            if name == trained.configuration:
                raise
            left_out[name] = str(error).removeprefix(f"{plans.where}: ")
    while lost := [name for name, made in translated.items() if made.previous_stage is not None and made.previous_stage not in translated]:
        for name in lost:
            previous = translated.pop(name).previous_stage or ""
            left_out[name] = f"continues from {previous}, which is not in the plan: {left_out.get(previous, 'there is none')}"
    if trained.configuration in left_out:
        raise ModelError(f"{plans.where}: configuration {trained.configuration}: {left_out[trained.configuration]}")
    return translated, left_out


def _configuration(plans: Section, found: Section, name: str, description: Description, trained: Trained) -> Configuration:
    section = Section(_inherited(found, name), f"{plans.where}: configuration {name}")
    field = "foreground_intensity_properties_per_channel"
    intensities = plans.section(field if field in plans else "foreground_intensity_properties_by_modality")
    axes: Sequence[int] | None = trained.mirror_axes if name == trained.configuration else None
    made = native_configuration(
        section,
        intensities,
        len(description.channels),
        mirror_axes=axes,
        deep_supervision="NoDeepSupervision" not in trained.trainer,
    )
    if made.previous_stage is None:
        return made
    if LabelScheme(description.labels, description.region_order).has_regions:
        raise ModelError(
            f"{section.where}: the second stage of a cascade sees the labels that regions are made of, one channel each; here it sees the "
            "regions, so that such a model cannot be imported"
        )
    augment = made.augmentation.model_copy(update={"previous_stage": PreviousStageMasks()})
    return made.model_copy(update={"augmentation": augment})


def _inherited(found: Section, name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A configuration's fields over those of the one that it inherits from."""
    if name in seen:
        raise ModelError(f"{found.where}: configurations inherit from each other in a circle: {' -> '.join([*seen, name])}")
    own = found.section(name)
    parent = own.take("inherits_from", None)
    return dict(own.values) if parent is None else _inherited(found, own.text("inherits_from"), (*seen, name)) | dict(own.values)
