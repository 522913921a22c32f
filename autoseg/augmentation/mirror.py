"""Flips along axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from planners.plan import Mirror


@dataclass(frozen=True)
class MirrorParameters:
    """`axes`: the spatial axes to flip, 0 = the first after the channel."""

    axes: tuple[int, ...]


def sample(spec: Mirror, rng: np.random.Generator) -> MirrorParameters | None:
    """The flips for one sample, or None where no axis is flipped."""
    axes = tuple(axis for axis, draw in zip(spec.axes, rng.random(len(spec.axes)), strict=True) if draw < spec.probability)
    return MirrorParameters(axes) if axes else None


def apply(array: torch.Tensor, parameters: MirrorParameters) -> torch.Tensor:
    """A flipped copy of images or labels (c, ...)."""
    return torch.flip(array, [axis + 1 for axis in parameters.axes])
