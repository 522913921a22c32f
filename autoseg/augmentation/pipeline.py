"""All of a plan's augmentation, in its order, for one training sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from autoseg.augmentation import blur, components, gamma, intensity, low_resolution, mirror, morphology, noise, spatial
from autoseg.augmentation.draw import Draw
from autoseg.augmentation.labels import OUTSIDE
from planners.plan import Augmentation

if TYPE_CHECKING:
    Array = TypeVar("Array", np.ndarray, torch.Tensor)


class Augmenter:
    """Draws a sample's augmentation from a generator, then applies it: two steps, so that only what is needed is read in between.

        draw = augmenter.draw(generator(seed, epoch, iteration, sample), channels)
        data, labels = augmenter.apply(read_data(draw.read_size), read_labels(draw.read_size), draw)

    The result depends on the inputs and the draw alone: not on threads, workers or any global random state.

    Args:
        augmentation: the plan's part.
        patch_size: what comes out, two or three axes.
        masked_channels: channels to set to 0 where a label is -1, beside the plan's `zero_outside_mask`.
        classes: the label values of each class whose mask a previous stage gives as a further channel; () without such a stage.

    Attributes:
        patch_size: as given.
        read_size: the largest crop that any draw needs.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        patch_size: tuple[int, ...],
        *,
        masked_channels: tuple[int, ...] = (),
        classes: tuple[tuple[int, ...], ...] = (),
    ):
        if len(patch_size) not in (2, 3):
            raise ValueError(f"patch_size needs two or three axes, found {list(patch_size)}")
        self.augmentation = augmentation
        self.patch_size = tuple(int(n) for n in patch_size)
        self.classes = classes
        self.read_size = spatial.largest_read_size(augmentation.spatial, self.patch_size)
        self._masked = tuple(sorted({*augmentation.zero_outside_mask, *masked_channels}))

    def draw(self, rng: np.random.Generator, channels: int) -> Draw:
        """The parameters of one sample with that many channels."""
        spec, dimension = self.augmentation, len(self.patch_size)
        masks = spec.previous_stage if self.classes else None
        moved = spatial.sample(spec.spatial, rng, dimension) if spec.spatial else None
        return Draw(
            read_size=spatial.read_size(moved, self.patch_size, self.read_size),
            spatial=moved,
            noise=noise.sample(spec.noise, rng) if spec.noise else None,
            blur=blur.sample(spec.blur, rng, channels, dimension) if spec.blur else None,
            brightness=intensity.sample_brightness(spec.brightness, rng, channels) if spec.brightness else None,
            contrast=intensity.sample_contrast(spec.contrast, rng, channels) if spec.contrast else None,
            low_resolution=low_resolution.sample(spec.low_resolution, rng, channels) if spec.low_resolution else None,
            inverted_gamma=gamma.sample(spec.gamma, rng, channels, inverted=True) if spec.gamma else None,
            gamma=gamma.sample(spec.gamma, rng, channels) if spec.gamma else None,
            mirror=mirror.sample(spec.mirror, rng) if spec.mirror else None,
            morphology=morphology.sample(masks.morphology, rng, len(self.classes)) if masks and masks.morphology else None,
            components=components.sample(masks.components, rng, len(self.classes)) if masks and masks.components else None,
        )

    def apply(self, data: Array, labels: Array, draw: Draw) -> tuple[Array, Array]:
        """The augmented patch.

        Args:
            data: float32 (c, *size), numpy or torch on the CPU; `size` at least `draw.read_size`, exceeding it evenly on both sides.
            labels: int16 (1, *size), the same grid; -1: outside the mask. With `classes` (2, *size): then the mask of the previous stage.
            draw: from `draw`.

        Returns:
            New arrays of the kind given: float32 (c, *patch_size) and int16 (*patch_size), -1 turned into 0. With `classes` the data have a
            further channel of 0 and 1 for each. The inputs stay as they are.

        Raises:
            ValueError: the shapes do not fit the draw.
        """
        size = tuple(data.shape[1:])
        wanted = (2 if self.classes else 1, *size)
        if tuple(labels.shape) != wanted:
            raise ValueError(f"labels must have shape {wanted} beside data of {tuple(data.shape)}, found {tuple(labels.shape)}")
        if len(size) != len(self.patch_size) or any(n < m or (n - m) % 2 for n, m in zip(size, draw.read_size, strict=True)):
            raise ValueError(f"this draw needs a crop of {draw.read_size} voxels (or more, evenly on both sides), found {size}")
        # What is resampled anyway is only looked at; else the patch is worked on in place, so it must be a copy.
        own = draw.spatial is None or self.augmentation.backend == "batchgenerators"
        image, mask = (_cropped(a, draw.read_size, kind, copy=own) for a, kind in ((data, np.float32), (labels, np.int16)))
        if self.augmentation.backend == "batchgenerators":
            from autoseg.augmentation import reference

            image, mask = reference.apply(image, mask, draw, self.patch_size)
        else:
            image, mask = _apply(image, mask, draw, self.patch_size)
        mask, previous = mask[:1], mask[1:]
        outside = mask == OUTSIDE
        if self._masked and outside.any():
            for channel in self._masked:
                image[channel].masked_fill_(outside[0], 0)
        mask = mask.masked_fill_(outside, 0)[0]
        if self.classes:
            image = torch.cat((image, torch.from_numpy(_one_hot(previous[0].numpy(), self.classes, draw).astype(np.float32))))
        return (image.numpy(), mask.numpy()) if isinstance(data, np.ndarray) else (image, mask)

    def __call__(self, data: Array, labels: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """`draw` and `apply` in one, for crops of `self.read_size`."""
        return self.apply(data, labels, self.draw(rng, data.shape[0]))


def _one_hot(previous: np.ndarray, classes: tuple[tuple[int, ...], ...], draw: Draw) -> np.ndarray:
    """The previous stage's mask of each class, bool (classes, *patch_size), after what was drawn for it."""
    masks = np.stack([np.isin(previous, labels) for labels in classes])
    if draw.morphology:
        masks = morphology.apply(masks, draw.morphology, classes)
    if draw.components:
        masks = components.apply(masks, draw.components)
    return masks


def _cropped(array: np.ndarray | torch.Tensor, size: tuple[int, ...], dtype: type, *, copy: bool) -> torch.Tensor:
    """The middle, contiguous; a copy where asked for, needed, or read-only (a memory map), which torch has no notion of."""
    middle = np.asarray(array)[(slice(None), *(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(array.shape[1:], size, strict=True)))]
    ready = np.require(middle, dtype=dtype, requirements=["C", "W"])
    return torch.from_numpy(ready.copy() if copy and np.shares_memory(ready, middle) else ready)


def _apply(image: torch.Tensor, mask: torch.Tensor, draw: Draw, patch_size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    if draw.spatial:
        image, mask = spatial.apply(image, mask, draw.spatial, patch_size)
    if draw.noise:
        image = noise.apply(image, draw.noise)
    if draw.blur:
        image = blur.apply(image, draw.blur)
    if draw.brightness:
        image = intensity.apply_brightness(image, draw.brightness)
    if draw.contrast:
        image = intensity.apply_contrast(image, draw.contrast)
    if draw.low_resolution:
        image = low_resolution.apply(image, draw.low_resolution)
    for power_law in (draw.inverted_gamma, draw.gamma):
        if power_law:
            image = gamma.apply(image, power_law)
    if draw.mirror:
        image, mask = mirror.apply(image, draw.mirror), mirror.apply(mask, draw.mirror)
    return image, mask
