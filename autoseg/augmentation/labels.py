"""Labels under an affine map: linear interpolation of their one-hot maps and the largest of them, computed only where it is in doubt.

Where the 2 x 2 x 2 voxels around a position agree, their label is the answer. Only the rest, the surfaces of the objects, needs weights.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from autoseg.augmentation.affine import cells, rim_if_needed

OUTSIDE = -1
_MIXED = -32768
_CORNERS = tuple(product((0, 1), repeat=3))
_AT_ONCE = 4096


def sample_labels(labels: torch.Tensor, affine: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """The label at `affine @ output_voxel + offset` for every voxel of the output.

    Exactly: every label's indicator, and that of -1 for what lies outside, interpolated linearly in float64; the largest wins, and of equal
    ones the lowest label.

    Args:
        labels: int16 (z, y, x).
        affine, offset: (3, 3) and (3,) float64, from output to input voxels.
        shape: of the output, three axes.

    Returns:
        int16 of that shape.
    """
    volume, offset = rim_if_needed(labels, OUTSIDE, affine, offset, shape)
    agreed = _agreed(volume).view(-1)
    result = torch.empty(shape, dtype=torch.int16)
    for place, index, _ in cells(affine, offset, shape, tuple(volume.shape)):
        # The cell is found in float32. Within rounding of a face it may be the neighbour; if that is of one label, so is the face, which
        # has nearly all of the weight, and the answer is the same.
        result[place] = agreed.index_select(0, index.view(-1)).view(index.shape)
    flat = result.view(-1)
    for voxels in (flat == _MIXED).nonzero()[:, 0].split(_AT_ONCE):
        flat[voxels] = _largest(volume, _positions(voxels, affine, offset, shape))
    return result


def _agreed(volume: torch.Tensor) -> torch.Tensor:
    """For each voxel the label that it and its seven next neighbours carry, else `_MIXED`; on the same grid, so that indices are shared.

    Neighbours are shifts of the flat planes. What that compares across the ends of lines belongs to no cell and is never looked up.
    """
    depth, _, row = volume.shape
    planes = volume.numpy().reshape(depth, -1)
    result = planes.copy()
    mixed_below = _mixed_squares(planes[0], row)
    for z in range(depth - 1):
        mixed = _mixed_squares(planes[z + 1], row)
        mixed_below |= mixed
        mixed_below |= planes[z] != planes[z + 1]
        np.copyto(result[z], _MIXED, where=mixed_below)
        mixed_below = mixed
    return torch.from_numpy(result)


def _mixed_squares(plane: np.ndarray, row: int) -> np.ndarray:
    """Whether a voxel of a flat plane differs from any of its three next neighbours."""
    along = np.zeros(plane.size, dtype=bool)
    np.not_equal(plane[1:], plane[:-1], out=along[:-1])
    mixed = along.copy()
    mixed[:-row] |= along[row:]
    mixed[:-row] |= plane[row:] != plane[:-row]
    return mixed


def _positions(voxels: torch.Tensor, affine: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Where flat output voxels lie in the volume: (3, n) float64."""
    output = torch.stack(torch.unravel_index(voxels, shape)).double()
    return torch.from_numpy(affine) @ output + torch.from_numpy(offset)[:, None]


def _largest(volume: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The label with the largest sum of trilinear weights among the eight neighbours of each position (3, n); int16 (n,)."""
    ends = torch.tensor(volume.shape)[:, None] - 1
    inside = positions.clamp(min=torch.zeros_like(ends), max=ends)
    corner = torch.minimum(inside.floor(), ends - 1)
    high = inside - corner
    by_z, by_y, by_x = torch.stack((1 - high, high), 1)
    weights = (by_z[:, None, None] * by_y[:, None] * by_x).view(len(_CORNERS), -1)
    strides = torch.tensor(volume.stride())
    steps = torch.tensor(_CORNERS) @ strides
    index = (corner.long() * strides[:, None]).sum(0) + steps[:, None]
    found = volume.view(-1).index_select(0, index.view(-1)).view(index.shape)
    low, high_label = found.amin(0), found.amax(0)
    is_low, is_high = found == low, found == high_label
    result = torch.where((weights * is_low).sum(0) >= (weights * is_high).sum(0), low, high_label)
    several = (~(is_low | is_high)).any(0).nonzero()[:, 0]
    if len(several):
        result[several] = _largest_of_several(found[:, several], weights[:, several])
    return result


def _largest_of_several(found: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The same for three labels and more: each corner collects the weights of the corners that carry its label, so the cost does not grow
    with the number of labels."""
    score = torch.zeros_like(weights)
    for label, weight in zip(found, weights, strict=True):
        score.add_((found == label) * weight)
    best = score.amax(0)
    return torch.where(score == best, found, torch.iinfo(torch.int16).max).amin(0)
