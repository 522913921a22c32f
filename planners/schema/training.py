"""Loss, optimiser, schedule, and how long a fold is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from planners.schema.base import Probability, Strict
from planners.schema.sampling import Sampling


class _Loss(Strict):
    """What all losses share: ce_weight x a per-voxel term + dice_weight x an overlap term over the foreground classes.

    `batch_dice`: one overlap a class over the whole batch, else one a class and sample. `smooth`: in its numerator and denominator.
    """

    kind: str
    dice_weight: float = Field(default=1.0, ge=0)
    ce_weight: float = Field(default=1.0, ge=0)
    smooth: float = Field(default=1e-5, ge=0)
    batch_dice: bool = False

    @model_validator(mode="after")
    def _teaches(self) -> _Loss:
        if self.dice_weight == self.ce_weight == 0:
            raise ValueError("dice_weight and ce_weight are both 0, so that nothing would be learned: give one of them more")
        return self


class DiceCELoss(_Loss):
    """Cross-entropy plus soft Dice: nnU-Net's loss."""

    kind: Literal["dice_ce"] = "dice_ce"


class DiceFocalLoss(_Loss):
    """Focal cross-entropy, weighted by (1 - p)^gamma, plus soft Dice."""

    kind: Literal["dice_focal"] = "dice_focal"
    gamma: float = Field(default=2.0, ge=0)


class DiceTopKLoss(_Loss):
    """Cross-entropy of the `percent` % voxels of a batch where it is largest, plus soft Dice."""

    kind: Literal["dice_topk"] = "dice_topk"
    percent: float = Field(default=10.0, gt=0, le=100)


class TverskyCELoss(_Loss):
    """Cross-entropy plus (1 - Tversky)^exponent, in which false positives weigh alpha and false negatives beta."""

    kind: Literal["tversky_ce"] = "tversky_ce"
    alpha: float = Field(default=0.3, ge=0)
    beta: float = Field(default=0.7, ge=0)
    exponent: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _errors_count(self) -> TverskyCELoss:
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0, so that no error would count: give one of them more")
        return self


class CCDiceCELoss(_Loss):
    """Dice and cross-entropy over everything, plus `component_weight` x the same in each lesion's own neighbourhood, all lesions alike."""

    kind: Literal["cc_dice_ce"] = "cc_dice_ce"
    component_weight: float = Field(default=1.0, ge=0)


Loss = Annotated[DiceCELoss | DiceFocalLoss | DiceTopKLoss | TverskyCELoss | CCDiceCELoss, Field(discriminator="kind")]


class SGD(Strict):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=1e-2, gt=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=3e-5, ge=0)

    @model_validator(mode="after")
    def _has_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0: raise momentum, or set nesterov to false")
        return self


class AdamW(Strict):
    """Adam with decoupled weight decay, on all parameters."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=3e-4, gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)


Optimiser = Annotated[SGD | AdamW, Field(discriminator="kind")]


class PolySchedule(Strict):
    """lr * (1 - epoch / epochs) ** exponent, set once an epoch; after `warmup_epochs` of a linear rise, over the epochs that are left."""

    kind: Literal["poly"] = "poly"
    exponent: float = Field(default=0.9, gt=0)
    warmup_epochs: int = Field(default=0, ge=0)


class CosineSchedule(Strict):
    """lr * (1 + cos(pi * epoch / epochs)) / 2, set once an epoch; after `warmup_epochs` of a linear rise, over the epochs that are left."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: int = Field(default=0, ge=0)


Schedule = Annotated[PolySchedule | CosineSchedule, Field(discriminator="kind")]


class EarlyStopping(Strict):
    """The epoch whose weights count is chosen on an inner part of the fold's training cases, and training ends when none gets better.

    `fraction`: of the training patients, not learned from. `hold_out`: patients of all centres, or whole centres. `iterations`: fixed
    patches (batches of them) judged after every epoch, by mean patch Dice or the loss. `patience`: epochs without a better one.
    """

    patience: int = Field(default=50, ge=1)
    measure: Literal["dice", "loss"] = "dice"
    fraction: float = Field(default=0.1, gt=0, lt=1)
    hold_out: Literal["patients", "centres"] = "patients"
    iterations: int = Field(default=50, ge=1)


class Training(Strict):
    """How long and how a fold is trained.

    `foreground_fraction`: share of each batch's samples that are centred on a foreground voxel; `sampling`: on which.
    `validation_iterations`: random validation patches for the learning curve, once an epoch; they choose nothing.
    `accumulation`: micro-batches that a batch is computed in; the batch, and but for rounding the result, stays the same.
    `compile`: whether the network is compiled (torch.compile): "auto" on CUDA where it can be; where it fails, it is computed as written.
    `deterministic`: CUDA takes kernels that give the same bits every time; on a CPU they always do.
    `ema`: decay of the weights' exponential moving average, which is then what is validated and written.
    `previous_masks`: which masks of a previous stage a fold learns from: `out_of_fold`, by folds that held the case out; `nested`, by folds
    that held out the case and this fold's own held-out cases too.
    """

    epochs: int = Field(default=1000, ge=1)
    iterations: int = Field(default=250, ge=1)
    validation_iterations: int = Field(default=50, ge=0)
    foreground_fraction: Probability = 0.33
    sampling: Sampling = Sampling()
    gradient_clip: float = Field(default=12.0, gt=0)
    accumulation: int = Field(default=1, ge=1)
    compile: Literal["auto"] | bool = "auto"
    deterministic: bool = False
    seed: int = Field(default=1234, ge=0)
    loss: Loss = DiceCELoss()
    optimiser: Optimiser = SGD()
    schedule: Schedule = PolySchedule()
    ema: float | None = Field(default=None, gt=0, lt=1)
    early_stopping: EarlyStopping | None = None
    previous_masks: Literal["out_of_fold", "nested"] = "out_of_fold"

    @model_validator(mode="after")
    def _warmup_fits(self) -> Training:
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs}) must be below epochs ({self.epochs}): "
                "lower it, or train for longer"
            )
        return self


KINDS: dict[str, dict[str, type[Strict]]] = {
    "loss": {
        "dice_ce": DiceCELoss,
        "dice_focal": DiceFocalLoss,
        "dice_topk": DiceTopKLoss,
        "tversky_ce": TverskyCELoss,
        "cc_dice_ce": CCDiceCELoss,
    },
    "optimiser": {"sgd": SGD, "adamw": AdamW},
    "schedule": {"poly": PolySchedule, "cosine": CosineSchedule},
}
"""Field of `Training` -> kind -> its class."""


def as_kind(field: str, document: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The document of a loss (optimiser, schedule) turned into one of another kind.

    What was changed from the old kind's default stays where the new kind has such a field; all else is the new kind's default.

    >>> as_kind("loss", DiceCELoss(batch_dice=True).model_dump(), "dice_topk")["batch_dice"]
    True
    """
    before = KINDS[field][document["kind"]].model_fields
    after = KINDS[field][kind].model_fields
    changed = {name: value for name, value in document.items() if name in after and value != before[name].default}
    return {**KINDS[field][kind]().model_dump(mode="json"), **changed, "kind": kind}
