"""Per-voxel terms of a loss, from the log-likelihood that the outputs give to the truth; voxels where nothing is known do not count.

Throughout, `likelihood` is float32 (n, heads, *spatial): log p of an output's true state. With labels only the true class's entry counts,
the others are 0; with regions every output's does, and a voxel's loss is the mean over its outputs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.training.distributed import Ranks
from autoseg.training.losses.truth import Truth

_SMALLEST_ERROR = 1e-6
"""1 - p is held above this under a power, whose slope may be infinite at 0."""


def log_likelihood(logits: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """(log-likelihood of the truth, probability of each output), both float32 (n, heads, *spatial).

    Softmax over the outputs with labels, a sigmoid for each with regions. The log-likelihood is 0 where nothing is known.
    """
    logits = logits.float()
    if truth.overlapping:
        likelihood = F.logsigmoid(torch.where(truth.heads, logits, -logits))
        return likelihood if truth.valid is None else torch.where(truth.valid, likelihood, 0.0), logits.sigmoid()
    log_probability = torch.log_softmax(logits, dim=1)
    # a masked sum rather than nll_loss: that one leaves channels-last, and has no deterministic CUDA kernel for images
    return torch.where(truth.heads, log_probability, 0.0), log_probability.exp()


def cross_entropy(likelihood: Tensor, truth: Truth) -> Tensor:
    """-log p, mean over the known voxels of the batch (and, with regions, over the outputs: binary cross-entropy). 0 if none is known."""
    return -truth.ranks.summed(likelihood.sum()) / _terms(truth)


def focal(likelihood: Tensor, truth: Truth, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p, averaged as the cross-entropy, which it equals for gamma = 0.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, without class weights.
    """
    error = (-torch.expm1(likelihood)).clamp_min(_SMALLEST_ERROR)
    return -truth.ranks.summed((error**gamma * likelihood).sum()) / _terms(truth)


def top_k(likelihood: Tensor, truth: Truth, percent: float) -> Tensor:
    """Mean cross-entropy of the `percent` % known voxels of the whole batch where it is largest (rounded down, at least one voxel).

    Source: Wu et al., "Bridging category-level and instance-level semantic image segmentation", arXiv 1605.06885; nnU-Net's DiceTopK10.
    """
    voxels = -likelihood.sum(1).flatten() / (likelihood.shape[1] if truth.overlapping else 1)
    count = truth.voxels
    known = int(count) if isinstance(count, Tensor) else count  # waits for the device, but only where there is an ignore label
    wanted = max(1, math.floor(known * percent / 100))
    if truth.ranks.world > 1:
        voxels = _candidates(voxels, wanted, truth.ranks)
    hardest = voxels.topk(wanted, sorted=False).values  # unknown voxels are 0: never before a known one
    return hardest.mean()


def _candidates(voxels: Tensor, wanted: int, ranks: Ranks) -> Tensor:
    """All ranks' `wanted` largest values: those of the whole batch are among them. A rank with fewer is filled up by -1, below any."""
    here = voxels.topk(min(wanted, len(voxels)), sorted=False).values
    return ranks.joined(F.pad(here, (0, wanted - len(here)), value=-1.0))


def _terms(truth: Truth) -> Tensor | int:
    return truth.voxels * (truth.heads.shape[1] if truth.overlapping else 1)
