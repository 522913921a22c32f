"""The part of a case that holds anything: where voxels are not 0, holes filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[tuple[int, int], ...]
"""One (start, stop) an axis."""


def nonzero_box(channels: Sequence[np.ndarray]) -> Box:
    """The bounding box of the voxels that are not 0 in any channel; the whole array where there are none.

    Filling holes would not change it: what a closed shape encloses lies inside its bounding box.

    Args:
        channels: arrays of the same shape, any number of axes.
    """
    boxes = [box for box in (bounding_box(channel) for channel in channels) if box is not None]
    if not boxes:
        return tuple((0, size) for size in channels[0].shape)
    return tuple((min(start for start, _ in axis), max(stop for _, stop in axis)) for axis in zip(*boxes, strict=True))


def bounding_box(array: np.ndarray) -> Box | None:
    """The smallest box around the voxels that are not 0; None where all are."""
    # Planes are judged from the outside inwards, so that a full image costs two planes an axis.
    box: list[tuple[int, int]] = []
    view = array
    for axis in range(array.ndim):
        planes = np.moveaxis(view, axis, 0)
        start = next((i for i in range(len(planes)) if planes[i].any()), None)
        if start is None:
            return None
        stop = next(i for i in range(len(planes), start, -1) if planes[i - 1].any())
        box.append((start, stop))
        view = planes[start:stop]
        view = np.moveaxis(view, 0, axis)
    return tuple(box)


def slices(box: Box) -> tuple[slice, ...]:
    """The box as an index."""
    return tuple(slice(start, stop) for start, stop in box)


def nonzero_mask(channels: Sequence[np.ndarray]) -> np.ndarray | None:
    """The hole-filled union over channels of (voxel != 0), as bool; None where that is every voxel.

    A hole is a region of zeros, connected through faces, that does not reach the border of the array. Inside the box of `nonzero_box`
    the result is the same as in the whole image.

    Args:
        channels: arrays of the same shape (z, y, x).
    """
    empty = channels[0] == 0
    for channel in channels[1:]:
        empty &= channel == 0
    if not empty.any():
        return None
    import cc3d

    regions, count = cc3d.connected_components(empty, connectivity=6, return_N=True)
    outside = np.zeros(count + 1, dtype=bool)
    for axis in range(empty.ndim):
        for index in (0, -1):
            outside[np.unique(np.take(regions, index, axis=axis))] = True
    outside[0] = False
    if not outside.any():
        return None
    return ~outside[regions]
