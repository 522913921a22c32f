"""Fingerprint + preset -> Plan. Pure: the same fingerprint gives the same plan on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from planners import augmentation, centre_rules, spacing
from planners.centres import Comparison, compare, in_plane, incomparable
from planners.fingerprint import Fingerprint
from planners.normalisation import normalisations
from planners.plan import Configuration, DiceCELoss, Inference, Normalisation, Plan, PlanInvalid, PreviousStageMasks, Region, Training
from planners.presets import Preset
from planners.presets import preset as find_preset
from planners.sizing import LOWRES_COVERAGE, LOWRES_GAIN, Grid, Sized, Task, lowres, size


@dataclass(frozen=True)
class Common:
    """What all configurations of a plan share. `mirror_excluded`: array axes; `compared`: the centres as volumes and as slices show them,
    by the number of axes; none where they do not count."""

    preset: Preset
    transpose: tuple[int, int, int]
    normalisation: tuple[Normalisation, ...]
    mirror_excluded: tuple[int, ...]
    compared: Mapping[int, Comparison]


def plan(
    fingerprint: Fingerprint,
    *,
    preset: str = "default",
    memory_gb: float | None = None,
    name: str = "default",
    file_ending: str = ".nii.gz",
    orientation: Literal["canonical", "as_stored"] = "canonical",
    training_cases: int | None = None,
    mirror_axes_excluded: tuple[int, ...] = (),
    region_of_interest: Region | None = None,
    centre_augmentation: bool = False,
    region_order: tuple[int, ...] = (),
    spacings: Mapping[str, tuple[float, ...]] | None = None,
    transpose: tuple[int, int, int] | None = None,
) -> Plan:
    """The plan for a dataset, with the reason for each value.

    Args:
        fingerprint: of the training cases.
        preset: a name in `presets.PRESETS`.
        memory_gb: the device memory to plan for; None: the preset's own. Only this number counts, never the machine that plans.
        name: the plan's own name.
        file_ending: of the dataset's images and masks.
        orientation: whether images are reoriented on reading.
        training_cases: how many cases training has; None: as many as the fingerprint.
        mirror_axes_excluded: array axes (0 = z, 1 = y, 2 = x) that are never flipped, since labels come in left/right pairs.
        region_of_interest: what of an image counts; the fingerprint is of that part.
        centre_augmentation: whether augmentation is widened by how far the centres lie apart; else it is nnU-Net's.
        region_order: the value that each region is painted with, where the labels are regions.
        spacings: configuration -> spacing (mm, network order) in place of what the rules find; its shape, patch, network and batch follow,
            and from those of 3d_fullres whether and how there is a 3d_lowres. The axis order stays the data's.
        transpose: network axis -> array axis, in place of what the rules find.

    Returns:
        Configurations "2d", and for volumes "3d_fullres", and where its patch sees less than a quarter of the median case "3d_lowres" and
        "3d_cascade_fullres".

    Raises:
        PlanInvalid: an unknown preset, too little memory for any network, a CT channel without any labelled voxel, or a `transpose` that
            would cut images of one slice across it.

    Source: Isensee et al., "nnU-Net", Nature Methods 2021, and "nnU-Net Revisited", MICCAI 2024.
    """
    own = find_preset(preset)
    chosen = own if memory_gb is None else own.for_memory(memory_gb)
    target = spacing.target_spacing(fingerprint.spacings, fingerprint.shapes_after_crop)
    median = spacing.median_resampled_shape(fingerprint.shapes_after_crop, fingerprint.spacings, target.spacing)
    transpose, why_transpose = _axes(transpose, *spacing.network_axes(target.spacing, median), median)
    full = Grid(tuple(target.spacing[axis] for axis in transpose), tuple(median[axis] for axis in transpose), target.reason)
    cases = len(fingerprint.cases) if training_cases is None else training_cases
    task = Task(chosen, len(fingerprint.channels), len({0, *fingerprint.labels.values()}), math.prod(full.median_shape) * cases)

    normalisation, reasons = normalisations(fingerprint)
    compared = compare(fingerprint, normalisation) if centre_augmentation else None
    reasons["transpose"] = why_transpose
    if region_of_interest is not None:
        reasons["region_of_interest"] = "as asked for: all shapes and intensities here are of the region, found in each case from its PET"
    if chosen.memory_gb != own.memory_gb:
        reasons["memory"] = (
            f"{chosen.memory_gb:g} GB were asked for; preset {own.name} is for {own.memory_gb:g} GB: the elements that it allows are "
            f"scaled by {chosen.memory_gb / own.memory_gb:.4g}"
        )
    if mirror_axes_excluded:
        reasons["mirror"] = f"array axes {list(mirror_axes_excluded)} are never flipped: labels come in left/right pairs along them"
    reasons["augmentation"] = _why_ranges(compared, comparable=not incomparable(fingerprint))
    asked = _asked_grids(spacings or {}, fingerprint, full, transpose)
    views = {3: compared, 2: in_plane(compared, fingerprint, transpose[1:])} if compared else {}
    common = Common(chosen, transpose, normalisation, mirror_axes_excluded, views)
    configurations, why = _configurations(full, task, common, AskedGrids(asked, cases))
    return Plan(
        name=name,
        preset=chosen.name,
        channels=fingerprint.channels,
        labels=fingerprint.labels,
        region_order=region_order,
        file_ending=file_ending,
        orientation=orientation,
        transpose=transpose,
        region_of_interest=region_of_interest,
        configurations=configurations,
        reasons=reasons | why,
    )


def _axes(
    asked: tuple[int, int, int] | None, ruled: tuple[int, int, int], why: str, median: tuple[float, ...]
) -> tuple[tuple[int, int, int], str]:
    """The axis order, as the rules have it or as asked for, and its reason."""
    if asked is None:
        return ruled, why
    if median[ruled[0]] == 1 and asked[0] != ruled[0]:
        raise PlanInvalid(
            f"transpose {list(asked)} was asked for, but the images are slices along array axis {ruled[0]}, which must come first: no "
            "network for the one order has weights for the other"
        )
    return asked, f"{list(asked)}, as asked for; {'as planned too' if asked == ruled else f'planned was {list(ruled)}'}: {why}"


@dataclass(frozen=True)
class AskedGrids:
    """Grids that were asked for, with all three axes, by configuration; and how many training cases there are."""

    grids: Mapping[str, Grid]
    cases: int

    def of(self, name: str, planned: Grid, task: Task) -> tuple[Grid, Task]:
        """The grid of a configuration, and the task with the dataset's voxels on it: as planned, or as asked for."""
        if name not in self.grids:
            return planned, task
        volume, axes = self.grids[name], len(planned.spacing)
        spacing = volume.spacing[-axes:]
        why = f"{list(spacing)}, as asked for; planned was {list(planned.spacing)}"
        return Grid(spacing, volume.median_shape[-axes:], why), replace(task, dataset_voxels=math.prod(volume.median_shape) * self.cases)


