"""What a plan that stands was asked for, and whether it may stay as what is asked for now."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from pydantic import ValidationError

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.sides import left_right_axes
from autoseg.dataset.workspace import Workspace
from autoseg.errors import PlanError
from planners import planner
from planners.fingerprint import Fingerprint
from planners.normalisation import pet_channel
from planners.plan import HeadAndNeckBox, Plan, PlanInvalid, Region, readable
from planners.presets import PRESETS
from planners.settings import CONFIGURATIONS, check_settings, override, with_reasons

logger = logging.getLogger(__name__)

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
            found.append(f"--set {_listed(self.settings)} (it was planned with {_listed(before.settings or {})})")
        return found

    @property
    def target_gb(self) -> float | None:
        """The memory that is planned for, the preset's own where none is asked for; None where the preset is not known."""
        return PRESETS[self.preset].memory_gb if self.memory_gb is None and self.preset in PRESETS else self.memory_gb


DEFAULTS = Wish("default", "canonical", {}, augmentation="default")


@dataclass(frozen=True)
class Decision:
    """What planning is to do.

    Args:
        wish: in full.
        kept: the plan that stands and stays; None: one is to be made.
    """

    wish: Wish
    kept: Plan | None

    @property
    def orientation(self) -> Literal["canonical", "as_stored"]:
        """How images are read."""
        if self.kept:
            return self.kept.orientation
        return "as_stored" if self.wish.orientation == "as_stored" else "canonical"

    @property
    def tolerance(self) -> float:
        """Voxels that the corners of a case's images may lie apart.

        Raises:
            PlanError: it is set to something else than a number.
        """
        if self.kept:
            return self.kept.geometry_tolerance
        found = (self.wish.settings or {}).get("geometry_tolerance", Plan.model_fields["geometry_tolerance"].default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not found >= 0:
            raise PlanError(f"--set geometry_tolerance: must be a number of voxels, 0 or more, found {found!r}")
        return float(found)

    def region(self, channels: Sequence[str]) -> Region | None:
        """The region of interest that images are looked at in.

        Args:
            channels: the dataset's.

        Raises:
            PlanError: no channel is a PET, or a setting of the region does not fit.
        """
        if self.kept:
            return self.kept.region_of_interest
        if self.wish.region in (None, WHOLE):
            return None
        pet = pet_channel(channels)
        if pet is None:
            raise PlanError(
                f"--region {self.wish.region}: is found from the PET, and none of the channels {', '.join(channels)} is called PET, PT or "
                "SUV. Leave it out"
            )
        if self.orientation != "canonical":
            raise PlanError(f"--region {self.wish.region}: needs to know where the head is. Leave out --orientation {self.orientation}")
        own = {key.partition(".")[2]: value for key, value in (self.wish.settings or {}).items() if key.startswith("region_of_interest.")}
        try:
            return HeadAndNeckBox.model_validate({"channel": pet} | own)
        except ValidationError as error:
            raise PlanError(f"--set region_of_interest: {readable(error)}") from None


def decide(dataset: Dataset, workspace: Workspace, wish: Wish, *, replan: bool) -> Decision:
    """Whether the plan that stands stays, found before the dataset is read.

    Raises:
        PlanError: something else is asked for than what stands and `replan` is not set; the plan was edited by hand and would be lost; the
            dataset's channels or labels have changed; an unknown preset.
    """
    if wish.preset is not None and wish.preset not in PRESETS:
        raise PlanError(f"--preset {wish.preset}: is unknown; there are: {', '.join(PRESETS)}")
    if not workspace.plan.exists():
        return Decision(wish.over(DEFAULTS), None)
    standing = workspace.read_plan()
    found = files.sha256_file(workspace.plan)
    record = workspace.record()
    asked = record.get("asked", {})
    before = Wish(
        asked.get("preset", standing.preset),
        asked.get("orientation", standing.orientation),
        asked.get("settings", {}),
        asked.get("memory_gb"),
        asked.get("region", WHOLE if standing.region_of_interest is None else REGIONS[1]),
        asked.get("augmentation", "default"),  # what plans knew before there was a choice
    )
    edited = record.get("plan") != found
    different = wish.differences(before)
    if edited and (replan or different):
        raise PlanError(
            f"{workspace.plan}: was edited by hand and is never overwritten. Keep it by leaving out --replan"
            f"{''.join(f', {text}' for text in different)}; plan under another --name, or remove the file"
        )
    if replan:
        return Decision(wish.over(before), None)
    if different:
        raise PlanError(
            f"{workspace.plan}: a plan stands here, and something else is asked for: {'; '.join(different)}. Replace it with --replan "
            "(folds that were trained with it no longer fit), or plan beside it under another --name"
        )
    if standing.channels != tuple(dataset.channels) or standing.label_scheme.meaning != dataset.label_scheme.meaning:
        remedy = "Plan under another --name, or remove the file" if edited else "Replace it with --replan, or plan under another --name"
        raise PlanError(
            f"{workspace.plan}: is for channels {list(standing.channels)} and labels {standing.label_scheme.meaning}, the dataset has "
            f"channels {list(dataset.channels)} and labels {dataset.label_scheme.meaning}. {remedy}"
        )
    if edited:
        logger.warning("%s was edited by hand: it is kept as it is", workspace.plan)
    return Decision(before, standing)


def check_wish(dataset: Dataset, decision: Decision, configurations: Sequence[str]) -> None:
    """Refuses what no images could make right, before they are read.

    Args:
        configurations: those to prepare cases for.

    Raises:
        PlanError: a setting or a configuration that no plan of this dataset, or not the plan that stands, can have.
    """
    wish, known = decision.wish, list(decision.kept.configurations if decision.kept else CONFIGURATIONS)
    region = decision.region(dataset.channels)
    decision.tolerance  # noqa: B018 (judges that setting)
    if unknown := [name for name in configurations if name not in known]:
        raise PlanError(f"-c {' '.join(unknown)}: there is no such configuration; there are: {', '.join(known)}")
    if decision.kept or not wish.settings:
        return
    try:
        check_settings(
            wish.settings,
            preset=str(wish.preset),
            channels=dataset.channels,
            labels=dataset.labels,
            region_order=dataset.region_order,
            region_of_interest=region,
        )
    except PlanInvalid as error:
        raise PlanError(str(error)) from None


def make_plan(dataset: Dataset, name: str, fingerprint: Fingerprint, wish: Wish, region: Region | None = None) -> Plan:
    """A new plan, for images of which the region of interest counts.

    Raises:
        PlanError: a setting that the plan does not have, a CT channel without labelled voxels.
    """
    try:
        made = planner.plan(
            fingerprint,
            preset=str(wish.preset),
            memory_gb=wish.memory_gb,
            name=name,
            file_ending=dataset.file_ending,
            orientation="as_stored" if wish.orientation == "as_stored" else "canonical",
            mirror_axes_excluded=_never_mirrored(dataset, fingerprint, wish),
            region_of_interest=region,
            centre_augmentation=wish.augmentation == "centres",
            region_order=dataset.region_order,
        )
        return with_reasons(override(made, wish.settings), made, wish.settings) if wish.settings else made
    except ValueError as error:
        raise PlanError(str(error)) from None


def _never_mirrored(dataset: Dataset, fingerprint: Fingerprint, wish: Wish) -> tuple[int, ...]:
    """The array axes that run between left and right, where labels come in such pairs."""
    if not dataset.has_sides:
        return ()
    as_stored = wish.orientation == "as_stored"
    return left_right_axes([case.orientation for case in fingerprint.cases] if as_stored else ["LPS"])


def write_plan(workspace: Workspace, dataset: Dataset, plan: Plan, wish: Wish, exclude: Sequence[str]) -> None:
    """Writes plan.json, and planned.json: what was asked for, which cases are left out, and the hash of the plan.

    A plan without its record would look as if it had been edited by hand, and an old plan with the new record as if it were the new one. So
    the record first tells of both, then the plan is replaced, then the record tells of the new one only.
    """
    text = plan.to_json()
    asked: dict[str, Any] = {"preset": wish.preset, "orientation": wish.orientation, "settings": dict(wish.settings or {})}
    asked |= {} if wish.memory_gb is None else {"memory_gb": wish.memory_gb}
    asked |= {} if wish.region in (None, WHOLE) else {"region": wish.region}
    asked |= {"augmentation": wish.augmentation}
    asked |= {"channels": list(dataset.channels), "labels": dataset.labels}
    record = {"asked": asked, "exclude": sorted(exclude), "plan": sha256(text.encode()).hexdigest()}
    files.write_json(workspace.planned, {**workspace.record(), "coming": record})
    files.write_text(workspace.plan, text)
    files.write_json(workspace.planned, record)


def _listed(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items()) or "none"
