"""Rotation and scaling of the sampling grid about the patch's centre, images and labels together.

Images are interpolated linearly with zeros outside. Labels are what the largest linearly interpolated one-hot map says, with -1 outside as
a class of its own; see `labels.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from autoseg.augmentation.affine import cells, rim_if_needed, trilinear
from autoseg.augmentation.labels import sample_labels
from autoseg.augmentation.linear import sample_separably, taps
from planners.plan import Spatial

READ_MARGIN = 0.85
"""The largest read is the patch turned as far as allowed about any one axis, divided by this (nnU-Net's figure): scaling further out meets
the border's zeros, and a read stays affordable."""


@dataclass(frozen=True)
class SpatialParameters:
    """`degrees`: one angle an axis (3D), or a single one in the plane of the last two axes; `scale`: above 1 objects get smaller."""

    degrees: tuple[float, ...]
    scale: float = 1.0

    @property
    def in_plane(self) -> bool:
        """Whether only the last two axes are touched."""
        return len(self.degrees) == 1

    @property
    def rotated(self) -> bool:
        """Whether any angle is not 0."""
        return any(angle != 0 for angle in self.degrees)


def sample(spec: Spatial, rng: np.random.Generator, dimension: int) -> SpatialParameters | None:
    """The rotation and scaling of one sample, or None where it gets neither."""
    rotate, scale = rng.random(2) < (spec.rotation_probability, spec.scaling_probability)
    if not rotate and not scale:
        return None
    angles = 1 if spec.in_plane or dimension == 2 else 3
    degrees = tuple(float(d) for d in rng.uniform(*spec.rotation_degrees, angles)) if rotate else (0.0,) * angles
    return SpatialParameters(degrees, float(rng.uniform(*spec.scaling)) if scale else 1.0)


def matrix(parameters: SpatialParameters) -> np.ndarray:
    """What takes an offset from the patch's centre, (z, y, x) in voxels of the output, to the offset where the image is read.

    A row vector of offsets is multiplied by the rotations about axis 0, 1 and 2 in turn, as batchgenerators does; this is the transposed
    product, for column vectors.
    """
    if parameters.in_plane:
        affine = np.eye(3)
        affine[1:, 1:] = parameters.scale * _rotation(0, parameters.degrees[0])[1:, 1:].T
        return affine
    about_z, about_y, about_x = (_rotation(axis, angle) for axis, angle in enumerate(parameters.degrees))
    return parameters.scale * (about_z @ about_y @ about_x).T


def _rotation(axis: int, degrees: float) -> np.ndarray:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[first, first] = rotation[second, second] = cosine
    rotation[first, second], rotation[second, first] = -sine, sine
    return rotation


def largest_read_size(spec: Spatial | None, patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """Voxels to crop around a patch's centre so that hardly any transform reads beyond; never below the patch, and odd where it is odd."""
    if spec is None or (spec.rotation_probability == 0 and spec.scaling_probability == 0):
        return patch_size
    patch = _three_axes(patch_size)
    widest = min(90.0, max(abs(angle) for angle in spec.rotation_degrees))
    flat = spec.in_plane or len(patch_size) == 2
    turned = [np.abs(_rotation(axis, angle)) @ patch for axis in ((0,) if flat else (0, 1, 2)) for angle in (0.0, widest)]
    # 1e-6: sin 90 degrees and its like are a hair off
    wanted = np.floor(np.max(turned, axis=0) / READ_MARGIN + 1e-6).astype(int)
    if flat:
        wanted[0] = patch[0]
    return _same_parity(wanted, patch)[-len(patch_size) :]


def read_size(parameters: SpatialParameters | None, patch_size: tuple[int, ...], limit: tuple[int, ...]) -> tuple[int, ...]:
    """Voxels to crop around the patch's centre for these parameters: what they reach, up to `limit`. More gives the same result only up to
    `limit`, which is where zeros begin."""
    if parameters is None:
        return patch_size
    patch = _three_axes(patch_size)
    # 1e-9: an exact extent must not be rounded up for its last bit
    reach = np.ceil(np.abs(matrix(parameters)) @ (patch - 1.0) + 1 - 1e-9).astype(int)
    wanted = np.minimum(np.maximum(reach, patch), _three_axes(limit))
    return _same_parity(wanted, patch)[-len(patch_size) :]


def _three_axes(size: tuple[int, ...]) -> np.ndarray:
    return np.array((1,) * (3 - len(size)) + tuple(size))


def _same_parity(size: np.ndarray, patch: np.ndarray) -> tuple[int, ...]:
    # An even margin puts the centre of the crop on the centre of the patch, not half a voxel beside it.
    return tuple(int(n) for n in np.maximum(size + (size - patch) % 2, patch))


def apply(
    data: torch.Tensor, labels: torch.Tensor, parameters: SpatialParameters, patch_size: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The patch in the middle of the crop, rotated and scaled.

    Args:
        data: float32 (c, [z,] y, x) contiguous, the crop.
        labels: int16 (n, [z,] y, x), same grid.
        parameters: one angle with two spatial axes; with three, one (slice by slice) or three.
        patch_size: the result's spatial shape.

    Returns:
        New tensors (c, *patch_size) float32 and (n, *patch_size) int16.
    """
    shape = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    volumes = data.view(data.shape[0], *_three_axes(tuple(data.shape[1:])).tolist())
    affine = matrix(parameters)
    offset = (np.array(volumes.shape[1:]) - 1) / 2 - affine @ ((np.array(shape) - 1) / 2)
    if not parameters.rotated:
        image = _scaled(volumes, affine, offset, shape)
    elif parameters.in_plane:
        image = _slice_by_slice(volumes, affine, offset, shape)
    else:
        image = _anyhow(volumes, affine, offset, shape)
    masks = [sample_labels(each, affine, offset, shape) for each in labels.view(-1, *volumes.shape[1:])]
    return image.view(-1, *patch_size), torch.stack(masks).view(-1, *patch_size)


def _scaled(volumes: torch.Tensor, affine: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    z, y, x = (
        taps(offset[axis] + affine[axis, axis] * np.arange(shape[axis]), volumes.shape[1 + axis], zeros_outside=True) for axis in range(3)
    )
    return torch.stack([sample_separably(volume, (z, y, x)) for volume in volumes])


def _slice_by_slice(volumes: torch.Tensor, affine: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    channels, slices, *plane = volumes.shape
    margin = (slices - shape[0]) // 2
    volumes = volumes[:, margin : margin + shape[0]]
    grid = torch.empty(1, shape[1], shape[2], 2)
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in shape[1:])
    for axis in (0, 1):
        source = affine[1 + axis, 1] * rows[:, None] + affine[1 + axis, 2] * columns + offset[1 + axis]
        grid[0, ..., 1 - axis] = _normalised(source, plane[axis])
    stack = volumes.reshape(1, channels * shape[0], *plane)
    return functional.grid_sample(stack, grid, align_corners=False).view(channels, *shape)


def _anyhow(volumes: torch.Tensor, affine: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Gathers in cache-sized tiles with indices shared by the channels; `grid_sample` is scalar code in 3D."""
    result = volumes.new_empty(volumes.shape[0], *shape)
    ready = [rim_if_needed(volume, 0, affine, offset, shape) for volume in volumes]
    for place, index, fractions in cells(affine, ready[0][1], shape, tuple(ready[0][0].shape)):
        for (source, _), target in zip(ready, result, strict=True):
            target[place] = trilinear(source, index, fractions)
    return result


def _normalised(position: torch.Tensor, size: int) -> torch.Tensor:
    """Voxel positions in grid_sample's coordinates: -1 and 1 are the outer edges of the first and the last voxel."""
    return (2 * position + 1) / size - 1