def _asked_grids(
    spacings: Mapping[str, tuple[float, ...]], fingerprint: Fingerprint, full: Grid, transpose: tuple[int, int, int]
) -> dict[str, Grid]:
    """Configuration -> the grid with that spacing; a 2-D one gets the first axis as planned."""
    grids = {}
    for name, asked in spacings.items():
        volume = (*full.spacing[: 3 - len(asked)], *asked)
        stored = [volume[transpose.index(axis)] for axis in range(3)]
        median = spacing.median_resampled_shape(fingerprint.shapes_after_crop, fingerprint.spacings, stored)
        # An axis that is coarser than the median case is long has one voxel, as in a low resolution.
        grids[name] = Grid(volume, tuple(max(median[axis], 1.0) for axis in transpose), "")
    return grids


def _configurations(full: Grid, task: Task, common: Common, asked: AskedGrids) -> tuple[dict[str, Configuration], dict[str, str]]:
    """All configurations that the data call for, and the reasons, also for those that are not planned."""
    made: dict[str, Configuration] = {}
    reasons: dict[str, str] = {}

    def add(name: str, grid: Grid, sized: Sized, batch_dice: bool, why_dice: str) -> None:
        made[name], why = _configuration(grid, sized, common, batch_dice=batch_dice)
        why["training.loss.batch_dice"] = why_dice
        reasons.update({f"{name}.{field}": text for field, text in why.items()})

    slices = Grid(full.spacing[1:], full.median_shape[1:], f"the last two network axes of: {full.why}")
    slices, of_slices = asked.of("2d", slices, task)
    add("2d", slices, size(slices, of_slices), True, "on: slices of a batch are small samples: one Dice over all")
    if full.median_shape[0] == 1:
        reasons["3d_fullres"] = "not planned: the median case has one slice"
        return made, reasons
    full, task = asked.of("3d_fullres", full, task)
    sized = size(full, task)
    covered = math.prod(sized.patch_size) / math.prod(full.median_shape)
    coverage = f"a patch of 3d_fullres covers {covered:.3g} of the median case"
    low = lowres(full, sized, task)
    if low is not None:
        reasons["3d_lowres"] = f"planned: {coverage}, less than {LOWRES_COVERAGE:g}"
        if "3d_lowres" in asked.grids:
            coarse, of_coarse = asked.of("3d_lowres", low[0], task)
            low = coarse, size(coarse, of_coarse)
        add("3d_lowres", *low, False, "off: a patch sees much of a case")
        why_dice = f"on: {coverage}: one Dice over all samples of a batch"
        add("3d_fullres", full, sized, True, why_dice)
        if "3d_cascade_fullres" in asked.grids:
            full, task = asked.of("3d_cascade_fullres", full, task)
            add("3d_cascade_fullres", full, size(full, task), True, why_dice)
        made["3d_cascade_fullres"] = second_stage(made.get("3d_cascade_fullres", made["3d_fullres"]), "3d_lowres")
        reasons["3d_cascade_fullres"] = "3d_fullres with the masks of 3d_lowres as further input channels"
        reasons["3d_cascade_fullres.augmentation.previous_stage"] = (
            "the masks are changed at random, so that their mistakes can be put right: rates of nnU-Net's cascade"
        )
        return made, reasons
    reasons["3d_lowres"] = f"not planned: {coverage}, " + (
        f"at least {LOWRES_COVERAGE:g}"
        if covered >= LOWRES_COVERAGE
        else f"less than {LOWRES_COVERAGE:g}, but a grid where one would cover so much saves less than a factor {LOWRES_GAIN:g} of voxels"
    )
    add("3d_fullres", full, sized, False, "off: no 3d_lowres is called for, so a patch sees enough of a case")
    return made, reasons


