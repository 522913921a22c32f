"""Trained weights that a fold can begin from: a fold of a model folder or archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from autoseg import files
from autoseg.errors import ModelError
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_metadata import input_names, output_names
from autoseg.inference.trained_on import TrainedOn, read_trained_on
from autoseg.networks.adaptation import Ends
from planners.plan import Configuration, Plan

ALL = "all"


@dataclass(frozen=True)
class WeightSource:
    """Trained weights, read and verified.

    Attributes:
        path: where they were found; absolute.
        fold: which of the model's folds; "" for weights that belong to none.
        sha256: of the weights' file.
        weights: name -> tensor.
        ends: what the trained network's channels and outputs are.
        configuration: that it was trained with.
        transpose: its axis order, as `Plan.transpose`.
        trained_on: the images that it saw; None where it does not tell.
    """

    path: Path
    fold: str
    sha256: str
    weights: Mapping[str, Tensor] = field(repr=False)
    ends: Ends
    configuration: Configuration
    transpose: tuple[int, int, int]
    trained_on: TrainedOn | None

    @property
    def identity(self) -> str:
        """A hash of all that a beginning from these weights depends on."""
        ends = {"inputs": self.ends.inputs, "outputs": self.ends.outputs, "activation": self.ends.activation}
        return files.sha256_json({"weights": self.sha256, **ends})

    def to_dict(self) -> dict[str, Any]:
        """What a run records of them."""
        return {"path": str(self.path), "fold": self.fold, "sha256": self.sha256}


def network_ends(plan: Plan, configuration: str) -> Ends:
    """What the channels and outputs of a plan's segmentation network are."""
    activation = "sigmoid" if plan.label_scheme.has_regions else "softmax"
    return Ends(input_names(plan, configuration), output_names(plan), activation)


def open_model_weights(path: Path, init_fold: str | None, fold: str) -> WeightSource:
    """The weights of one fold of a trained model.

    Args:
        path: a model folder, or a zip archive of one.
        init_fold: which of its folds; None takes the one named as `fold`, else "all", else the first.
        fold: the fold that is to be trained.

    Raises:
        ModelError: there is no sound model, or it has no such fold.
    """
    model = ModelFolder.open(path, None if init_fold is None else [init_fold])
    chosen = init_fold or next((name for name in (fold, ALL) if name in model.folds), model.folds[0])
    file = model.weights_path(chosen)
    ends = network_ends(model.plan, model.dataset.configuration)
    return WeightSource(
        path, chosen, model.hashes[chosen], read_weights(file), ends, model.configuration, model.plan.transpose, read_trained_on(file)
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; ModelError where it is none."""
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:  # safetensors raises its own, undocumented types
        raise ModelError(f"{path}: the weights cannot be read: {error}") from None
