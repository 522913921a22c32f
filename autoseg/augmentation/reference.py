"""The same draws applied by batchgenerators: slow, and what the own transforms are tested against.

What batchgenerators does not define for given parameters is done by the own code: the flips, and the noise's voxel values come from its own
generator, seeded. It is imported only when a plan selects it.
"""

from __future__ import annotations

import random
from collections import UserList
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from autoseg.augmentation import mirror
from autoseg.augmentation.draw import Draw
from autoseg.augmentation.labels import OUTSIDE
from autoseg.augmentation.spatial import SpatialParameters


class Pinned(float):
    """What a range (Pinned, Pinned) yields exactly: batchgenerators splits ranges that start below 1; this one denies it."""

    def __lt__(self, other: Any) -> bool:
        return False


def apply(data: torch.Tensor, labels: torch.Tensor, draw: Draw, patch_size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The augmented patch, labels still with -1.

    Args:
        data, labels: float32 (c, *draw.read_size), int16 (n, *draw.read_size).
        draw: the same as for the fused transforms.
        patch_size: of the result.
    """
    with _own_global_state(draw.noise.seed if draw.noise else 0):
        image, mask = data.numpy(), labels.numpy()
        if draw.spatial:
            image, mask = apply_spatial(image, mask, draw.spatial, patch_size)
        image = apply_intensity(image, draw)
    result, mask = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)), torch.from_numpy(mask.astype(np.int16))
    if draw.mirror:
        result, mask = mirror.apply(result, draw.mirror), mirror.apply(mask, draw.mirror)
    return result, mask


def apply_spatial(
    image: np.ndarray, mask: np.ndarray, parameters: SpatialParameters, patch_size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The rotated and scaled patch of a crop, by batchgenerators' `augment_spatial_2`."""
    if parameters.in_plane and len(patch_size) == 3:
        margin = (image.shape[1] - patch_size[0]) // 2
        slices = slice(margin, margin + patch_size[0])
        stacks = [array[:, slices].reshape(-1, *array.shape[2:]) for array in (image, mask)]
        image, mask = _spatial(*stacks, parameters, patch_size[1:])
        return image.reshape(-1, *patch_size), mask.reshape(-1, *patch_size)
    return _spatial(image, mask, parameters, patch_size)


def _spatial(
    image: np.ndarray, mask: np.ndarray, parameters: SpatialParameters, patch_size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    from batchgenerators.augmentations.spatial_transformations import augment_spatial_2

    # Its border is not interpolated, and what lies outside is no class of its own in the labels; a rim of border values mends both.
    rim = [(0, 0)] + [(1, 1)] * len(patch_size)
    angles = [np.radians(degrees) for degrees in parameters.degrees] + [0.0] * (3 - len(parameters.degrees))
    scale = Pinned(parameters.scale)
    new_image, new_mask = augment_spatial_2(
        np.pad(image, rim)[None],
        np.pad(mask, rim, constant_values=OUTSIDE)[None],
        patch_size,
        do_elastic_deform=False,
        angle_x=(angles[0], angles[0]),
        angle_y=(angles[1], angles[1]),
        angle_z=(angles[2], angles[2]),
        scale=(scale, scale),
        border_mode_data="constant",
        order_data=1,
        order_seg=1,
        border_cval_seg=OUTSIDE,
        random_crop=False,
        seg_tiebreak="lowest",
    )
    return new_image[0], new_mask[0]


def apply_intensity(image: np.ndarray, draw: Draw) -> np.ndarray:
    """Noise to gamma, in the plan's order; (c, ...) float32, changed in place. batchgenerators draws from the global generators here."""
    from batchgenerators.augmentations import color_augmentations as colour
    from batchgenerators.augmentations.noise_augmentations import augment_gaussian_blur, augment_gaussian_noise
    from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy

    if draw.noise:
        stds = draw.noise.channels or (draw.noise.std,) * len(image)
        parts = (image,) if len(set(stds)) == 1 else (image[c : c + 1] for c in range(len(image)))
        image = np.concatenate([augment_gaussian_noise(part, (std, std)) for part, std in zip(parts, stds, strict=False)])
    for c in range(image.shape[0]):
        channel = image[c : c + 1]
        if draw.blur and draw.blur.sigmas[c]:
            # what is neither list, tuple nor array reaches scipy as it is: one standard deviation an axis
            augment_gaussian_blur(channel, UserList(draw.blur.sigmas[c]))
        if draw.brightness:
            colour.augment_brightness_multiplicative(channel, (draw.brightness.factors[c],) * 2)
        if draw.contrast:
            colour.augment_contrast(channel, lambda factor=draw.contrast.factors[c]: factor)
        if draw.low_resolution and draw.low_resolution.zooms[c] is not None:
            frozen = (0,) if draw.low_resolution.skip_first_axis else None
            zoom = (draw.low_resolution.zooms[c],) * 2
            augment_linear_downsampling_scipy(channel, zoom, order_downsample=0, order_upsample=1, ignore_axes=frozen)
        for power_law in (draw.inverted_gamma, draw.gamma):
            if power_law:
                exponent = (Pinned(power_law.gammas[c]),) * 2
                image[c] = colour.augment_gamma(channel, exponent, invert_image=power_law.inverted, per_channel=True, retain_stats=True)[0]
    return image


@contextmanager
def _own_global_state(seed: int) -> Iterator[None]:
    """numpy's and Python's global generators seeded inside and put back as they were: batchgenerators knows no other."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
