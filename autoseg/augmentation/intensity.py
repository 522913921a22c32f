"""Brightness and contrast, drawn per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autoseg.augmentation.chunks import chunks, extremes, mean
from planners.plan import Brightness, Contrast, channel_range


@dataclass(frozen=True)
class BrightnessParameters:
    """`factors`: one a channel."""

    factors: tuple[float, ...]


@dataclass(frozen=True)
class ContrastParameters:
    """`factors`: one a channel."""

    factors: tuple[float, ...]


def sample_brightness(spec: Brightness, rng: np.random.Generator, channels: int) -> BrightnessParameters | None:
    """The brightness for one sample, or None where it stays."""
    if rng.random() >= spec.probability:
        return None
    ranges = [channel_range(spec.factor, spec.channels, channel) for channel in range(channels)]
    return BrightnessParameters(tuple(float(rng.uniform(*bounds)) for bounds in ranges))


def sample_contrast(spec: Contrast, rng: np.random.Generator, channels: int) -> ContrastParameters | None:
    """The contrast for one sample, or None where it stays."""
    if rng.random() >= spec.probability:
        return None
    return ContrastParameters(tuple(draw_around_one(channel_range(spec.factor, spec.channels, c), rng) for c in range(channels)))


def draw_around_one(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """A factor from the range; where the range spans 1, half the draws are uniform below 1 and half uniform above."""
    low, high = bounds
    below, position = rng.random(2)
    if low < 1 < high:
        low, high = (low, 1.0) if below < 0.5 else (1.0, high)
    return float(low + (high - low) * position)


def apply_brightness(data: torch.Tensor, parameters: BrightnessParameters) -> torch.Tensor:
    """`data` (c, ...) float32, each channel times its factor, in place."""
    for channel, factor in zip(data, parameters.factors, strict=True):
        channel.mul_(factor)
    return data


def apply_contrast(data: torch.Tensor, parameters: ContrastParameters) -> torch.Tensor:
    """`data` (c, ...) float32 contiguous, in place: each channel's distance to its mean times its factor, clipped to its old range."""
    for channel, factor in zip(data, parameters.factors, strict=True):
        low, high = extremes(channel)
        offset = mean(channel) * (1 - factor)
        for piece in chunks(channel):
            piece.mul_(factor).add_(offset).clamp_(low, high)
    return data
