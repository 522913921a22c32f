"""Masked-autoencoder pretraining on images without labels."""

from __future__ import annotations

from pydantic import Field

from planners.schema.base import Strict
from planners.schema.training import SGD, Optimiser, PolySchedule, Schedule


class Pretraining(Strict):
    """How a configuration's network is pretrained: blocks of a patch are hidden, and it learns to fill them in.

    `blocks`: along each axis of the patch (their edge is rounded up; an axis of fewer voxels has blocks of one). `masked_share`: of a
    patch's blocks that are hidden. All else as in `Training`; the seed is `training.seed`.

    Source: Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation", CVPR 2025 (arXiv 2410.23132).
    """

    epochs: int = Field(default=1000, ge=1)
    iterations: int = Field(default=250, ge=1)
    masked_share: float = Field(default=0.75, gt=0, lt=1)
    blocks: int = Field(default=8, ge=2)
    gradient_clip: float = Field(default=12.0, gt=0)
    optimiser: Optimiser = SGD()
    schedule: Schedule = PolySchedule()
