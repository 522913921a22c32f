"""Learning rate as a pure function of the epoch: nothing to save, and right again when a run is resumed or lengthened."""

from __future__ import annotations

from planners.plan import Schedule


def poly(initial: float, epoch: int, epochs: int, exponent: float = 0.9) -> float:
    """initial * (1 - epoch / epochs) ** exponent, for the epoch counted from 0.

    Raises:
        ValueError: an epoch outside [0, epochs].

    Source: Chen et al., "DeepLab", arXiv 1606.00915.
    """
    if not 0 <= epoch <= epochs or epochs < 1:
        raise ValueError(f"epoch must lie in [0, {epochs}] and epochs be at least 1, found epoch {epoch} of {epochs}")
    return initial * (1 - epoch / epochs) ** exponent


def learning_rate(schedule: Schedule, initial: float, epoch: int, epochs: int) -> float:
    """The learning rate that a plan's schedule sets for an epoch (from 0) of a training of `epochs`.

    Raises:
        ValueError: see `poly`.
    """
    return poly(initial, epoch, epochs, schedule.exponent)
