"""Overlap terms of a loss: soft Dice and Tversky, from sums over voxels; voxels where nothing is known do not count."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.training.distributed import ALONE, Ranks

_SMALLEST_DENOMINATOR = 1e-8
_SMALLEST_ERROR = 1e-6
"""1 - overlap is held above this under a power, whose slope may be infinite at 0."""


def overlap_sums(
    probability: Tensor, truth: Tensor, valid: Tensor | None, *, over_batch: bool, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor, Tensor]:
    """(sum(p t), sum(p), sum(t)) over space and, with `over_batch`, over the batch.

    Args:
        probability: float (n, classes, *spatial).
        truth: bool of that shape, false where `valid` is.
        valid: bool (n, 1, *spatial): the voxels that count; None where all do.
        ranks: with `over_batch`, the processes that share the batch.

    Returns:
        Each of shape (classes,) with `over_batch`, else (n, classes).
    """
    axes = (*((0,) if over_batch else ()), *range(2, probability.ndim))
    both = torch.where(truth, probability, 0.0).sum(axes)
    known = probability if valid is None else torch.where(valid, probability, 0.0)
    sums = both, known.sum(axes), truth.sum(axes)
    if not over_batch or ranks.world == 1:
        return sums
    return tuple(ranks.summed(torch.stack([part.float() for part in sums])))


def soft_dice(
    probability: Tensor, truth: Tensor, valid: Tensor | None = None, *, batch_dice: bool, smooth: float = 1e-5, ranks: Ranks = ALONE
) -> Tensor:
    """(2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), sums as `overlap_sums`; 1 where class and prediction are empty.

    Source: Milletari et al., "V-Net", 3DV 2016 (without the squares); Drozdzal et al., arXiv 1608.04117.
    """
    both, predicted, true = overlap_sums(probability, truth, valid, over_batch=batch_dice, ranks=ranks)
    return (2 * both + smooth) / (predicted + true + smooth).clamp_min(_SMALLEST_DENOMINATOR)


def tversky(
    probability: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    *,
    alpha: float,
    beta: float,
    batch_dice: bool,
    smooth: float = 1e-5,
    ranks: Ranks = ALONE,
) -> Tensor:
    """(TP + smooth) / (TP + alpha FP + beta FN + smooth), with TP = sum(p t), FP = sum(p (1 - t)), FN = sum((1 - p) t).

    alpha = beta = 0.5 is the Dice (with twice the smooth). Arguments and shape as `soft_dice`.

    Source: Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep networks", MLMI 2017.
    """
    both, predicted, true = overlap_sums(probability, truth, valid, over_batch=batch_dice, ranks=ranks)
    weighted = both + alpha * (predicted - both) + beta * (true - both)
    return (both + smooth) / (weighted + smooth).clamp_min(_SMALLEST_DENOMINATOR)


def focal_error(overlap: Tensor, exponent: float) -> Tensor:
    """(1 - overlap)^exponent; an exponent below 1 makes the slope of classes that fit well steeper, one above 1 flatter.

    Source: Abraham and Khan, "A novel focal Tversky loss function with improved attention U-Net", ISBI 2019 (exponent = 1 / their gamma).
    """
    return (1 - overlap).clamp_min(_SMALLEST_ERROR) ** exponent