def _configuration(grid: Grid, sized: Sized, common: Common, *, batch_dice: bool) -> tuple[Configuration, dict[str, str]]:
    """A configuration, and its reasons by field."""
    preset = common.preset
    axes = augmentation.mirror_axes(len(grid.spacing), common.transpose, common.mirror_excluded)
    augment, why_augment = augmentation.augmentation(sized.patch_size, common.normalisation, axes)
    if common.compared:
        augment, why_wider = centre_rules.widened(augment, common.compared[len(grid.spacing)], grid.spacing, common.transpose)
        why_augment |= why_wider
    reasons = {"spacing": grid.why, **sized.reasons}
    reasons |= {f"augmentation.{field}": why for field, why in why_augment.items()}
    reasons |= {f"training.{field}": f"preset {preset.name}" for field in _own_training(preset.training)}
    if not preset.mirror_inference:
        reasons["inference.mirror_axes"] = f"preset {preset.name}: averaging over flips multiplies the time of a prediction"
    configuration = Configuration(
        dimension=3 if len(grid.spacing) == 3 else 2,
        spacing=grid.spacing,
        median_shape=grid.median_shape,
        patch_size=sized.patch_size,
        batch_size=sized.batch_size,
        normalisation=common.normalisation,
        network=sized.network,
        training=preset.training.model_copy(update={"loss": DiceCELoss(batch_dice=batch_dice)}),
        augmentation=augment,
        inference=Inference(mirror_axes=axes if preset.mirror_inference else ()),
    )
    return configuration, reasons


def _own_training(training: Training) -> list[str]:
    """The fields that a preset gives another value than `Training` has by itself."""
    return [field for field in Training.model_fields if getattr(training, field) != getattr(Training(), field)]


def second_stage(configuration: Configuration, previous: str) -> Configuration:
    """The configuration that also sees the masks of `previous`, which training changes at random."""
    augment = configuration.augmentation.model_copy(update={"previous_stage": PreviousStageMasks()})
    return configuration.model_copy(update={"previous_stage": previous, "augmentation": augment})


def _why_ranges(compared: Comparison | None, comparable: bool) -> str:
    if compared is None:
        hint = " (--augmentation centres widens them by how far the centres lie apart)" if comparable else ""
        return f"nnU-Net's published ranges{hint}"
    if compared.why_not:
        return f"nnU-Net's published ranges: {compared.why_not}"
    apart = sum(spread.between > 0 for spread in compared.spreads)
    return (
        f"nnU-Net's published ranges, widened where its configurations say so: {len([c for c in compared.counts if c])} centres lie apart "
        f"by more than chance in {apart} of {len(compared.spreads)} measures"
    )
