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
    """The label with the largest sum of trilinear weights among eight neighbours: each corner collects the weights of the corners that
    carry its label, so the cost does not grow with the number of labels."""
    ends = torch.tensor(volume.shape)[:, None] - 1
    inside = positions.clamp(min=torch.zeros_like(ends), max=ends)
    corner = torch.minimum(inside.floor(), ends - 1)
    high = inside - corner
    shares = torch.stack((1 - high, high))
    steps = torch.tensor(_CORNERS).T
    weights = shares[steps[0], 0] * shares[steps[1], 1] * shares[steps[2], 2]
    z, y, x = corner.long()[:, None] + steps[..., None]
    found = volume[z, y, x]
    score = torch.zeros_like(weights)
    for label, weight in zip(found, weights, strict=True):
        score.add_((found == label) * weight)
    best = score.max(0).values
    return torch.where(score == best, found, torch.iinfo(torch.int16).max).min(0).values
