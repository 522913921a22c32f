"""Additive Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autoseg.augmentation.chunks import chunks
from planners.plan import Noise


@dataclass(frozen=True)
class NoiseParameters:
    """`std`: one standard deviation for all channels; `seed`: what the noise itself is drawn from."""

    std: float
    seed: int


def sample(spec: Noise, rng: np.random.Generator) -> NoiseParameters | None:
    """The noise for one sample, or None where it gets none."""
    if rng.random() >= spec.probability:
        return None
    return NoiseParameters(std=float(rng.uniform(*spec.std)), seed=int(rng.integers(2**63)))


def apply(data: torch.Tensor, parameters: NoiseParameters) -> torch.Tensor:
    """`data` (c, ...) float32 plus noise, changed in place; the noise is the same on every device."""
    # SFC64: the quickest of numpy's bit streams, and this one is thrown away after the image.
    stream = np.random.Generator(np.random.SFC64(parameters.seed))
    for piece in chunks(data):
        noise = torch.from_numpy(stream.standard_normal(piece.numel(), dtype=np.float32))
        piece.add_(noise.to(data.device), alpha=parameters.std)
    return data
