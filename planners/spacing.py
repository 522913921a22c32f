"""Which spacing to resample to, and which axis the network sees first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ANISOTROPY_THRESHOLD = 3.0
"""An axis counts as coarse where its spacing exceeds every other by more than this factor."""

COARSE_AXIS_PERCENTILE = 10.0
"""A coarse axis takes this percentile of its spacings in place of their median, so that fine cases lose less."""


@dataclass(frozen=True)
class TargetSpacing:
    """The spacing all cases are resampled to, mm in array order, and the rule that chose it."""

    spacing: tuple[float, ...]
    reason: str


def target_spacing(spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> TargetSpacing:
    """The spacing that planning resamples to: the median of each axis, except on a coarse axis.

    Args:
        spacings: one (z, y, x) a case, mm.
        shapes: one (z, y, x) a case, voxels after cropping, not resampled.

    Raises:
        ValueError: no cases, or lists of different length.

    Source: nnU-Net's fingerprint rule (Isensee et al., Nature Methods 2021, supplement "target spacing").
    """
    if not spacings or len(spacings) != len(shapes):
        raise ValueError(f"target_spacing needs one spacing and one shape a case, found {len(spacings)} and {len(shapes)}")
    all_spacings, all_shapes = np.asarray(spacings, dtype=float), np.asarray(shapes, dtype=float)
    target = np.percentile(all_spacings, 50, axis=0)
    size = np.percentile(all_shapes, 50, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != coarse]
    next_spacing, next_size = float(max(target[others])), float(min(size[others]))
    spread = (
        f"axis {coarse} has {target[coarse]:.4g} mm and {size[coarse]:g} voxels, "
        f"the others up to {next_spacing:.4g} mm and at least {next_size:g}"
    )
    if not (target[coarse] > ANISOTROPY_THRESHOLD * next_spacing and size[coarse] * ANISOTROPY_THRESHOLD < next_size):
        return TargetSpacing(
            _triple(target), f"median of {len(spacings)} cases on each axis ({spread}: not both 3 x coarser and 3 x shorter)"
        )
    low = float(np.percentile(all_spacings[:, coarse], COARSE_AXIS_PERCENTILE))
    # An axis made finer than the others would stop being the coarse one.
    target[coarse] = low if low >= next_spacing else next_spacing + 1e-5
    return TargetSpacing(
        _triple(target),
        f"median of {len(spacings)} cases, but axis {coarse} is coarse ({spread}): the 10th percentile of its spacings, {low:.4g} mm"
        + ("" if low >= next_spacing else ", and no finer than the others, so that it stays the coarse one"),
    )


def network_axes(spacing: Sequence[float], median_shape: Sequence[float]) -> tuple[tuple[int, int, int], str]:
    """The transpose from array to network order (numpy.transpose semantics) and its reason.

    The axis of the largest spacing comes first, the others keep their order. An axis with a single voxel in the median case comes first
    whatever its spacing: the images are slices.
    """
    single = [axis for axis in range(3) if median_shape[axis] == 1]
    first = max(single or range(3), key=lambda axis: (spacing[axis], -axis))
    a, b = (axis for axis in range(3) if axis != first)
    why = "has one voxel in the median case" if single else "has the largest target spacing"
    return (first, a, b), f"array axis {first} {why} ({spacing[first]:.4g} mm), so it comes first"


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> tuple[int, ...]:
    """The voxels a case has after resampling from one spacing to another (halves round to even)."""
    return tuple(round(old / new * size) for old, new, size in zip(spacing, new_spacing, shape, strict=True))


def median_resampled_shape(
    shapes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float]], new_spacing: Sequence[float]
) -> tuple[float, ...]:
    """The median over cases, axis by axis, of the shape after resampling."""
    resampled = [resampled_shape(shape, spacing, new_spacing) for shape, spacing in zip(shapes, spacings, strict=True)]
    return _triple(np.median(resampled, axis=0))


def _triple(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
