"""Planning with a trained model's architecture, so that its weights fit: the settings that make a plan like the model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.inference.model_folder import ModelFolder


def settings_like(model: str | Path, channels: Sequence[str]) -> dict[str, Any]:
    """Settings (dotted path -> value) that give a plan the model's network, patch size and spacing, and the normalisation of its channels.

    A channel that the model does not know by name keeps the normalisation that is planned for it. All stages of a cascade are taken.

    Args:
        model: a model folder, or a zip archive of one.
        channels: the dataset's.

    Raises:
        ModelError: there is no sound model.
    """
    opened: ModelFolder | None = ModelFolder.open(model)
    settings: dict[str, Any] = {}
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
    return settings
