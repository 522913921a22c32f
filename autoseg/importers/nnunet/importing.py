"""A model that nnU-Net v2 trained, as a native model folder: all or nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import files
from autoseg.dataset.case import list_names
from autoseg.dataset.description import Description
from autoseg.errors import ModelError
from autoseg.importers.nnunet.checkpoint import CHECKPOINTS, Checkpoint, read_checkpoint
from autoseg.importers.nnunet.plans import Trained, native_plan, read_dataset_description
from autoseg.importers.nnunet.section import Section
from autoseg.importers.nnunet.source import ALL, DATASET, PLANS, SUMMARY, TrainedModel, find_model
from autoseg.importers.nnunet.training_cases import partial_fingerprint
from autoseg.inference.model_card import SUMMARY_NAME
from autoseg.inference.model_documents import FOLD_PREFIX, PREVIOUS_NAME, ModelDataset
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import update_model_folder, write_model_folder
from planners.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

SCHEME = "nnU-Net"
"""The imported folds' scheme: nnU-Net's own splits, which are not known here."""


@dataclass(frozen=True)
class ImportedModel:
    """What importing wrote.

    Attributes:
        folder: the native model folder.
        source: what was imported.
        configuration, trainer: as the checkpoints name them.
        folds: their names.
        left_out: configurations of the plan that have no equal here -> why.
        unfinished: folds that are begun and lack the checkpoint, so that they are not in it -> the checkpoints that they have; empty where
            folds were named.
    """

    folder: Path
    source: str
    configuration: str
    trainer: str
    folds: tuple[str, ...]
    left_out: dict[str, str]
    unfinished: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self) -> str:
        """For people."""
        others = "".join(f"\n  configuration {name} of the plan is not in it: {why}" for name, why in self.left_out.items())
        others += "".join(
            f"\n  fold {fold} is not in it: its training was not finished (it has {list_names(there) or 'no checkpoint'})"
            for fold, there in self.unfinished.items()
        )
        return (
            f"{self.folder}: {self.configuration} of {self.source}, trained by {self.trainer}, folds {', '.join(self.folds)}{others}\n"
            f"Use: autoseg_predict -m {self.folder} -i IMAGES -o MASKS"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return vars(self) | {"folder": str(self.folder), "folds": list(self.folds)}


def import_nnunet_model(
    source: str | Path, output: str | Path, *, model: str | None = None, checkpoint: str = "final", folds: Sequence[str | int] | None = None
) -> ImportedModel:
    """Writes a native model folder that predicts what nnU-Net predicts with the same weights, and returns what it holds.

    Args:
        source: a trained model's folder, one above it, or a zip archive, as nnU-Net exports it or of such a folder. Where it is the second
            stage of a cascade, the first one's model lies beside it and is imported with it, with the same folds.
        output: the folder to write; must be new or empty.
        model: which one, by its folder's name, where several are there.
        checkpoint: of each fold, "final", "best" or "latest".
        folds: which; None: the numbered ones, or "all" where that is the only one.

    Raises:
        ModelError: nothing that can be imported; names the file and what in it. Nothing is written then.
    """
    if checkpoint not in CHECKPOINTS:
        raise ModelError(f"checkpoint {checkpoint!r}: choose {', '.join(CHECKPOINTS)}")
    trained = find_model(Path(source), model=model, checkpoint=checkpoint)
    chosen = trained.folds(None if folds is None else [str(fold) for fold in folds])
    imported = _import(trained, chosen, Path(output))
    return imported if folds is not None else replace(imported, unfinished=trained.unfinished())


def _import(trained: TrainedModel, chosen: tuple[str, ...], output: Path) -> ImportedModel:
    first = read_checkpoint(trained.checkpoint_path(chosen[0]))
    description = read_dataset_description(trained.document(DATASET), f"{trained.shown}/{DATASET}", trained.folder.parent.name or "model")
    plans = trained.document(PLANS)
    how = Trained(first.configuration, first.trainer, first.mirror_axes)
    plan = native_plan(plans, f"{trained.shown}/{PLANS}", description, how)
    known = partial_fingerprint(trained, Section.of(plans, f"{trained.shown}/{PLANS}"), description.channels)
    dataset = ModelDataset(
        name=str(plans.get("dataset_name") or description.name),
        channels=description.channels,
        labels=dict(description.labels),
        file_ending=description.file_ending,
        configuration=first.configuration,
        scheme=SCHEME,
        region_order=description.region_order,
        origin=f"nnU-Net v2, trainer {first.trainer}, plans {plan.name}, {CHECKPOINTS[trained.checkpoint]}",
    )
    with files.new_folder(output, error=ModelError) as folder:
        for fold in chosen:
            saved = first if fold == chosen[0] else _of_same_model(read_checkpoint(trained.checkpoint_path(fold)), first)
            weights = {fold: native_weights(saved, plan)}
            write_model_folder(folder, plan=plan, dataset=dataset, partial=known, weights=weights)
            _write_figures(trained, fold, folder, description)
            logger.info("fold %s of %s is imported", fold, trained.shown)
        previous = plan.configuration(first.configuration).previous_stage
        if previous is not None:
            before = trained.stage(previous)
            _import(before, before.folds(chosen), folder / PREVIOUS_NAME)
        update_model_folder(folder)
        ModelFolder.open(folder)
    left_out = {name: why for name, why in plan.reasons.items() if name in plans["configurations"]}
    return ImportedModel(output, trained.shown, first.configuration, first.trainer, chosen, left_out)


def native_weights(checkpoint: Checkpoint, plan: Plan) -> dict[str, Tensor]:
    """The checkpoint's weights in float32 under our names, found to be those of the plan's network.

    Raises:
        ModelError: a name or shape that the network does not have, one that is missing, or a value that is not finite.
    """
    import torch

    from autoseg.networks import network_without_weights, weight_map_from_nnunet

    try:
        mapped = weight_map_from_nnunet(checkpoint.weights)
    except ModelError as error:
        raise ModelError(f"{checkpoint.path}: {error}. It was trained by {checkpoint.trainer}") from None
    settings, channels = plan.configuration(checkpoint.configuration), plan.input_channels(checkpoint.configuration)
    network = network_without_weights(settings.network, channels, plan.label_scheme.heads, settings.dimension)
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in mapped.items()}
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not in the network" for name in found if name not in wanted]
    problems += [f"{name} has the shape {found[name]}, not {shape}" for name, shape in wanted.items() if found.get(name, shape) != shape]
    if problems:
        raise ModelError(
            f"{checkpoint.path}: these are not the weights of the network in {PLANS}: {list_names(problems)}. "
            f"{checkpoint.trainer} may have built another one"
        )
    tensors = {name: mapped[name].detach().to(torch.float32, copy=True).contiguous() for name in wanted}
    if broken := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise ModelError(f"{checkpoint.path}: holds values that are not finite in {list_names(broken)}; the training had failed")
    return tensors


def _of_same_model(checkpoint: Checkpoint, first: Checkpoint) -> Checkpoint:
    for name in ("configuration", "trainer", "mirror_axes"):
        mine, other = getattr(checkpoint, name), getattr(first, name)
        if mine != other:
            raise ModelError(f"{checkpoint.path}: has the {name} {mine!r}, {first.path} has {other!r}: these folds are no one model")
    return checkpoint


def _write_figures(trained: TrainedModel, fold: str, folder: Path, description: Description) -> None:
    """nnU-Net's Dice on the fold's held-out cases, for the model card; nothing where it did not validate."""
    path = trained.folder / f"fold_{fold}" / SUMMARY
    if not path.is_file():
        return
    try:
        document = files.read_json(path, error=ModelError)
        values = {"mean": document["foreground_mean"]["Dice"]}
        values |= {
            name: document["mean"][_key(value)]["Dice"] for name, value in description.labels.items() if _key(value) in document["mean"]
        }
        dice = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    except (ModelError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s: is not read: %s", path, error)
        return
    files.write_json(folder / f"{FOLD_PREFIX}{fold}" / SUMMARY_NAME, {"dice": dice, "out_of_fold": fold != ALL, "source": "nnU-Net"})


def _key(value: Any) -> str:
    """How nnU-Net's summary names a class: its value, or its values as a tuple."""
    return str(tuple(value)) if isinstance(value, list | tuple) else str(value)
