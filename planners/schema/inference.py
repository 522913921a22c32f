"""How a trained network is applied."""

from __future__ import annotations

from pydantic import Field

from planners.schema.base import Strict


class Inference(Strict):
    """Sliding window: `step` as a share of the patch; Gaussian weight with sigma = `gaussian_sigma` x patch; flips averaged over all
    subsets of `mirror_axes` (network axis order)."""

    step: float = Field(default=0.5, gt=0, le=1)
    gaussian_sigma: float = Field(default=0.125, gt=0)
    mirror_axes: tuple[int, ...] = (0, 1, 2)
