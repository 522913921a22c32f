"""From a patch and its spacing to the strides and kernels of a U-Net."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MINIMUM_EDGE = 4
"""No feature map gets shorter than this."""


@dataclass(frozen=True)
class Topology:
    """A U-Net's shape: one stride and one kernel a stage; `patch_size` is the patch padded to a multiple of `divisor` on each axis."""

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    divisor: tuple[int, ...]
    patch_size: tuple[int, ...]

    @property
    def stages(self) -> int:
        """Resolution levels, the bottleneck included."""
        return len(self.strides)


def topology(spacing: Sequence[float], patch_size: Sequence[float], stages_maximum: int | None = None) -> Topology:
    """How often, and when, each axis is halved, and which kernels stand at each level.

    An axis is halved while that leaves at least 4 voxels, and only together with the axes whose spacing lies within a factor 2 of the
    finest axis that can still be halved; so a coarse axis waits until the others have caught up. A kernel spans 3 voxels along an axis as
    soon as that axis' spacing lies within a factor 2 of the finest axis of all.

    Args:
        spacing: mm, network order, 2 or 3 entries.
        patch_size: voxels in the same order; fractions are allowed and padded up.
        stages_maximum: halving ends with this many resolution levels, whatever remains.

    Source: nnU-Net's network rule (Isensee et al., Nature Methods 2021, supplement "network topology").
    """
    dimension = len(spacing)
    now, size = list(spacing), list(patch_size)
    kernel = [1] * dimension
    strides, kernels = [(1,) * dimension], []
    divisor = [1] * dimension
    while stages_maximum is None or len(strides) < stages_maximum:
        halvable = [axis for axis in range(dimension) if size[axis] >= 2 * MINIMUM_EDGE]
        if not halvable:
            break
        finest = min(now[axis] for axis in halvable)
        chosen = [axis for axis in halvable if now[axis] / finest < 2]
        if len(chosen) == 1 and size[chosen[0]] < 3 * MINIMUM_EDGE:
            break
        kernel = [3 if k == 3 or s / min(now) < 2 else 1 for k, s in zip(kernel, now, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in chosen else 1 for axis in range(dimension)))
        for axis in chosen:
            now[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
            divisor[axis] *= 2
    kernels.append((3,) * dimension)
    padded = tuple(math.ceil(length / step) * step for length, step in zip(patch_size, divisor, strict=True))
    return Topology(tuple(strides), tuple(kernels), tuple(divisor), padded)
