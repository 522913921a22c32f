"""Simulated low resolution: down by nearest neighbour, up again linearly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autoseg.augmentation.linear import sample_separably, taps
from planners.plan import LowResolution


@dataclass(frozen=True)
class LowResolutionParameters:
    """`zooms`: for each channel None (left alone) or the factor of its size; `skip_first_axis`: that axis keeps its grid."""

    zooms: tuple[float | None, ...]
    skip_first_axis: bool = False


def sample(spec: LowResolution, rng: np.random.Generator, channels: int) -> LowResolutionParameters | None:
    """The zooms for one sample, or None where it gets none."""
    if rng.random() >= spec.probability:
        return None
    zooms = tuple(float(rng.uniform(*spec.zoom)) if rng.random() < spec.channel_probability else None for _ in range(channels))
    return LowResolutionParameters(zooms, spec.skip_first_axis)


def low_resolution_shape(shape: tuple[int, ...], zoom: float, skip_first_axis: bool) -> tuple[int, ...]:
    """The shape in between: `zoom` times the size, rounded, at least 1."""
    small = [max(1, round(n * zoom)) for n in shape]
    return (shape[0], *small[1:]) if skip_first_axis else tuple(small)


def apply(data: torch.Tensor, parameters: LowResolutionParameters) -> torch.Tensor:
    """`data` (c, ...) float32, in place; voxel edges, not centres, of the two grids lie on each other, and end values go on outside."""
    for channel, zoom in zip(data, parameters.zooms, strict=True):
        if zoom is not None:
            small = low_resolution_shape(tuple(channel.shape), zoom, parameters.skip_first_axis)
            volume = channel if channel.ndim == 3 else channel[None]
            volume.copy_(_there_and_back(volume, small if len(small) == 3 else (1, *small)))
    return data


def _there_and_back(volume: torch.Tensor, small: tuple[int, ...]) -> torch.Tensor:
    coarse = volume
    for axis, (n, m) in enumerate(zip(volume.shape, small, strict=True)):
        if m != n:
            # floor((i + 1/2) n / m), in integers
            coarse = coarse.index_select(axis, torch.tensor([(2 * i + 1) * n // (2 * m) for i in range(m)]))
    positions = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(volume.shape, small, strict=True)]
    z, y, x = (taps(p, m, zeros_outside=False) for p, m in zip(positions, small, strict=True))
    return sample_separably(coarse, (z, y, x))
