"""What a plan is asked to be: everything that a user may choose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoseg.errors import PlanError
from planners.presets import PRESETS

WHOLE = "whole"
REGIONS = (WHOLE, "head-and-neck")
"""What of an image a plan can be for."""

DATASETS_OWN = ("channels", "labels", "region_order", "transpose", "schema", "name", "preset", "file_ending")
"""Fields of a plan that follow from the dataset, or that have options of their own."""


AUGMENTATIONS = ("centres", "default")
"""Where the ranges of augmentation come from: widened by how far the centres lie apart, or as nnU-Net published them."""


@dataclass(frozen=True)
class Wish:
    """What a plan is to be: everything that a user may choose. None, where planning is asked again, means as before.

    Args:
        preset: a name in `planners.presets.PRESETS`.
        orientation: "canonical" or "as_stored".
        settings: dotted path -> value, put over what the preset gives.
        memory_gb: device memory to plan for; where nothing was ever asked for, the preset's own.
        region: one of `REGIONS`.
        augmentation: "centres", widened by how far the centres lie apart, or "default", nnU-Net's published ranges.
    """

    preset: str | None = None
    orientation: str | None = None
    settings: Mapping[str, Any] | None = None
    memory_gb: float | None = None
    region: str | None = None
    augmentation: str | None = None

    @staticmethod
    def of(
        preset: str | None,
        orientation: str | None,
        settings: Mapping[str, Any] | None,
        memory_gb: float | None = None,
        region: str | None = None,
        augmentation: str | None = None,
    ) -> Wish:
        """The wish; `orientation` among the settings counts as the argument, since it also shapes what is measured.

        Raises:
            PlanError: a setting that is not the user's to choose, two different orientations, or a memory that is not above 0.
        """
        if memory_gb is not None and not (math.isfinite(memory_gb) and memory_gb > 0):
            raise PlanError(f"--memory: must be a positive number of GB, found {memory_gb:g}")
        left = dict(settings or {})
        for key in left:
            if key.split(".")[0] in DATASETS_OWN:
                raise PlanError(
                    f"--set {key}: this follows from the dataset or from another option, and the rest of the plan with it. Change "
                    "dataset.json, or take --name, --preset or --orientation"
                )
        if "orientation" in left:
            named = left.pop("orientation")
            if orientation not in (None, named):
                raise PlanError(f"--set orientation={named} and --orientation {orientation} contradict each other. Leave one of them out")
            orientation = named
            settings = left or None
        if orientation not in (None, "canonical", "as_stored"):
            raise PlanError(f"orientation must be canonical or as_stored, found {orientation!r}")
        if region not in (None, *REGIONS):
            raise PlanError(f"--region must be one of {', '.join(REGIONS)}, found {region!r}")
        if augmentation not in (None, *AUGMENTATIONS):
            raise PlanError(f"--augmentation must be {' or '.join(AUGMENTATIONS)}, found {augmentation!r}")
        return Wish(preset, orientation, None if settings is None else left, memory_gb, region, augmentation)

    def over(self, before: Wish) -> Wish:
        """This wish, and where it leaves something open, what was wished before."""
        return Wish(
            before.preset if self.preset is None else self.preset,
            before.orientation if self.orientation is None else self.orientation,
            before.settings if self.settings is None else self.settings,
            before.memory_gb if self.memory_gb is None else self.memory_gb,
            before.region if self.region is None else self.region,
            before.augmentation if self.augmentation is None else self.augmentation,
        )

    def differences(self, before: Wish) -> list[str]:
        """What is wished for and was something else before, for a message."""
        pairs = (
            ("--preset", self.preset, before.preset),
            ("--orientation", self.orientation, before.orientation),
            ("--region", self.region, before.region or WHOLE),
            ("--augmentation", self.augmentation, before.augmentation),
        )
        found = [f"{option} {now} (it was planned with {then})" for option, now, then in pairs if now not in (None, then)]
        if self.memory_gb not in (None, before.target_gb):
            then = "another target" if before.target_gb is None else f"{before.target_gb:g} GB"
            found.append(f"--memory {self.memory_gb:g} (it was planned for {then})")
        if self.settings is not None and self.settings != before.settings:
            option = "--like and --set" if "transpose" in self.settings else "--set"  # no --set may ask for an axis order
            now, then = _without(self.settings, before.settings or {}), _without(before.settings or {}, self.settings)
            found.append(f"{option} {_listed(now)} (it was planned with {_listed(then)})")
        return found

    @property
    def target_gb(self) -> float | None:
        """The memory that is planned for, the preset's own where none is asked for; None where the preset is not known."""
        return PRESETS[self.preset].memory_gb if self.memory_gb is None and self.preset in PRESETS else self.memory_gb


DEFAULTS = Wish("default", "canonical", {}, augmentation="default")


def _without(settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in others or others[key] != value}


def _listed(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_short(value)}" for key, value in settings.items()) or "none"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
