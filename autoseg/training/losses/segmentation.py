"""The loss that a plan asks for: its two terms put together, over the levels of deep supervision. Float32, also under autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.training.distributed import ALONE, Ranks
from autoseg.training.losses.components import component_dice_ce, lesion_regions
from autoseg.training.losses.overlap import focal_error, soft_dice, tversky
from autoseg.training.losses.truth import Truth, downsample, encode
from autoseg.training.losses.voxelwise import cross_entropy, focal, log_likelihood, top_k
from planners.labels import LabelScheme
from planners.plan import Loss

VOXEL_TERMS: dict[str, Callable[[Any, Tensor, Truth], Tensor]] = {
    "dice_ce": lambda spec, likelihood, truth: cross_entropy(likelihood, truth),
    "dice_focal": lambda spec, likelihood, truth: focal(likelihood, truth, spec.gamma),
    "dice_topk": lambda spec, likelihood, truth: top_k(likelihood, truth, spec.percent),
    "tversky_ce": lambda spec, likelihood, truth: cross_entropy(likelihood, truth),
    "cc_dice_ce": lambda spec, likelihood, truth: cross_entropy(likelihood, truth),
}
"""Kind of loss -> (its spec, log-likelihood, truth) -> the per-voxel term."""


def _dice(spec: Any, probability: Tensor, truth: Truth) -> Tensor:
    part = truth.foreground
    weights = {"batch_dice": spec.batch_dice, "smooth": spec.smooth, "ranks": truth.ranks}
    return -_mean(spec, soft_dice(probability[:, part], truth.heads[:, part], truth.valid, **weights), truth)


def _tversky(spec: Any, probability: Tensor, truth: Truth) -> Tensor:
    part = truth.foreground
    weights = {"alpha": spec.alpha, "beta": spec.beta, "batch_dice": spec.batch_dice, "smooth": spec.smooth, "ranks": truth.ranks}
    overlap = tversky(probability[:, part], truth.heads[:, part], truth.valid, **weights)
    return _mean(spec, focal_error(overlap, spec.exponent), truth)


def _mean(spec: Any, values: Tensor, truth: Truth) -> Tensor:
    """Over classes and, where each sample has a value of its own, over the samples of all ranks."""
    return values.mean() if spec.batch_dice else truth.ranks.mean(values)


OVERLAP_TERMS: dict[str, Callable[[Any, Tensor, Truth], Tensor]] = {
    "dice_ce": _dice,
    "dice_focal": _dice,
    "dice_topk": _dice,
    "tversky_ce": _tversky,
    "cc_dice_ce": _dice,
}
"""Kind of loss -> (its spec, probabilities, truth) -> the overlap term; smaller is better."""


@dataclass(frozen=True)
class SegmentationLoss:
    """(outputs, target) -> scalar: ce_weight x per-voxel term + dice_weight x overlap term, a weighted sum over the levels.

    "cc_dice_ce" adds component_weight x `component_dice_ce` at full resolution alone: on a coarser grid a small lesion is gone, and its
    region would ask for silence where it was.

    Attributes:
        spec: the plan's loss.
        weights: of the levels of deep supervision, full resolution first; levels of weight 0 are not computed.
        scheme: what the target's values mean.
        ranks: the processes that share a batch, of which each sees a part: all get the whole batch's loss, each its own samples' gradient.
    """

    spec: Loss
    weights: tuple[float, ...]
    scheme: LabelScheme
    ranks: Ranks = ALONE

    @property
    def couples_samples(self) -> bool:
        """Whether a batch's loss is something else than the mean of its samples' losses."""
        return self.spec.batch_dice or self.spec.kind == "dice_topk" or self.scheme.ignore is not None

    def __call__(self, outputs: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """The loss in float32.

        Args:
            outputs: logits (n, heads, *spatial), or a list with those of each level. A single tensor counts whole.
            target: mask values (n, *spatial), integers; for "cc_dice_ce" these and their regions, see `target_regions`.

        Raises:
            ValueError: another number of outputs than levels, or shapes that do not fit.
        """
        regions = None
        if not isinstance(target, Tensor):
            target, regions = target
        if isinstance(outputs, Tensor):
            return self._single(outputs, target, regions)
        if len(outputs) != len(self.weights):
            raise ValueError(f"the loss was made for {len(self.weights)} outputs, found {len(outputs)}")
        terms = [
            weight * self._single(logits, downsample(target, logits.shape[2:]), regions if level == 0 else None)
            for level, (weight, logits) in enumerate(zip(self.weights, outputs, strict=True))
            if weight > 0
        ]
        return torch.stack(terms).sum()

    def _single(self, logits: Tensor, target: Tensor, regions: Tensor | None) -> Tensor:
        if logits.shape[:1] + logits.shape[2:] != target.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: expected (n, c, ...) and (n, ...)")
        if logits.shape[1] != self.scheme.heads:
            raise ValueError(f"logits {tuple(logits.shape)} have {logits.shape[1]} outputs, the labels need {self.scheme.heads}")
        with torch.autocast(logits.device.type, enabled=False):
            truth = encode(target, self.scheme, self.ranks)
            likelihood, probability = log_likelihood(logits, truth)
            voxelwise = VOXEL_TERMS[self.spec.kind](self.spec, likelihood, truth)
            overlap = OVERLAP_TERMS[self.spec.kind](self.spec, probability, truth)
            value = self.spec.ce_weight * voxelwise + self.spec.dice_weight * overlap
            if regions is None:
                return value
            weights = {"dice_weight": self.spec.dice_weight, "ce_weight": self.spec.ce_weight, "smooth": self.spec.smooth}
            return value + self.spec.component_weight * component_dice_ce(likelihood, probability, truth, regions, **weights)


def segmentation_loss(spec: Loss, levels: int, scheme: LabelScheme) -> SegmentationLoss:
    """The loss that a plan asks for, for a network with `levels` outputs in training mode."""
    return SegmentationLoss(spec, level_weights(levels), scheme)


def target_regions(spec: Loss, scheme: LabelScheme, spacing: Sequence[float]) -> Callable[[np.ndarray], np.ndarray] | None:
    """What a loss needs besides a label map's values, as a function of the map that worker processes can take; None: nothing."""
    return functools.partial(lesion_regions, scheme=scheme, spacing=tuple(spacing)) if spec.kind == "cc_dice_ce" else None


def level_weights(levels: int) -> tuple[float, ...]:
    """Weights of deep supervision, full resolution first: 1, 1/2, 1/4, ..., the last (of several) 0, scaled to sum 1."""
    weights = [0.5**level for level in range(levels)]
    if levels > 1:
        weights[-1] = 0.0
    return tuple(weight / sum(weights) for weight in weights)
