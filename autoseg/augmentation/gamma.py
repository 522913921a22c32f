"""Power law on the intensities, mean and standard deviation kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autoseg.augmentation.chunks import chunks, extremes, mean_and_std
from autoseg.augmentation.intensity import draw_around_one
from planners.plan import Gamma, channel_range

RANGE_EPSILON = 1e-7
STD_EPSILON = 1e-8


@dataclass(frozen=True)
class GammaParameters:
    """`gammas`: one exponent a channel; `inverted`: on the negated image."""

    gammas: tuple[float, ...]
    inverted: bool = False


def sample(spec: Gamma, rng: np.random.Generator, channels: int, *, inverted: bool = False) -> GammaParameters | None:
    """The exponents for one sample, or None where it stays; `inverted` chooses which of the two gamma transforms is drawn."""
    if rng.random() >= (spec.inverted_probability if inverted else spec.probability):
        return None
    return GammaParameters(tuple(draw_around_one(channel_range(spec.gamma, spec.channels, c), rng) for c in range(channels)), inverted)


def apply(data: torch.Tensor, parameters: GammaParameters) -> torch.Tensor:
    """`data` (c, ...) float32 contiguous, in place: each channel to (x - min) / range, to the power, then back to its old mean and standard
    deviation. A constant channel stays as it is."""
    for channel, exponent in zip(data, parameters.gammas, strict=True):
        _apply_to_channel(channel, exponent, parameters.inverted)
    return data


def _apply_to_channel(channel: torch.Tensor, exponent: float, inverted: bool) -> None:
    low, high = extremes(channel)
    extent = high - low
    if extent == 0:
        return
    centre, spread = mean_and_std(channel)
    # Inverted, the power law runs on -x: its minimum is -high, and the result is negated again.
    start, sign = (high, -1.0) if inverted else (low, 1.0)
    unit = sign / (extent + RANGE_EPSILON)
    for piece in chunks(channel):
        # exp(g log x) is twice as quick as pow; log 0 is -inf and comes back as 0. The clamp catches -0.0 and rounding below 0.
        piece.sub_(start).mul_(unit).clamp_min_(0).log_().mul_(exponent).exp_()
    # Scaling back to the old range drops out against restoring mean and deviation, except inside the epsilon.
    new_centre, new_spread = mean_and_std(channel)
    scale = sign * extent * spread / (new_spread * extent + STD_EPSILON)
    for piece in chunks(channel):
        piece.sub_(new_centre).mul_(scale).add_(centre)
