"""What a plan that stands was asked for, and whether it may stay as what is asked for now."""

from __future__ import annotations

import logging
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
from autoseg.planning.wish import DEFAULTS, REGIONS, WHOLE, Wish
from planners import planner
from planners.fingerprint import Fingerprint
from planners.normalisation import pet_channel
from planners.plan import HeadAndNeckBox, Plan, PlanInvalid, Region, readable
from planners.presets import PRESETS
from planners.settings import CONFIGURATIONS, check_settings, plan_as_asked

logger = logging.getLogger(__name__)


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
        document = {"channel": pet} | own
        try:
            return HeadAndNeckBox.model_validate(document)
        except ValidationError as error:
            raise PlanError(f"--set region_of_interest: {readable(error, document)}") from None


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
    # Earlier releases took no axis order with --like: a plan that has the model's all the same is what is asked for.
    order = {"transpose": list(standing.transpose)} if "transpose" in (wish.settings or {}) else {}
    before = Wish(
        asked.get("preset", standing.preset),
        asked.get("orientation", standing.orientation),
        order | asked.get("settings", {}),
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


def check_wish(dataset: Dataset, decision: Decision, region: Region | None, configurations: Sequence[str]) -> None:
    """Refuses what no images could make right, before they are read.

    Args:
        region: `decision.region`.
        configurations: those to prepare cases for.

    Raises:
        PlanError: a setting or a configuration that no plan of this dataset, or not the plan that stands, can have.
    """
    wish, known = decision.wish, list(decision.kept.configurations if decision.kept else CONFIGURATIONS)
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

    def make(spacings: Mapping[str, tuple[float, ...]]) -> Plan:
        return planner.plan(
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
            spacings=spacings,
            transpose=None if axes is None else (axes[0], axes[1], axes[2]),
        )

    settings = dict(wish.settings or {})
    axes = settings.pop("transpose", None)  # a model's, by --like: the rest of the plan follows from it
    try:
        return plan_as_asked(make, settings) if settings else make({})
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
