"""Planning with a trained model's architecture, so that its weights fit: the settings that make a plan like the model's.

Spacing, patch and kernels of a model are in its network's axis order. Its order is taken with them, whatever the new images' own would be:
so each axis of the weights means the direction in the body that it meant in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.inference.model_folder import ModelFolder


@dataclass(frozen=True)
class Likeness:
    """What a plan must have for a model's weights to fit.

    Attributes:
        settings: dotted path -> value.
        orientation: in which the model sees images; the plan's own may be another.
    """

    settings: Mapping[str, Any]
    orientation: str

    def note(self, model: str | Path, orientation: str) -> list[str]:
        """What is to be said where the plan takes images in another orientation."""
        if self.orientation == orientation:
            return []
        remedy = " Plan with --orientation as_stored where all images are stored alike" if self.orientation == "as_stored" else ""
        return [
            f"--like {model}: the model was trained on images with orientation {self.orientation}, and this plan has {orientation}: its "
            f"weights may meet axes that are flipped, or others.{remedy}"
        ]


def like_model(model: str | Path, channels: Sequence[str]) -> Likeness:
    """Settings that give a plan the model's axis order, network, patch size and spacing, and the normalisation of its channels.

    A channel that the model does not know by name keeps the normalisation that is planned for it. All stages of a cascade are taken.

    Args:
        model: a model folder, or a zip archive of one.
        channels: the dataset's.

    Raises:
        ModelError: there is no sound model.
    """
    first = opened = ModelFolder.open(model)
    settings: dict[str, Any] = {"transpose": list(first.plan.transpose)}
    while opened is not None:
        place = f"configurations.{opened.dataset.configuration}"
        spec = opened.configuration
        document = spec.model_dump(mode="json")
        settings |= {f"{place}.{name}": document[name] for name in ("network", "patch_size", "spacing")}
        known = {name.casefold(): index for index, name in enumerate(opened.plan.channels)}
        for index, name in enumerate(channels):
            if name.casefold() in known:
                settings[f"{place}.normalisation.{index}"] = document["normalisation"][known[name.casefold()]]
        opened = opened.previous
    return Likeness(settings, first.plan.orientation)
