"""Batches of augmented patches, each a pure function of (seed, fold, epoch, iteration, sample).

There is no sampler or worker state: any number of loader workers gives the same batches, and a resumed run sees what an uninterrupted one
would have seen.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autoseg.augmentation.counters import generator
from autoseg.augmentation.pipeline import Augmenter
from autoseg.errors import DatasetError
from autoseg.preprocessing.previous_stage import open_mask
from autoseg.preprocessing.store import StoredCase, open_case
from autoseg.training.sampling import ForegroundRule, draw_centre
from planners.plan import Augmentation, Configuration

logger = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor | tuple[Tensor, Tensor]]

OPEN_CASES = 256
"""Memory maps kept open in one process."""


def forced_foreground(sample: int, batch_size: int, fraction: float) -> bool:
    """Whether this sample of a batch is centred on a foreground voxel: the last ones are, as nnU-Net does it.

    >>> [forced_foreground(j, 2, 0.33) for j in range(2)]
    [False, True]
    """
    return sample >= round(batch_size * (1 - fraction))


def random_corner(rng: np.random.Generator, shape: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """Lower corner (voxels, may be negative) of a box drawn evenly; a box larger than the image is padded on both sides."""
    corner = []
    for extent, wanted in zip(shape, size, strict=True):
        need = max(0, wanted - extent)
        corner.append(int(rng.integers(-need // 2, extent + (need + 1) // 2 - wanted + 1)))
    return tuple(corner)


def centred_corner(voxel: Sequence[int], shape: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """Lower corner of the box with this voxel at its centre, clamped at the low end only, as nnU-Net does it."""
    lowest = [-max(0, wanted - extent) // 2 for extent, wanted in zip(shape, size, strict=True)]
    return tuple(max(low, int(v) - wanted // 2) for low, v, wanted in zip(lowest, voxel, size, strict=True))


def read_box(array: np.ndarray, corner: Sequence[int], size: Sequence[int], fill: float) -> np.ndarray:
    """A copy of array[..., box], `fill` where the box leaves the array. The box counts on the last len(size) axes."""
    spatial = array.shape[-len(size) :]
    inside = [(max(0, c), min(n, c + s)) for c, s, n in zip(corner, size, spatial, strict=True)]
    lead = array.shape[: array.ndim - len(size)]
    out = np.full((*lead, *size), fill, dtype=array.dtype)
    if all(low < high for low, high in inside):
        source = tuple(slice(low, high) for low, high in inside)
        target = tuple(slice(low - c, high - c) for (low, high), c in zip(inside, corner, strict=True))
        out[(..., *target)] = array[(..., *source)]
    return out


@dataclass(frozen=True)
class SampleSource:
    """Draws single samples out of stored cases.

    Args:
        folder: where the prepared cases lie.
        cases: their names; drawn with replacement, evenly.
        configuration: patch size, batch size, augmentation.
        seed, fold: the first parts of every sample's key.
        keys: case -> hash of the files that it must have been prepared from; a case that is not in it may be from any.
        previous: case -> key of its previous stage's mask, for a configuration that continues from one.
        classes: the label values of each class, for such a configuration: each is a channel.
        share: which samples of a batch are made here, where other processes make the rest; None: all.
        beside: what the loss needs besides a sample's labels, as a function of them (from `target_regions`); None: nothing.
        rule: how samples with forced foreground are centred.
    """

    folder: Path
    cases: tuple[str, ...]
    configuration: Configuration
    seed: int
    fold: str
    keys: Mapping[str, str] = field(default_factory=dict)
    previous: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[tuple[int, ...], ...] = ()
    beside: Callable[[np.ndarray], np.ndarray] | None = None
    rule: ForegroundRule = ForegroundRule()
    share: range | None = None

    @property
    def samples(self) -> range:
        """The numbers of the samples that are made here: a sample is the same whoever makes it."""
        return range(self.configuration.batch_size) if self.share is None else self.share

    def augmenter(self, augmentation: Augmentation) -> Augmenter:
        """What augments this source's samples."""
        return Augmenter(augmentation, self.configuration.patch_size, classes=self.classes)

    def batch(self, purpose: str, epoch: int, iteration: int, augmenter: Augmenter, opened: CaseCache) -> Batch:
        """(data (n, c, *patch) float32, labels (n, *patch) int64); with `beside`, (data, (labels, what it gives))."""
        size = self.configuration.batch_size
        fraction = self.configuration.training.foreground_fraction
        samples = [
            self._sample(
                generator(self.seed, self.fold, purpose, epoch, iteration, j), forced_foreground(j, size, fraction), augmenter, opened
            )
            for j in self.samples
        ]
        data = torch.from_numpy(np.stack([np.asarray(d, dtype=np.float32) for d, _ in samples]))
        return self._with_beside(data, torch.from_numpy(np.stack([np.asarray(label) for _, label in samples]).astype(np.int64)))

    def blank(self, channels: int) -> Batch:
        """A batch of the size and type of all others, with nothing in it."""
        shape = len(self.samples), *self.configuration.patch_size
        return self._with_beside(torch.zeros(shape[0], channels, *shape[1:]), torch.zeros(shape, dtype=torch.int64))

    def _with_beside(self, data: Tensor, labels: Tensor) -> Batch:
        if self.beside is None:
            return data, labels
        return data, (labels, torch.from_numpy(np.stack([self.beside(sample) for sample in labels.numpy()])))

    def _sample(self, rng: np.random.Generator, foreground: bool, augmenter: Augmenter, opened: CaseCache) -> tuple[np.ndarray, np.ndarray]:
        case, voxel = draw_centre(rng, foreground, self.cases, self.rule, opened.get)
        data = case.data
        labels = [mask for mask in (case.labels, case.previous) if mask is not None]
        if self.configuration.dimension == 2:
            plane = int(voxel[0]) if voxel is not None else int(rng.integers(data.shape[1]))
            data, labels = data[:, plane], [mask[plane] for mask in labels]
            voxel = voxel[1:] if voxel is not None else None
        patch = self.configuration.patch_size
        shape = data.shape[1:]
        corner = random_corner(rng, shape, patch) if voxel is None else centred_corner(voxel, shape, patch)
        draw = augmenter.draw(rng, data.shape[0])
        corner = tuple(c + p // 2 - s // 2 for c, p, s in zip(corner, patch, draw.read_size, strict=True))
        image = read_box(data, corner, draw.read_size, 0)
        masks = np.stack([read_box(mask, corner, draw.read_size, -1) for mask in labels]).astype(np.int16)
        image, mask = augmenter.apply(image, masks, draw)
        return np.asarray(image), np.asarray(mask).reshape(patch)


class CaseCache:
    """A source's stored cases kept open, the least recently used closed first."""

    def __init__(self, source: SampleSource, limit: int = OPEN_CASES):
        self.source, self.limit = source, limit
        self._open: OrderedDict[str, StoredCase] = OrderedDict()

    def get(self, name: str) -> StoredCase:
        """The case, opened if it is not.

        Raises:
            DatasetError: it was prepared anew from other files meanwhile: the fold began with the old ones.
        """
        if name not in self._open:
            if len(self._open) >= self.limit:
                self._open.popitem(last=False)
            case = open_case(self.source.folder, name)
            if self.source.keys.get(name, case.key) != case.key:
                raise DatasetError(
                    f"case {name}: its image or mask was changed and prepared anew while this fold was being trained on it. Bring the old "
                    "files back and run autoseg_train again, or train the fold anew with --restart"
                )
            if name in self.source.previous:
                case = replace(case, previous=open_mask(self.source.folder, name, self.source.previous[name]))
            self._open[name] = case
        self._open.move_to_end(name)
        return self._open[name]


PLAIN = Augmentation(spatial=None, noise=None, blur=None, brightness=None, contrast=None, low_resolution=None, gamma=None, mirror=None)
