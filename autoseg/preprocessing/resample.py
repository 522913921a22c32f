"""Images and masks onto another grid, equal to what nnU-Net does with scikit-image and scipy.

Where voxels are anisotropic (`separate_axis`) the coarse axis is resampled apart, nearest neighbour, and the other two plane by plane.
Everything works in float32 and a slab at a time, beside the input and the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from autoseg.preprocessing.axes import axis_bands, axis_matrix, linear_axis, nearest_index
from planners.plan import Resampling

__all__ = [
    "axis_matrix",
    "linear_axis",
    "nearest_index",
    "new_shape",
    "resample_channel",
    "resample_image",
    "resample_labels",
    "separate_axis",
]

SLAB_VALUES = 1 << 19
"""Values a slab: its intermediate results stay in a processor's cache."""


def new_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> tuple[int, ...]:
    """The shape that covers the same extent at another spacing: round(spacing / new * size), at least 1."""
    return tuple(max(1, round(s / t * n)) for s, t, n in zip(spacing, new_spacing, shape, strict=True))


def separate_axis(spacing: Sequence[float], new_spacing: Sequence[float], ratio: float = 3.0) -> int | None:
    """The axis to be resampled apart; None where all go together.

    It is the axis of the largest spacing, in the image where its spacings differ by more than `ratio`, else in the target where those
    do. Two axes that tie for the largest leave none.

    Source: nnU-Net (Isensee et al., Nature Methods 2021), rule of its default preprocessor.
    """
    for candidate in (spacing, new_spacing):
        if max(candidate) / min(candidate) > ratio:
            coarse = [axis for axis, value in enumerate(candidate) if value == max(candidate)]
            return coarse[0] if len(coarse) == 1 else None
    return None


def resample_image(
    array: np.ndarray, shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float], rule: Resampling
) -> np.ndarray:
    """Channels on a new grid, each within its old range (float32 (c, *shape)).

    Args:
        array: (c, z, y, x), finite.
        shape: the new (z, y, x).
        spacing, new_spacing: mm; they decide only about `separate_axis`.
        rule: orders and the ratio from which on an axis is resampled apart.
    """
    coarse = separate_axis(spacing, new_spacing, rule.separate_z_ratio)
    out = np.empty((len(array), *shape), dtype=np.float32)
    for channel, target in zip(array, out, strict=True):
        resample_channel(channel, target, coarse, rule.image_order)
    return out


def resample_channel(channel: np.ndarray, out: np.ndarray, coarse: int | None, order: int) -> None:
    """One channel (z, y, x) resampled into `out`, a float32 array of the new shape.

    `coarse`: the axis resampled apart, from `separate_axis`. The spline overshoots: values are clipped to the range of the channel, or
    of each plane where planes are resampled one by one.
    """
    if channel.shape == out.shape:
        out[...] = channel
    elif coarse is None:
        _volume(channel, out, order)
    else:
        _planes(np.moveaxis(channel, coarse, 0), np.moveaxis(out, coarse, 0), order)


def _planes(channel: np.ndarray, out: np.ndarray, order: int) -> None:
    source = nearest_index(len(channel), len(out))
    for i, k in enumerate(source):
        if i and k == source[i - 1]:
            out[i] = out[i - 1]
            continue
        plane = np.ascontiguousarray(channel[k], dtype=np.float32)
        resampled = _in_plane(plane, out.shape[1:], order)
        if order > 1:
            np.clip(resampled, plane.min(), plane.max(), out=resampled)
        out[i] = resampled


def _volume(channel: np.ndarray, out: np.ndarray, order: int) -> None:
    channel = np.ascontiguousarray(channel, dtype=np.float32)
    # The first axis is taken where the array is smaller: before the planes if it shrinks, after them if it grows.
    if len(out) < len(channel):
        _slabs_in_plane(_first_axis(channel, len(out), order), out, order)
    elif len(out) > len(channel):
        planes = channel
        if channel.shape[1:] != out.shape[1:]:
            planes = np.empty((len(channel), *out.shape[1:]), dtype=np.float32)
            _slabs_in_plane(channel, planes, order)
        _first_axis(planes, len(out), order, out)
    else:
        _slabs_in_plane(channel, out, order)
    if order > 1:
        np.clip(out, channel.min(), channel.max(), out=out)


def _first_axis(array: np.ndarray, n_out: int, order: int, out: np.ndarray | None = None) -> np.ndarray:
    if out is None or not out.flags.c_contiguous:
        result = np.empty((n_out, *array.shape[1:]), dtype=np.float32)
    else:
        result = out
    axis_bands(len(array), n_out, order).apply(array.reshape(len(array), -1), -2, result.reshape(n_out, -1))
    if out is not None and out is not result:
        out[...] = result
    return result


