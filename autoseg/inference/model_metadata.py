"""metadata.json: what a model's network expects and gives, for people and catalogues, in the field names of MONAI's bundles.

It is made from the plan and the dataset; a few fields only the model's authors know (`AUTHORS_FIELDS`). Nothing is computed from it:
predictions read plan.json and dataset.json alone.

Source of the field names: MONAI bundle specification, metadata.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from autoseg.errors import ModelError
from autoseg.inference.model_card import FoldFigures, figures_from, versions
from autoseg.inference.model_documents import FOLD_PREFIX, ModelDataset
from planners.plan import Plan

NAME = "metadata.json"
SCHEMA = "autoseg-metadata/1"
INTENDED_USE = "Research use only. Not a medical device: not for diagnosis, treatment or any clinical decision."
AUTHORS_FIELDS = {
    "version": "",
    "description": "",
    "authors": "",
    "copyright": "",
    "license": "not stated: ask whoever trained the model; its data may have terms of their own",
    "data_source": "",
    "references": "",
}
"""What only the model's authors know -> what stands there until they say it."""


def metadata(plan: Plan, dataset: ModelDataset, figures: Mapping[str, FoldFigures | None], known: Mapping[str, Any]) -> dict[str, Any]:
    """The document.

    Args:
        figures: fold -> its validation, None where it has none; only what was measured on held-out cases is shown.
        known: an earlier document of the same model, or {}; its authors' fields are kept.
    """
    authors = {name: str(known.get(name) or default) for name, default in AUTHORS_FIELDS.items()}
    packages = dict(versions())
    names = output_names(plan)
    scheme = plan.label_scheme
    return {
        "schema": SCHEMA,
        "name": dataset.name,
        "task": f"Segmentation of {', '.join(scheme.foreground)} in {', '.join(dataset.channels)}",
        "intended_use": INTENDED_USE,
        **authors,
        "autoseg_version": packages.get("autoseg", ""),
        "pytorch_version": packages.get("torch", ""),
        "numpy_version": packages.get("numpy", ""),
        "required_packages_version": {name: version for name, version in packages.items() if name not in {"autoseg", "torch", "numpy"}},
        "origin": dataset.origin,
        "data_type": dataset.file_ending,
        "image_classes": f"one file a channel, in this order: {', '.join(dataset.channels)}",
        "label_classes": ", ".join(f"{value} {name}" for name, value in plan.labels.items()),
        "pred_classes": f"{len(names)} channels of logits: {', '.join(names)}",
        "eval_metrics": {f"{FOLD_PREFIX}{fold}": {"dice": dict(found.dice)} for fold, found in figures.items() if _held_out(found)},
        "network_data_format": {"inputs": {"image": _input(plan, dataset)}, "outputs": {"pred": _output(plan, dataset, names)}},
    }


def output_names(plan: Plan) -> tuple[str, ...]:
    """What each of the network's outputs stands for, output by output."""
    scheme = plan.label_scheme
    background = next((name for name, value in scheme.labels.items() if value == 0), "background")
    return tuple(scheme.foreground) if scheme.has_regions else (background, *scheme.foreground)


def input_names(plan: Plan, configuration: str) -> tuple[str, ...]:
    """What each of the network's input channels holds: the images', then the masks of a stage that goes before it."""
    before = plan.configuration(configuration).previous_stage
    classes = list(plan.label_scheme.foreground)[: plan.input_channels(configuration) - len(plan.channels)]
    return (*plan.channels, *(f"mask of {name} from {before}" for name in classes))


def parse(data: bytes, source: str) -> dict[str, Any]:
    """The document in a file's bytes; ModelError where it is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source}: is no valid JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ModelError(f"{source}: 'schema' must be '{SCHEMA}'. This is not a model folder's {NAME}")
    return document


def read_known(folder: Path) -> dict[str, Any]:
    """The folder's document, {} where there is none that can be read: it is about to be written anew."""
    try:
        return parse((folder / NAME).read_bytes(), NAME)
    except (OSError, ModelError):
        return {}


def known_figures(document: Mapping[str, Any], fold: str) -> FoldFigures | None:
    """A fold's validation as the document tells it: a model that was passed on has no summaries any more."""
    metrics = document.get("eval_metrics")
    return figures_from(metrics.get(f"{FOLD_PREFIX}{fold}")) if isinstance(metrics, dict) else None


def with_authors_fields(document: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, Any]:
    """The document with fields of `AUTHORS_FIELDS` set.

    Raises:
        ModelError: another field; names those that there are.
    """
    unknown = [name for name in settings if name not in AUTHORS_FIELDS]
    if unknown:
        raise ModelError(f"--metadata {unknown[0]}: there is no such field to set; known: {', '.join(AUTHORS_FIELDS)}")
    return {**document, **settings}


def _held_out(found: FoldFigures | None) -> TypeGuard[FoldFigures]:
    return found is not None and bool(found.dice) and found.out_of_fold


def _input(plan: Plan, dataset: ModelDataset) -> dict[str, Any]:
    configuration = plan.configuration(dataset.configuration)
    names = input_names(plan, dataset.configuration)
    return {
        "type": "image",
        "format": "magnitude",
        "modality": ", ".join(plan.channels),
        "num_channels": len(names),
        "spatial_shape": list(configuration.patch_size),
        "spacing": list(configuration.spacing),
        "axis_order": list(plan.transpose),
        "orientation": plan.orientation,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(index): name for index, name in enumerate(names)},
        "normalisation": [scheme.model_dump(mode="json") for scheme in configuration.normalisation],
    }


def _output(plan: Plan, dataset: ModelDataset, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "image",
        "format": "segmentation",
        "num_channels": len(names),
        "spatial_shape": list(plan.configuration(dataset.configuration).patch_size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(index): name for index, name in enumerate(names)},
        "activation": "sigmoid" if plan.label_scheme.has_regions else "softmax",
        "label_values": list(plan.label_scheme.painted_values),
    }
