"""Additive Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autoseg.augmentation.chunks import chunks
from planners.plan import Noise


@dataclass(frozen=True)
class NoiseParameters:
    """`std`: one standard deviation for all channels; `seed`: what the noise itself is drawn from; `channels`: a standard deviation for
    each channel in place of `std`."""

    std: float
    seed: int
    channels: tuple[float, ...] = ()


def sample(spec: Noise, rng: np.random.Generator) -> NoiseParameters | None:
    """The noise for one sample, or None where it gets none."""
    if rng.random() >= spec.probability:
        return None
    std, seed = float(rng.uniform(*spec.std)), int(rng.integers(2**63))
    if not spec.channels:
        return NoiseParameters(std, seed)
    low, high = spec.std
    place = (std - low) / (high - low) if high > low else 1.0
    return NoiseParameters(std, seed, tuple(start + place * (end - start) for start, end in spec.channels))


def apply(data: torch.Tensor, parameters: NoiseParameters) -> torch.Tensor:
    """`data` (c, ...) float32 plus noise, changed in place; the noise is the same on every device."""
    # SFC64: the quickest of numpy's bit streams, and this one is thrown away after the image.
    stream = np.random.Generator(np.random.SFC64(parameters.seed))
    parts = zip(data, parameters.channels, strict=True) if parameters.channels else ((data, parameters.std),)
    for part, std in parts:
        for piece in chunks(part):
            noise = torch.from_numpy(stream.standard_normal(piece.numel(), dtype=np.float32))
            piece.add_(noise.to(data.device), alpha=std)
    return data
