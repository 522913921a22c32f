"""Loss, optimiser, schedule, and how long a fold is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planners.schema.base import Probability, Strict


class DiceCELoss(Strict):
    """Cross-entropy plus soft Dice over the foreground classes; `batch_dice`: one Dice a class over the whole batch."""

    kind: Literal["dice_ce"] = "dice_ce"
    dice_weight: float = Field(default=1.0, ge=0)
    ce_weight: float = Field(default=1.0, ge=0)
    smooth: float = Field(default=1e-5, ge=0)
    batch_dice: bool = False


Loss = DiceCELoss


class SGD(Strict):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=1e-2, gt=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=3e-5, ge=0)


Optimiser = SGD


class PolySchedule(Strict):
    """lr * (1 - epoch / epochs) ** exponent, set once an epoch."""

    kind: Literal["poly"] = "poly"
    exponent: float = Field(default=0.9, gt=0)


Schedule = PolySchedule


class Training(Strict):
    """How long and how a fold is trained.

    `foreground_fraction`: share of each batch's samples that are centred on a foreground voxel.
    `validation_iterations`: random validation patches for the learning curve, once an epoch; they choose nothing.
    """

    epochs: int = Field(default=1000, ge=1)
    iterations: int = Field(default=250, ge=1)
    validation_iterations: int = Field(default=50, ge=0)
    foreground_fraction: Probability = 0.33
    gradient_clip: float = Field(default=12.0, gt=0)
    seed: int = Field(default=1234, ge=0)
    loss: Loss = DiceCELoss()
    optimiser: Optimiser = SGD()
    schedule: Schedule = PolySchedule()
