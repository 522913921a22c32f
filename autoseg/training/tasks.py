"""What a network can be taught: which loss judges it, what the learning curve is drawn of, and how the log tells an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from autoseg.training.distributed import ALONE, Ranks
from autoseg.training.loop import Metric
from autoseg.training.losses import segmentation_loss
from autoseg.training.masked_images import hidden_error
from autoseg.training.patch_dice import PatchDice
from planners.labels import LabelScheme
from planners.plan import Configuration

Loss = Callable[[Any, Any], Tensor]
"""(outputs, targets) -> scalar, in float32."""


@dataclass(frozen=True)
class Segmentation:
    """A mask of every voxel, by the plan's loss.

    Attributes:
        labels: what the values of masks mean.
    """

    labels: LabelScheme

    def loss(self, spec: Configuration, ranks: Ranks = ALONE) -> tuple[Loss, bool]:
        """The loss, and whether it couples a batch's samples: then it runs over the batches of all `ranks`."""
        levels = len(spec.network.features) - 1 if spec.network.deep_supervision else 1
        loss = segmentation_loss(spec.training.loss, levels, self.labels)
        return (replace(loss, ranks=ranks), True) if loss.couples_samples else (loss, False)

    def metric(self, ranks: Ranks = ALONE) -> Metric:
        """A fresh metric of validation batches."""
        return PatchDice(self.labels, ranks)

    def told(self, row: Mapping[str, Any]) -> str:
        """What an epoch's row in the logbook says of the learning."""
        dice = " ".join("-" if value is None else f"{value:.3f}" for value in row.get("dice", {}).values())
        return f"loss {row['loss']:.4f}, patch Dice {dice or 'n/a'}"


@dataclass(frozen=True)
class Inpainting:
    """The voxels of hidden blocks, by their squared error; nothing is held out."""

    def loss(self, spec: Configuration, ranks: Ranks = ALONE) -> tuple[Loss, bool]:
        """As of every task."""
        return hidden_error, False

    def metric(self, ranks: Ranks = ALONE) -> Metric:
        """A metric that is never given a batch."""
        return _NoMetric()

    def told(self, row: Mapping[str, Any]) -> str:
        """As of every task."""
        return f"error of hidden voxels {row['loss']:.4f}"


Task = Segmentation | Inpainting


class _NoMetric:
    def update(self, outputs: Any, targets: Any) -> None:
        raise AssertionError("there are no validation batches")

    def result(self) -> dict[str, Any]:
        return {}
