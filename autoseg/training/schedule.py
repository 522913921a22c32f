"""Learning rate as a pure function of the epoch: nothing to save, and right again when a run is resumed or lengthened."""

from __future__ import annotations

import math

from planners.plan import PolySchedule, Schedule


def poly(initial: float, epoch: int, epochs: int, exponent: float = 0.9) -> float:
    """initial * (1 - epoch / epochs) ** exponent, for the epoch counted from 0.

    Raises:
        ValueError: an epoch outside [0, epochs].

    Source: Chen et al., "DeepLab", arXiv 1606.00915.
    """
    _require_within(epoch, epochs)
    return initial * (1 - epoch / epochs) ** exponent


def cosine(initial: float, epoch: int, epochs: int) -> float:
    """initial * (1 + cos(pi * epoch / epochs)) / 2, for the epoch counted from 0.

    Raises:
        ValueError: an epoch outside [0, epochs].

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    _require_within(epoch, epochs)
    return initial * (1 + math.cos(math.pi * epoch / epochs)) / 2


def learning_rate(schedule: Schedule, initial: float, epoch: int, epochs: int) -> float:
    """The learning rate that a plan's schedule sets for an epoch (from 0) of a training of `epochs`.

    The w epochs of a warm-up take initial * 1 / (w + 1), 2 / (w + 1), ...; the schedule then runs from `initial` over those that are left.

    Raises:
        ValueError: an epoch outside [0, epochs], or a warm-up as long as the training.
    """
    warmup = schedule.warmup_epochs
    if not 0 <= warmup < epochs:
        raise ValueError(f"a warm-up must be shorter than the training, found {warmup} of {epochs} epochs")
    if 0 <= epoch < warmup:
        return initial * (epoch + 1) / (warmup + 1)
    _require_within(epoch, epochs)
    if isinstance(schedule, PolySchedule):
        return poly(initial, epoch - warmup, epochs - warmup, schedule.exponent)
    return cosine(initial, epoch - warmup, epochs - warmup)


def _require_within(epoch: int, epochs: int) -> None:
    if not 0 <= epoch <= epochs or epochs < 1:
        raise ValueError(f"epoch must lie in [0, {epochs}] and epochs be at least 1, found epoch {epoch} of {epochs}")
