"""Losses of segmentation, as pure functions of logits and labels. Everything is computed in float32, also under autocast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from planners.plan import Loss

SegmentationLoss = Callable[[Tensor | Sequence[Tensor], Tensor], Tensor]

_SMALLEST_DENOMINATOR = 1e-8


def segmentation_loss(spec: Loss, levels: int = 1) -> SegmentationLoss:
    """The function (outputs, target) -> scalar loss that a plan asks for.

    Args:
        spec: the plan's loss.
        levels: how many outputs the network has in training mode.

    Returns:
        A function of `outputs`, logits (n, classes, *spatial) or a list of `levels` of them, full resolution first, and of `target`,
        integers (n, *spatial) in [0, classes). It returns the weighted sum of `dice_ce` over the levels, of a single tensor its `dice_ce`.
        Levels of weight 0 are not computed. Raises ValueError where the list has another length.
    """
    weights = level_weights(levels)

    def single(logits: Tensor, target: Tensor) -> Tensor:
        return dice_ce(
            logits,
            target,
            batch_dice=spec.batch_dice,
            dice_weight=spec.dice_weight,
            ce_weight=spec.ce_weight,
            smooth=spec.smooth,
        )

    def loss(outputs: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        if isinstance(outputs, Tensor):
            return single(outputs, target)
        if len(outputs) != levels:
            raise ValueError(f"the loss was made for {levels} outputs, found {len(outputs)}")
        terms = [
            weight * single(logits, downsample(target, logits.shape[2:]))
            for weight, logits in zip(weights, outputs, strict=True)
            if weight > 0
        ]
        return torch.stack(terms).sum()

    return loss


def level_weights(levels: int) -> tuple[float, ...]:
    """Weights of deep supervision, full resolution first: 1, 1/2, 1/4, ..., the last (of several) 0, scaled to sum 1."""
    weights = [0.5**level for level in range(levels)]
    if levels > 1:
        weights[-1] = 0.0
    return tuple(weight / sum(weights) for weight in weights)


def dice_ce(
    logits: Tensor,
    target: Tensor,
    *,
    batch_dice: bool = False,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    smooth: float = 1e-5,
) -> Tensor:
    """ce_weight * cross-entropy (mean over all voxels) - dice_weight * soft Dice (mean over the foreground classes).

    Args:
        logits: shape (n, classes, *spatial).
        target: integers of shape (n, *spatial) in [0, classes).
        batch_dice: one Dice a class over the whole batch; else one a class and sample, averaged.
        smooth: in numerator and denominator of the Dice.

    Returns:
        A scalar in float32; -1 is the least possible with weights of 1.

    Raises:
        ValueError: the shapes do not fit.
    """
    if logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: expected (n, c, ...) and (n, ...)")
    with torch.autocast(logits.device.type, enabled=False):
        log_probability = torch.log_softmax(logits.float(), dim=1)
        truth = _one_hot(target, logits.shape[1])
        # a masked sum rather than nll_loss: that one leaves channels-last, and has no deterministic CUDA kernel for images
        cross_entropy = -torch.where(truth, log_probability, 0.0).sum() / target.numel()
        dice = soft_dice(log_probability.exp()[:, 1:], truth[:, 1:], batch_dice=batch_dice, smooth=smooth)
        return ce_weight * cross_entropy - dice_weight * dice.mean()


def soft_dice(probability: Tensor, truth: Tensor, *, batch_dice: bool, smooth: float = 1e-5) -> Tensor:
    """(2 * sum(p t) + smooth) / (sum(p) + sum(t) + smooth), sums over space and, with `batch_dice`, over the batch.

    Args:
        probability, truth: shape (n, classes, *spatial); truth bool.

    Returns:
        Shape (classes,) with `batch_dice`, else (n, classes).

    Source: Milletari et al., "V-Net", 3DV 2016 (without the squares); Drozdzal et al., arXiv 1608.04117.
    """
    axes = (*((0,) if batch_dice else ()), *range(2, probability.ndim))
    overlap = torch.where(truth, probability, 0.0).sum(axes)
    total = probability.sum(axes) + truth.sum(axes)
    return (2 * overlap + smooth) / (total + smooth).clamp_min(_SMALLEST_DENOMINATOR)


def _one_hot(target: Tensor, classes: int) -> Tensor:
    """Bool, shape (n, classes, *spatial)."""
    labels = torch.arange(classes, device=target.device, dtype=target.dtype)
    return target.unsqueeze(1) == labels.view(-1, *[1] * (target.ndim - 1))


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
