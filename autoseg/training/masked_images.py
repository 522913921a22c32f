"""Images with hidden blocks, and the error of what a network puts there: the batches and the loss of masked-autoencoder pretraining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoseg.augmentation.counters import generator
from autoseg.augmentation.pipeline import Augmenter
from autoseg.training.batches import Batch, CaseCache, SampleSource, random_corner, read_box

INSIDE, PADDED = 1, -1


def hidden_blocks(rng: np.random.Generator, patch_size: Sequence[int], blocks: int, share: float) -> np.ndarray:
    """Which voxels of a patch are hidden: whole blocks, drawn evenly, as many as `share` of them rounded (at least one, never all).

    Args:
        patch_size: voxels, two or three axes.
        blocks: along each axis; a block's edge is the axis / `blocks`, rounded up.

    Returns:
        bool, of the patch's shape.
    """
    edges = [math.ceil(size / blocks) for size in patch_size]
    grid = [math.ceil(size / edge) for size, edge in zip(patch_size, edges, strict=True)]
    count = math.prod(grid)
    drawn = np.zeros(count, dtype=bool)
    drawn[rng.choice(count, min(count - 1, max(1, round(share * count))), replace=False)] = True
    whole = drawn.reshape(grid)
    for axis, edge in enumerate(edges):
        whole = whole.repeat(edge, axis=axis)
    return whole[tuple(slice(size) for size in patch_size)]


def hidden_error(outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    """Mean over samples of the mean squared error over a sample's hidden voxels and channels, in float32; visible voxels count nothing.

    Args:
        outputs: (n, c, *patch).
        targets: the images, of that shape, and bool (n, *patch), the voxels that count. A sample without any has the error 0.
    """
    images, hidden = targets
    weight = hidden.unsqueeze(1).float()
    squares = torch.where(hidden.unsqueeze(1), (outputs.float() - images.float()) ** 2, 0.0)
    counts = weight.flatten(1).sum(1).clamp(min=1) * images.shape[1]
    return (squares.flatten(1).sum(1) / counts).mean()


@dataclass(frozen=True)
class MaskedImages(SampleSource):
    """Draws patches with hidden blocks out of stored cases; the cases' masks take no part.

    Batches are (images with hidden blocks set to 0, (images, voxels that count)). Padding outside the image is hidden like all else but
    does not count.
    """

    def batch(self, purpose: str, epoch: int, iteration: int, augmenter: Augmenter, opened: CaseCache) -> Batch:
        """A pure function of its key, as of every `SampleSource`."""
        keys = [(self.seed, self.fold, purpose, epoch, iteration, sample) for sample in self.samples]
        samples = [self._masked(generator(*key), augmenter, opened) for key in keys]
        images = torch.from_numpy(np.stack([image for image, _, _ in samples]))
        hidden = torch.from_numpy(np.stack([mask for _, mask, _ in samples]))
        inside = torch.from_numpy(np.stack([place for _, _, place in samples]))
        return images.masked_fill(hidden.unsqueeze(1), 0), (images, hidden & inside)

    def blank(self, channels: int) -> Batch:
        """A batch of the size and type of all others, with nothing in it."""
        size, patch = len(self.samples), self.configuration.patch_size
        images = torch.zeros(size, channels, *patch)
        return images, (images.clone(), torch.ones(size, *patch, dtype=torch.bool))

    def _masked(self, rng: np.random.Generator, augmenter: Augmenter, opened: CaseCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data = opened.get(self.cases[int(rng.integers(len(self.cases)))]).data
        if self.configuration.dimension == 2:
            data = data[:, int(rng.integers(data.shape[1]))]
        patch = self.configuration.patch_size
        corner = random_corner(rng, data.shape[1:], patch)
        draw = augmenter.draw(rng, data.shape[0])
        corner = tuple(c + p // 2 - s // 2 for c, p, s in zip(corner, patch, draw.read_size, strict=True))
        image = read_box(data, corner, draw.read_size, 0)
        inside = read_box(np.broadcast_to(np.int16(INSIDE), (1, *data.shape[1:])), corner, draw.read_size, PADDED)
        image, inside = augmenter.apply(image, inside, draw)
        spec = self.configuration.pretraining
        hidden = hidden_blocks(rng, patch, spec.blocks, spec.masked_share)
        return np.asarray(image, dtype=np.float32), hidden, np.asarray(inside).reshape(patch) == INSIDE
