"""The connected-component term of a loss: every lesion of the reference counts the same, however small it is.

Each voxel is given to the nearest component of the reference (its Voronoi region), and cross-entropy and Dice are taken in each region.
The regions come from the label map, on the CPU, where the batches are made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from autoseg.training.losses.truth import Truth
from planners.labels import LabelScheme


def lesion_regions(labels: np.ndarray, scheme: LabelScheme, spacing: Sequence[float]) -> np.ndarray:
    """For each foreground class, the number (from 1) of the component that each voxel is nearest to; 1 everywhere if there is at most one.

    Args:
        labels: mask values, shape spatial (2-D or 3-D).
        scheme: the classes.
        spacing: voxel size in mm, by which distances are measured.

    Returns:
        int16, shape (foreground classes, *spatial). Components touch by faces, edges or corners.

    Source: Jaus et al., "Every component counts: rethinking the measure of success for medical semantic segmentation in multi-instance
        segmentation tasks" (CC-Metrics), AAAI 2025.
    """
    import cc3d
    from scipy.ndimage import distance_transform_edt

    found = np.ones((len(scheme.foreground), *labels.shape), dtype=np.int16)
    for region, values in zip(found, scheme.foreground.values(), strict=True):
        mask = np.isin(labels, values)
        components, count = cc3d.connected_components(mask, connectivity=26 if labels.ndim == 3 else 8, return_N=True)
        if count > 1:
            nearest = distance_transform_edt(~mask, sampling=spacing, return_distances=False, return_indices=True)
            region[...] = components[tuple(nearest)]
    return found


def component_dice_ce(
    likelihood: Tensor, probability: Tensor, truth: Truth, regions: Tensor, *, dice_weight: float, ce_weight: float, smooth: float
) -> Tensor:
    """Mean over samples and foreground classes of the mean over their regions k of ce_weight CE_k - dice_weight Dice_k.

    CE_k is the mean over the region's known voxels of -log p (of the true label; of the class's own output where classes are regions).
    Dice_k = (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth) with sums over the region's known voxels. A region in which nothing is
    known does not count.

    Args:
        likelihood, probability: as `log_likelihood` gives them.
        regions: integers from 1, (n, foreground classes, *spatial), from `lesion_regions`.

    Source: Bouteille et al., "Learning to look closer: a new instance-wise loss for small cerebral lesion segmentation" (CC-DiceCE),
        arXiv 2511.17146; there for one foreground class.
    """
    part = truth.foreground
    probability, true = probability[:, part], truth.heads[:, part]
    error = -likelihood if truth.overlapping else -likelihood.sum(1, keepdim=True).expand_as(probability)
    known = torch.ones_like(probability) if truth.valid is None else truth.valid.expand_as(probability).float()
    total = _Sums(regions.long())
    voxels = total(known)
    dice = (2 * total(probability * true) + smooth) / (total(probability * known) + total(true.float()) + smooth).clamp_min(1e-8)
    value = ce_weight * total(error) / voxels.clamp_min(1) - dice_weight * dice
    counts = voxels > 0
    return truth.ranks.mean(torch.where(counts, value, 0.0).sum(-1) / counts.sum(-1).clamp_min(1))


class _Sums:
    """Sums of (n, classes, *spatial) over each region: (n, classes, number of regions + 1); region 0 stays empty."""

    def __init__(self, regions: Tensor):
        n, classes = regions.shape[:2]
        self.shape = (n, classes, int(regions.max()) + 1)
        rows = torch.arange(n * classes, device=regions.device).view(n, classes, *[1] * (regions.ndim - 2))
        self.places = (rows * self.shape[2] + regions).flatten()

    def __call__(self, values: Tensor) -> Tensor:
        zeros = torch.zeros(self.shape[0] * self.shape[1] * self.shape[2], device=values.device)
        return zeros.index_add(0, self.places, values.flatten()).view(self.shape)
