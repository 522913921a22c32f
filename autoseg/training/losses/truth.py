"""What a label map says to a loss: which outputs should be on at each voxel, and where nothing is known."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.training.distributed import ALONE, Ranks
from planners.labels import LabelScheme


@dataclass(frozen=True)
class Truth:
    """A label map seen by the outputs of a network.

    Attributes:
        heads: bool (n, heads, *spatial); false for every output where nothing is known.
        valid: bool (n, 1, *spatial), false where nothing is known; None where everything is.
        overlapping: each output is on or off by itself (regions, sigmoid); else exactly one is on (labels, softmax), the background first.
        ranks: the processes that share the batch, of which this is one's part.
    """

    heads: Tensor
    valid: Tensor | None
    overlapping: bool
    ranks: Ranks = ALONE

    @property
    def foreground(self) -> slice:
        """The outputs that overlap terms count: all regions, or all labels but the background."""
        return slice(None) if self.overlapping else slice(1, None)

    @property
    def voxels(self) -> Tensor | int:
        """How many voxels are known, over the whole batch; at least 1."""
        if self.valid is not None:
            return self.ranks.summed(self.valid.sum()).clamp_min(1)
        here = self.heads.numel() // self.heads.shape[1]
        return here if self.ranks.world == 1 else self.ranks.summed(torch.tensor(here, device=self.heads.device))


def encode(labels: Tensor, scheme: LabelScheme, ranks: Ranks = ALONE) -> Truth:
    """The truth in a map of mask values.

    Args:
        labels: integers (n, *spatial); a value that the scheme does not know belongs to no output.
        scheme: the labels or regions, and the ignore value.
        ranks: the processes that share the batch.
    """
    valid = None if scheme.ignore is None else (labels != scheme.ignore).unsqueeze(1)
    if scheme.has_regions:
        regions = [functools.reduce(torch.logical_or, [labels == v for v in values]) for values in scheme.foreground.values()]
        return Truth(torch.stack(regions, dim=1), valid, overlapping=True, ranks=ranks)
    values = torch.tensor(scheme.painted_values, device=labels.device, dtype=labels.dtype)
    return Truth(labels.unsqueeze(1) == values.view(-1, *[1] * (labels.ndim - 1)), valid, overlapping=False, ranks=ranks)


def downsample(target: Tensor, shape: Sequence[int]) -> Tensor:
    """Labels on a coarser grid of the same extent: each new voxel takes the old one that its centre lies in ("nearest-exact").

    Args:
        target: shape (n, *spatial).
        shape: the new spatial shape; the same shape gives `target` back.
    """
    for axis, size in enumerate(shape, start=1):
        old = target.shape[axis]
        if size != old:
            centres = torch.arange(size, device=target.device)
            target = target.index_select(axis, (2 * centres + 1) * old // (2 * size))
    return target
