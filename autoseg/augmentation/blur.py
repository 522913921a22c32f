"""Gaussian blur, one standard deviation a channel and axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from autoseg.augmentation.chunks import LARGEST_PIECE
from planners.plan import Blur, channel_range

TRUNCATE = 4.0
"""The kernel ends at this many standard deviations, as scipy's does."""


@dataclass(frozen=True)
class BlurParameters:
    """`sigmas`: for each channel None (left alone) or one standard deviation an axis, in voxels."""

    sigmas: tuple[tuple[float, ...] | None, ...]


def sample(spec: Blur, rng: np.random.Generator, channels: int, dimension: int) -> BlurParameters | None:
    """The blur for one sample, or None where it gets none."""
    if rng.random() >= spec.probability:
        return None
    return BlurParameters(
        tuple(
            tuple(float(s) for s in rng.uniform(*channel_range(spec.sigma, spec.channels, channel), dimension))
            if rng.random() < spec.channel_probability
            else None
            for channel in range(channels)
        )
    )


def apply(data: torch.Tensor, parameters: BlurParameters) -> torch.Tensor:
    """`data` (c, ...) float32 contiguous, blurred in place: `scipy.ndimage.gaussian_filter` with mode "reflect" to float32's precision."""
    for channel, sigmas in zip(data, parameters.sigmas, strict=True):
        for axis, sigma in enumerate(sigmas or ()):
            _blur_axis(channel, axis, half_kernel(sigma))
    return data


def half_kernel(sigma: float) -> tuple[float, ...]:
    """Weights at distance 0, 1, 2 ... of the normalised Gaussian kernel cut at `TRUNCATE` standard deviations."""
    radius = int(TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    return tuple((weights / (weights[0] + 2 * weights[1:].sum())).tolist())


def _blur_axis(image: torch.Tensor, axis: int, weights: tuple[float, ...]) -> None:
    """Each block is copied into a buffer with mirrored ends. There, shifting along the axis is shifting the flat buffer, so every tap is
    two contiguous vector operations in cache; what they compute across the ends of lines is never read."""
    radius, length = len(weights) - 1, image.shape[axis]
    padded = length + 2 * radius
    for block in _blocks(image, axis, padded):
        lines, _, width = block.shape
        flat = _reflected(block, radius).view(-1)
        size = flat.numel() - 2 * radius * width
        total = flat[radius * width :][:size] * weights[0]
        pair = torch.empty_like(total)
        for distance in range(1, radius + 1):
            torch.add(flat[(radius - distance) * width :][:size], flat[(radius + distance) * width :][:size], out=pair)
            total.add_(pair, alpha=weights[distance])
        block.copy_(total.as_strided((lines, length, width), (padded * width, width, 1)))


def _reflected(block: torch.Tensor, radius: int) -> torch.Tensor:
    """(lines, length, width) continued as scipy's "reflect" (d c b a | a b c d | d c b a) on both ends of axis 1."""
    length = block.shape[1]
    if radius <= length:
        return torch.cat((block[:, :radius].flip(1), block, block[:, length - radius :].flip(1)), 1)
    period = torch.arange(-radius, length + radius) % (2 * length)
    return block.index_select(1, torch.minimum(period, 2 * length - 1 - period))


def _blocks(image: torch.Tensor, axis: int, padded: int) -> Iterator[torch.Tensor]:
    """Views (lines, length, width) that cover the image and fit the cache; `length` is the axis' whole extent."""
    length = image.shape[axis]
    view = image.view(int(np.prod(image.shape[:axis])), length, -1)
    lines = max(1, LARGEST_PIECE // (padded * view.shape[2]))
    width = max(64, LARGEST_PIECE // padded)
    for start in range(0, view.shape[0], lines):
        yield from view[start : start + lines].split(width, dim=2)
