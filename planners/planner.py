"""Fingerprint + preset -> Plan. Pure: the same fingerprint gives the same plan on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from planners import augmentation, centre_rules, spacing
from planners.centres import Comparison, compare
from planners.fingerprint import Fingerprint
from planners.memory import element_count
from planners.normalisation import normalisations
from planners.plan import (
    Configuration,
    DiceCELoss,
    Inference,
    Network,
    Plan,
    PlanInvalid,
    PreviousStageMasks,
    Region,
    ResidualUNetSpec,
    SegResNetSpec,
    UNetSpec,
)
from planners.presets import Preset
from planners.presets import preset as find_preset
from planners.topology import Topology, topology

LOWRES_COVERAGE = 0.25
"""A patch that covers less of the median case than this calls for a low-resolution stage; that stage's patch covers at least so much."""

LOWRES_STEP = 1.03
"""Factor by which the low-resolution spacing grows a round."""

LOWRES_GAIN = 2.0
"""A low-resolution stage that saves less than this factor of voxels is not worth having."""

BATCH_MINIMUM = 2


@dataclass(frozen=True)
class Sized:
    """A patch, the network that fits it, and the batch that fits both."""

    patch_size: tuple[int, ...]
    batch_size: int
    network: Network
    reasons: dict[str, str]


@dataclass(frozen=True)
class Grid:
    """Spacing (mm) and median shape (voxels) of a configuration, network order, 2 or 3 entries; `why` the spacing is so."""

    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    why: str


