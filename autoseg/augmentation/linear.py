"""Linear interpolation along the axes of a volume, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Taps:
    """For each output position along one axis: two source positions and their weights."""

    first: torch.Tensor
    second: torch.Tensor
    first_weight: torch.Tensor
    second_weight: torch.Tensor


def taps(coordinates: np.ndarray, size: int, *, zeros_outside: bool) -> Taps:
    """Where and how strongly to read for sampling at (fractional) positions along an axis of `size` voxels.

    Args:
        coordinates: float64 (n,), in voxels; voxel 0's centre is 0.
        size: voxels of the axis read from.
        zeros_outside: outside the axis lie zeros; else its end values go on.
    """
    if not zeros_outside:
        coordinates = np.clip(coordinates, 0, size - 1)
    start = np.floor(coordinates)
    fraction = coordinates - start
    first, second = start, start + 1
    weights = (1 - fraction) * ((first >= 0) & (first < size)), fraction * ((second >= 0) & (second < size))
    positions = [torch.from_numpy(np.clip(p, 0, size - 1).astype(np.int64)) for p in (first, second)]
    return Taps(*positions, *(torch.from_numpy(w.astype(np.float32)) for w in weights))


def sample_separably(volume: torch.Tensor, along: tuple[Taps, Taps, Taps]) -> torch.Tensor:
    """The volume (z, y, x) sampled on the grid that three axes' taps span: trilinear interpolation in three passes, plane by plane."""
    z, y, x = along
    planes = volume.new_empty(volume.shape[0], len(y.first), len(x.first))
    for source, plane in zip(volume, planes, strict=True):
        row = source.index_select(1, x.first).mul_(x.first_weight).addcmul_(source.index_select(1, x.second), x.second_weight)
        torch.mul(row.index_select(0, y.first), y.first_weight[:, None], out=plane)
        plane.addcmul_(row.index_select(0, y.second), y.second_weight[:, None])
    result = volume.new_empty(len(z.first), *planes.shape[1:])
    steps = zip(result, z.first.tolist(), z.second.tolist(), z.first_weight.tolist(), z.second_weight.tolist(), strict=True)
    for plane, first, second, first_weight, second_weight in steps:
        torch.mul(planes[first], first_weight, out=plane)
        plane.add_(planes[second], alpha=second_weight)
    return result
