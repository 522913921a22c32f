"""Walk over an affine sampling grid: for each output voxel the corner of the input cell that it falls into, and where in the cell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch.nn import functional

TILE = (16, 32, 32)
"""Output voxels handled at once: what a tile reads lies close together, however it is turned, and stays in cache; a slab's does not."""

Slices = tuple[slice, slice, slice]


def rim_if_needed(
    volume: torch.Tensor, value: float, affine: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]
) -> tuple[torch.Tensor, np.ndarray]:
    """The volume (z, y, x) contiguous, with one voxel of `value` on every side if the grid leaves it, and the offset into that."""
    corners = np.array(list(product(*((0, n - 1) for n in shape)))) @ affine.T + offset
    ends = np.array(volume.shape) - 1
    if min(volume.shape) > 1 and (corners >= 0).all() and (corners <= ends).all():
        return volume.contiguous(), offset
    return functional.pad(volume, (1,) * 6, value=value), offset + 1


def cells(
    affine: np.ndarray, offset: np.ndarray, shape: tuple[int, ...], volume_shape: tuple[int, ...]
) -> Iterator[tuple[Slices, torch.Tensor, list[torch.Tensor]]]:
    """Tile by tile of the output, where `affine @ output_voxel + offset` lies in a volume. Positions beyond it are moved onto its edge.

    Args:
        affine, offset: (3, 3) and (3,) float64, from output voxels to voxels of the volume.
        shape: the output's, three axes.
        volume_shape: three axes, each at least 2.

    Yields:
        The tile's place in the output; int32, flat index of each cell's lowest corner; its position in the cell, float32 in [0, 1] for each
        axis. Both of the tile's shape.
    """
    strides = (volume_shape[1] * volume_shape[2], volume_shape[2], 1)
    depth, rows, columns = (torch.arange(n, dtype=torch.float64) for n in shape)
    along = [(affine[axis, 0] * depth).float()[:, None, None] for axis in range(3)]
    in_plane = [(affine[axis, 1] * rows[:, None] + affine[axis, 2] * columns + offset[axis]).float() for axis in range(3)]
    starts = [range(0, n, tile) for n, tile in zip(shape, TILE, strict=True)]
    for corner in product(*starts):
        place = tuple(slice(start, start + tile) for start, tile in zip(corner, TILE, strict=True))
        index, fractions = torch.zeros((), dtype=torch.int32), []
        for axis in range(3):
            position = torch.add(in_plane[axis][place[1:]], along[axis][place[0]]).clamp_(0, volume_shape[axis] - 1)
            lowest = position.floor().clamp_(max=volume_shape[axis] - 2)
            fractions.append(position.sub_(lowest))
            index = torch.add(index, lowest.int(), alpha=strides[axis])
        yield place, index, fractions


def trilinear(volume: torch.Tensor, index: torch.Tensor, fractions: list[torch.Tensor]) -> torch.Tensor:
    """A contiguous volume interpolated at what `cells` yields; float32 of the tile's shape."""
    flat, (depth, row, _) = volume.view(-1), volume.stride()
    places = index.view(-1)
    by_z, by_y, by_x = (fraction.view(-1) for fraction in fractions)
    planes = []
    for plane in (0, depth):
        lines = []
        for line in (plane, plane + row):
            first, second = (flat[line + step :].index_select(0, places) for step in (0, 1))
            lines.append(torch.lerp(first, second, by_x, out=first))
        planes.append(torch.lerp(lines[0], lines[1], by_y, out=lines[0]))
    return torch.lerp(planes[0], planes[1], by_z, out=planes[0]).view(index.shape)
