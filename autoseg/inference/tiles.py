"""Where the tiles of a sliding window lie and how much each of them counts: pure arithmetic on axes.

Tiles form a product grid and the Gaussian is a product of one curve an axis. So the sum of all weights at a voxel is a product too, and
each axis can be normalised by itself: the weights of all tiles that cover a voxel add up to 1, and nothing has to be divided afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np


@dataclass(frozen=True)
class AxisTiles:
    """The tiles along one axis.

    Attributes:
        length: voxels of the image.
        patch: voxels of a tile.
        starts: first voxel of each tile, ascending; one negative entry where the image is shorter than the tile, which is padded on
            both sides.
        weights: float32 of shape (tiles, patch); at each voxel of the image the weights of all tiles add up to 1.
    """

    length: int
    patch: int
    starts: tuple[int, ...]
    weights: np.ndarray

    def inside(self, index: int) -> tuple[slice, slice]:
        """(where in the image, where in the tile) tile `index` lies inside the image."""
        start = self.starts[index]
        low, high = max(start, 0), min(start + self.patch, self.length)
        return slice(low, high), slice(low - start, high - start)


def tile_starts(length: int, patch: int, step: float) -> tuple[int, ...]:
    """First voxel of each tile along an axis: evenly spaced from end to end, at most `step` x `patch` (but a whole voxel) apart.

    Args:
        length: voxels of the image.
        patch: voxels of a tile. A shorter image gets one tile with a negative start: it is padded on both sides, the odd voxel behind.
        step: largest distance between two tiles as a share of the patch, in (0, 1].

    Raises:
        ValueError: `step` is outside (0, 1], or a size is below 1.

    Source: nnU-Net (Isensee et al., Nature Methods 2021): ceil((length - patch) / (step * patch)) + 1 tiles at rounded even distances.
    """
    if not 0 < step <= 1:
        raise ValueError(f"step must be above 0 and at most 1, found {step}")
    if length < 1 or patch < 1:
        raise ValueError(f"length and patch must be at least 1, found {length} and {patch}")
    if length <= patch:
        return (-((patch - length) // 2),)
    last = length - patch
    # Never two tiles at one voxel: along the slices of a 2-D network, patches of one voxel, they would be the same tile twice.
    count = min(math.ceil(last / (patch * step)) + 1, last + 1)
    # Python's round and numpy's both go to the even neighbour at .5, as the rule's source does.
    return tuple(round(last / (count - 1) * i) for i in range(count))


def gaussian(patch: int, sigma: float) -> np.ndarray:
    """The weight of each voxel of a tile along one axis, float64 of shape (patch,), 1 at the centre voxel `patch // 2`.

    Args:
        patch: voxels of a tile.
        sigma: standard deviation as a share of the patch.

    Source: nnU-Net's importance weighting: the product over the axes of exp(-d^2 / (2 (sigma patch)^2)).
    """
    distance = np.arange(patch) - patch // 2
    curve = np.exp(-0.5 * (distance / (sigma * patch)) ** 2)
    return np.maximum(curve, np.finfo(np.float32).tiny)  # a very small sigma underflows, and a weight of 0 would divide by 0


def axis_tiles(length: int, patch: int, step: float, sigma: float) -> AxisTiles:
    """The tiles along one axis with their normalised weights; arguments as in `tile_starts` and `gaussian`.

    Raises:
        ValueError: as `tile_starts`.
    """
    starts = tile_starts(length, patch, step)
    curve = gaussian(patch, sigma)
    offset = -min(starts[0], 0)
    total = np.zeros(max(length, patch))
    for start in starts:
        total[start + offset : start + offset + patch] += curve
    weights = np.stack([curve / total[start + offset : start + offset + patch] for start in starts])
    return AxisTiles(length, patch, starts, weights.astype(np.float32))


@dataclass(frozen=True)
class TileGrid:
    """All tiles of an image: the product of one `AxisTiles` for each of three axes."""

    axes: tuple[AxisTiles, AxisTiles, AxisTiles]

    def __len__(self) -> int:
        return math.prod(len(axis.starts) for axis in self.axes)

    def rows(self) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
        """For each tile index along the slab axis, ascending: (index, the tiles of that row)."""
        others = [range(len(axis.starts)) for axis in self.axes[1:]]
        for first in range(len(self.axes[0].starts)):
            yield first, [(first, *rest) for rest in product(*others)]


def tile_grid(shape: tuple[int, int, int], patch: tuple[int, int, int], step: float, sigma: float) -> TileGrid:
    """The tiles that cover an image of `shape` (voxels, network order) with tiles of `patch`.

    Raises:
        ValueError: as `tile_starts`.
    """
    first, second, third = (axis_tiles(n, p, step, sigma) for n, p in zip(shape, patch, strict=True))
    return TileGrid((first, second, third))


def flips(axes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Every subset of the axes, the empty one first: the mirrored views over which logits are averaged."""
    return tuple(tuple(axis for bit, axis in enumerate(axes) if number >> bit & 1) for number in range(1 << len(axes)))
