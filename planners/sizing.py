"""Patch, network and batch of a configuration: the largest that a preset's memory allows; and the grid of a low-resolution stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from planners.memory import element_count
from planners.plan import Network, PlanInvalid, ResidualUNetSpec, SegResNetSpec, UNetSpec
from planners.presets import Preset
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


def size(grid: Grid, task: Task) -> Sized:
    """The largest patch that the preset's memory allows on a grid, its network, and the batch.

    The patch starts with the aspect of isotropic tissue, no larger than the median case, and is shortened along the axis that covers
    most of the median case until the network's elements fit. What memory then remains goes to the batch.
    """
    bounds, stages = task.preset.size(len(grid.spacing)), task.preset.stages_maximum
    shape = topology(grid.spacing, _start_patch(grid, bounds.start_edge), stages)
    if shape.stages == 1:
        raise PlanInvalid(f"the median case, {by(grid.median_shape)} voxels, is too small for a network: no axis can be halved")
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
            "patch_size": f"{by(started)} with the aspect of isotropic tissue inside the median case {by(grid.median_shape)}, "
            f"shortened to {by(shape.patch_size)}: {elements:.4g} elements a sample, preset {task.preset.name} allows "
            f"{bounds.elements * bounds.batch_reference / bounds.batch_floor:.4g}",
            "batch_size": f"{batch}: {limit}; {cap}; at least {BATCH_MINIMUM}",
            "network": f"{shape.stages} stages: each axis of {by(shape.patch_size)} at {by(grid.spacing)} mm is halved while 4 voxels "
            f"remain and its spacing is within a factor 2 of the finest{_at_most(stages)}; {task.preset.features_base} features, doubled "
            f"to at most {bounds.features_maximum}",
        },
    )


def _too_little(preset: Preset, patch: Sequence[int], elements: int) -> str:
    bounds = preset.size(len(patch))
    needed = elements * bounds.batch_floor / (bounds.elements * bounds.batch_reference) * preset.memory_gb
    return (
        f"{preset.memory_gb:g} GB are too little for preset {preset.name}: its smallest {len(patch)}-D network, for a patch of "
        f"{by(patch)} voxels, is taken to need {needed:.2g} GB. Plan for more, or take a smaller preset"
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
        why = f"{by(full.spacing)} mm grown by {LOWRES_STEP} a round until a patch covers {LOWRES_COVERAGE:g} of the median case"
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


def by(values: Sequence[float]) -> str:
    """Numbers for people: 128 x 128 x 96."""
    return " x ".join(f"{value:.4g}" for value in values)