@dataclass(frozen=True)
class Task:
    """What sizing needs to know of the dataset. `classes`: names in dataset.json, background and ignore included, as nnU-Net counts a
    network's outputs for its memory. `dataset_voxels`: of all training cases, resampled."""

    preset: Preset
    channels: int
    classes: int
    dataset_voxels: float


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
        region_of_interest: what of an image counts; the fingerprint is of that part.
        mirror_axes_excluded: array axes (0 = z, 1 = y, 2 = x) that are never flipped, since labels come in left/right pairs.
        centre_augmentation: whether augmentation is widened by how far the centres lie apart; else it is nnU-Net's.
        region_order: the value that each region is painted with, where the labels are regions.

    Returns:
        Configurations "2d", and for volumes "3d_fullres", and where its patch sees less than a quarter of the median case "3d_lowres" and
        "3d_cascade_fullres".

    Raises:
        PlanInvalid: an unknown preset, too little memory for any network, or a CT channel without any labelled voxel.

    Source: Isensee et al., "nnU-Net", Nature Methods 2021, and "nnU-Net Revisited", MICCAI 2024.
    """
    own = find_preset(preset)
    chosen = own if memory_gb is None else own.for_memory(memory_gb)
    target = spacing.target_spacing(fingerprint.spacings, fingerprint.shapes_after_crop)
    median = spacing.median_resampled_shape(fingerprint.shapes_after_crop, fingerprint.spacings, target.spacing)
    transpose, why_transpose = spacing.network_axes(target.spacing, median)
    full = Grid(tuple(target.spacing[axis] for axis in transpose), tuple(median[axis] for axis in transpose), target.reason)
    cases = len(fingerprint.cases) if training_cases is None else training_cases
    task = Task(chosen, len(fingerprint.channels), len({0, *fingerprint.labels.values()}), math.prod(full.median_shape) * cases)

    normalisation, reasons = normalisations(fingerprint)
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

    compared = compare(fingerprint, normalisation) if centre_augmentation else None
    reasons["augmentation"] = _why_ranges(compared)

    def build(name: str, grid: Grid, sized: Sized, batch_dice: bool, why_dice: str) -> Configuration:
        axes = augmentation.mirror_axes(len(grid.spacing), transpose, mirror_axes_excluded)
        augment, why_augment = augmentation.augmentation(sized.patch_size, normalisation, axes)
        if compared is not None:
            augment, why_wider = centre_rules.widened(augment, compared, grid.spacing, transpose)
            why_augment |= why_wider
        found = {"spacing": grid.why, **sized.reasons, "training.loss.batch_dice": why_dice}
        found |= {f"augmentation.{field}": why for field, why in why_augment.items()}
        if not chosen.mirror_inference:
            found["inference.mirror_axes"] = f"preset {chosen.name}: averaging over flips multiplies the time of a prediction"
        reasons.update({f"{name}.{field}": why for field, why in found.items()})
        return Configuration(
            dimension=3 if len(grid.spacing) == 3 else 2,
            spacing=grid.spacing,
            median_shape=grid.median_shape,
            patch_size=sized.patch_size,
            batch_size=sized.batch_size,
            normalisation=normalisation,
            network=sized.network,
            training=chosen.training.model_copy(update={"loss": DiceCELoss(batch_dice=batch_dice)}),
            augmentation=augment,
            inference=Inference(mirror_axes=axes if chosen.mirror_inference else ()),
        )

    slices = Grid(full.spacing[1:], full.median_shape[1:], f"the last two network axes of: {full.why}")
    configurations = {"2d": build("2d", slices, size(slices, task), True, "slices of a batch are small samples: one Dice over all")}
    if full.median_shape[0] == 1:
        reasons["3d_fullres"] = "not planned: the median case has one slice"
    else:
        sized = size(full, task)
        low = lowres(full, sized, task)
        coverage = f"a patch covers {math.prod(sized.patch_size) / math.prod(full.median_shape):.3g} of the median case"
        if low is None:
            reasons["3d_lowres"] = f"not planned: {coverage}, at least {LOWRES_COVERAGE:g} or close to it"
        else:
            reasons["3d_lowres"] = f"planned: {coverage}, less than {LOWRES_COVERAGE:g}"
            configurations["3d_lowres"] = build("3d_lowres", *low, False, "off: a patch sees much of a case")
        why_dice = "on: a patch sees a small part of a case" if low else "off: a patch sees much of a case"
        configurations["3d_fullres"] = build("3d_fullres", full, sized, low is not None, why_dice)
        if low is not None:
            configurations["3d_cascade_fullres"] = second_stage(configurations["3d_fullres"], "3d_lowres")
            reasons["3d_cascade_fullres"] = "3d_fullres with the masks of 3d_lowres as further input channels"
            reasons["3d_cascade_fullres.augmentation.previous_stage"] = (
                "the masks are changed at random, so that their mistakes can be put right: rates of nnU-Net's cascade"
            )
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
        reasons=reasons,
    )


def second_stage(configuration: Configuration, previous: str) -> Configuration:
    """The configuration that also sees the masks of `previous`, which training changes at random."""
    augment = configuration.augmentation.model_copy(update={"previous_stage": PreviousStageMasks()})
    return configuration.model_copy(update={"previous_stage": previous, "augmentation": augment})


def size(grid: Grid, task: Task) -> Sized:
    """The largest patch that the preset's memory allows on a grid, its network, and the batch.

    The patch starts with the aspect of isotropic tissue, no larger than the median case, and is shortened along the axis that covers
    most of the median case until the network's elements fit. What memory then remains goes to the batch.
    """
    bounds, stages = task.preset.size(len(grid.spacing)), task.preset.stages_maximum
    shape = topology(grid.spacing, _start_patch(grid, bounds.start_edge), stages)
    if shape.stages == 1:
        raise PlanInvalid(f"the median case, {_by(grid.median_shape)} voxels, is too small for a network: no axis can be halved")
    started = shape.patch_size
    while True:
        network = _network(shape, task.preset)
        elements = element_count(network, shape.patch_size, task.channels, task.classes)
        if elements * bounds.batch_floor <= bounds.elements * bounds.batch_reference:
            break
        shorter = _shorter(grid, shape, stages)
        if shorter.stages == 1:
            raise PlanInvalid(_too_little(task.preset, shape.patch_size, elements))
        shape = shorter
    fits = round(bounds.elements / elements * bounds.batch_reference)
    share = round(task.dataset_voxels * task.preset.dataset_share / math.prod(shape.patch_size))
    batch = max(min(fits, share), BATCH_MINIMUM)
    limit = f"the batch of {bounds.batch_reference} at {bounds.elements:.3g} elements a sample scales to {fits}"
    cap = f"{task.preset.dataset_share:.0%} of the dataset's voxels are {share} patches"
    return Sized(
        shape.patch_size,
        batch,
        network,
        {
            "patch_size": f"{_by(started)} with the aspect of isotropic tissue inside the median case {_by(grid.median_shape)}, "
            f"shortened to {_by(shape.patch_size)}: {elements:.4g} elements a sample, preset {task.preset.name} allows "
            f"{bounds.elements * bounds.batch_reference / bounds.batch_floor:.4g}",
            "batch_size": f"{batch}: {limit}; {cap}; at least {BATCH_MINIMUM}",
            "network": f"{shape.stages} stages: each axis of {_by(shape.patch_size)} at {_by(grid.spacing)} mm is halved while 4 voxels "
            f"remain and its spacing is within a factor 2 of the finest{_at_most(stages)}; {task.preset.features_base} features, doubled "
            f"to at most {bounds.features_maximum}",
        },
    )


def _too_little(preset: Preset, patch: Sequence[int], elements: int) -> str:
    bounds = preset.size(len(patch))
    needed = elements * bounds.batch_floor / (bounds.elements * bounds.batch_reference) * preset.memory_gb
    return (
        f"{preset.memory_gb:g} GB are too little for preset {preset.name}: its smallest {len(patch)}-D network, for a patch of "
        f"{_by(patch)} voxels, is taken to need {needed:.2g} GB. Plan for more, or take a smaller preset"
    )


def lowres(full: Grid, sized: Sized, task: Task) -> tuple[Grid, Sized] | None:
    """The low-resolution grid and what fits it; None where full resolution sees enough, or the gain is too small."""
    voxels = math.prod(full.median_shape)
    if math.prod(sized.patch_size) / voxels >= LOWRES_COVERAGE:
        return None
    cases = task.dataset_voxels / voxels
    coarser = list(full.spacing)
    while True:
        # The finest axes grow alone until the grid is within a factor 2 of isotropic.
        fine = [max(coarser) / s > 2 for s in coarser]
        coarser = [s * LOWRES_STEP if grows or not any(fine) else s for s, grows in zip(coarser, fine, strict=True)]
        shape = [old / new * n for old, new, n in zip(full.spacing, coarser, full.median_shape, strict=True)]
        why = f"{_by(full.spacing)} mm grown by {LOWRES_STEP} a round until a patch covers {LOWRES_COVERAGE:g} of the median case"
        grid = Grid(tuple(coarser), tuple(float(max(round(n), 1)) for n in shape), why)
        low = size(grid, replace(task, dataset_voxels=math.prod(shape) * cases))
        if math.prod(low.patch_size) / math.prod(shape) >= LOWRES_COVERAGE:
            break
    return (grid, low) if voxels / math.prod(shape) >= LOWRES_GAIN else None


def _start_patch(grid: Grid, edge: int) -> tuple[float, ...]:
    dimension = len(grid.spacing)
    aspect = [1 / s for s in grid.spacing]
    scale = (edge**dimension / math.prod(aspect)) ** (1 / dimension)
    return tuple(min(max(round(a * scale), 1), n) for a, n in zip(aspect, grid.median_shape, strict=True))


def _shorter(grid: Grid, shape: Topology, stages: int | None) -> Topology:
    """The next smaller patch: one step shorter along the axis that covers most of the median case (the last such axis)."""
    cover = [patch / n for patch, n in zip(shape.patch_size, grid.median_shape, strict=True)]
    axis = max(range(len(cover)), key=lambda a: (cover[a], a))

    def cut(step: int) -> tuple[int, ...]:
        return tuple(n - step if a == axis else n for a, n in enumerate(shape.patch_size))

    # A shorter axis may be halved less often, and then a smaller step will do.
    step = topology(grid.spacing, cut(shape.divisor[axis]), stages).divisor[axis]
    return topology(grid.spacing, cut(step), stages)


def _network(shape: Topology, preset: Preset) -> Network:
    widest = preset.size(len(shape.patch_size)).features_maximum
    features = tuple(min(preset.features_base * 2**stage, widest) for stage in range(shape.stages))
    blocks = tuple(preset.encoder_blocks[min(stage, len(preset.encoder_blocks) - 1)] for stage in range(shape.stages))
    decoder = (preset.decoder_blocks,) * (shape.stages - 1)
    stages: dict[str, Any] = {"features": features, "strides": shape.strides, "kernels": shape.kernels}
    if preset.network == "unet":
        return UNetSpec(**stages, convs_per_stage=blocks, convs_per_decoder_stage=decoder)
    if preset.network == "segresnet":
        return SegResNetSpec(**stages, blocks_per_stage=blocks, blocks_per_decoder_stage=decoder)
    return ResidualUNetSpec(**stages, blocks_per_stage=blocks, convs_per_decoder_stage=decoder)


def _at_most(stages: int | None) -> str:
    return "" if stages is None else f", at most {stages} stages"


def _why_ranges(compared: Comparison | None) -> str:
    if compared is None:
        return "nnU-Net's published ranges (--augmentation centres widens them by how far the centres lie apart)"
    if compared.why_not:
        return f"nnU-Net's published ranges: {compared.why_not}"
    apart = sum(spread.between > 0 for spread in compared.spreads)
    return (
        f"nnU-Net's published ranges, widened where its configurations say so: {len([c for c in compared.counts if c])} centres lie apart "
        f"by more than chance in {apart} of {len(compared.spreads)} measures"
    )


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