def _slabs_in_plane(array: np.ndarray, out: np.ndarray, order: int) -> None:
    depth = max(1, SLAB_VALUES // max(1, out[0].size, array[0].size))
    for start in range(0, len(array), depth):
        out[start : start + depth] = _in_plane(array[start : start + depth], out.shape[1:], order)


def _in_plane(array: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """The last two axes resampled, the one that shrinks more first."""
    axes = sorted((-2, -1), key=lambda axis: shape[axis] / array.shape[axis])
    for axis in axes:
        if array.shape[axis] != shape[axis]:
            array = axis_bands(array.shape[axis], shape[axis], order).apply(array, axis)
    return array


def resample_labels(
    labels: np.ndarray, shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float], rule: Resampling
) -> np.ndarray:
    """A mask on a new grid: the label whose share, interpolated linearly as 0 and 1, is largest.

    Labels that tie for the largest share: the nearest voxel's one if it is among them, else the smallest. The coarse axis
    (`separate_axis`) is nearest neighbour. Shares are computed in float64 and in scipy's order of operations, so that ties are the same
    as in batchgenerators' `resize_segmentation`, and only where a voxel's neighbours differ, so that the cost does not depend on the
    number of labels.

    Args:
        labels: integers (z, y, x), -1 allowed.
        shape: the new (z, y, x).
        spacing, new_spacing: mm; they decide only about `separate_axis`.
        rule: `label_order` 1 as above; 0 is nearest neighbour along all axes.
    """
    shape = tuple(shape)
    coarse = separate_axis(spacing, new_spacing, rule.separate_z_ratio)
    for axis in range(labels.ndim):
        if labels.shape[axis] != shape[axis] and (rule.label_order == 0 or axis == coarse):
            labels = np.take(labels, nearest_index(labels.shape[axis], shape[axis]), axis=axis)
    if labels.shape == shape:
        return np.array(labels, order="C")
    mixed = _mixed_cells(labels)
    taps = [linear_axis(n_in, n_out) for n_in, n_out in zip(labels.shape, shape, strict=True)]
    nearest = [nearest_index(n_in, n_out) for n_in, n_out in zip(labels.shape, shape, strict=True)]
    out = np.empty(shape, dtype=labels.dtype)
    depth = max(1, SLAB_VALUES // out[0].size)
    for start in range(0, shape[0], depth):
        rows = slice(start, start + depth)
        out[rows] = _pick(labels, [nearest[0][rows], *nearest[1:]])
        unsure = np.nonzero(_pick(mixed, [taps[0][0][rows], taps[1][0], taps[2][0]]))
        voxels = (unsure[0] + start, *unsure[1:])
        out[voxels] = _largest_share(labels, taps, voxels, out[voxels])
    return out


def _pick(array: np.ndarray, indices: Sequence[np.ndarray]) -> np.ndarray:
    for axis, index in enumerate(indices):
        if len(index) != array.shape[axis] or (index != np.arange(len(index))).any():
            array = np.take(array, index, axis=axis)
    return array


def _mixed_cells(labels: np.ndarray) -> np.ndarray:
    """Whether the cell of voxels (i, i + 1) along each axis holds more than one label (bool, shape of `labels`)."""
    low = high = labels
    for axis in range(labels.ndim):
        low, high = _with_next(low, axis, np.minimum), _with_next(high, axis, np.maximum)
    return low != high


def _with_next(array: np.ndarray, axis: int, join: np.ufunc) -> np.ndarray:
    result = array.copy()
    target, source = np.moveaxis(result, axis, 0), np.moveaxis(array, axis, 0)
    join(source[:-1], source[1:], out=target[:-1])
    return result


def _largest_share(
    labels: np.ndarray, taps: Sequence[tuple[np.ndarray, ...]], voxels: Sequence[np.ndarray], nearest: np.ndarray
) -> np.ndarray:
    """The label with the largest share at some output voxels; `nearest`: the nearest input voxels' labels."""
    neighbours = []
    for (lower, upper, weight), places in zip(taps, voxels, strict=True):
        neighbours.append(((lower[places], 1 - weight[places]), (upper[places], weight[places])))
    corners = []
    for corner in product(*neighbours):
        share = corner[0][1]
        for _, weight in corner[1:]:
            share = share * weight
        corners.append((labels[tuple(index for index, _ in corner)], share))

    def share_of(label: np.ndarray) -> np.ndarray:
        return sum(np.where(other == label, weight, 0.0) for other, weight in corners)

    winner, best = corners[0][0].copy(), share_of(corners[0][0])
    for label, _ in corners[1:]:
        share = share_of(label)
        better = (share > best) | ((share == best) & (label < winner))
        winner, best = np.where(better, label, winner), np.maximum(best, share)
    return np.where(share_of(nearest) == best, nearest, winner)
