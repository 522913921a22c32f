"""Normalisation, one scheme a channel, and resampling."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planners.schema.base import Strict


class CTNormalisation(Strict):
    """Clip to the training foreground's 0.5 and 99.5 percentiles, subtract its mean, divide by its standard deviation."""

    kind: Literal["ct"] = "ct"
    lower: float
    upper: float
    mean: float
    std: float = Field(gt=0)


class ZScoreNormalisation(Strict):
    """Subtract the image's own mean, divide by its standard deviation; `masked`: both from inside the non-zero mask, 0 outside."""

    kind: Literal["zscore"] = "zscore"
    masked: bool = False


class PETNormalisation(Strict):
    """The body's own scale, so that neither units, nor air, nor a hot spot matter.

    The body: voxels above `body` x the image's 99.5 percentile. Values above the body's percentile `clip` become that percentile; then the
    body's mean is subtracted and the result divided by the body's standard deviation.
    """

    kind: Literal["pet"] = "pet"
    body: float = Field(default=0.01, ge=0, lt=1)
    clip: float = Field(default=99.5, gt=50, le=100)


class NoNormalisation(Strict):
    """Values as they are."""

    kind: Literal["none"] = "none"


class RescaleNormalisation(Strict):
    """The image's own minimum and maximum to 0 and 1."""

    kind: Literal["rescale_0_1"] = "rescale_0_1"


class RGBNormalisation(Strict):
    """Divide by 255."""

    kind: Literal["rgb"] = "rgb"


Normalisation = Annotated[
    CTNormalisation | ZScoreNormalisation | PETNormalisation | NoNormalisation | RescaleNormalisation | RGBNormalisation,
    Field(discriminator="kind"),
]


class Resampling(Strict):
    """How images and masks come onto the target spacing.

    `separate_z_ratio`: where the largest spacing exceeds the smallest by more than this factor (in the image, else in the target), the
    coarse axis is resampled apart, nearest neighbour, and only the other two by spline. Order 3 is scipy's cubic spline, order 1 linear.
    """

    image_order: Literal[1, 3] = 3
    label_order: Literal[0, 1] = 1
    logits_order: Literal[1] = 1
    separate_z_ratio: float = Field(default=3.0, gt=1)


class HeadAndNeckBox(Strict):
    """A box of head and neck, found in each case from its PET: only what lies in it is prepared, trained on and predicted.

    The brain is the largest connected region more than `uptake` standard deviations above the scan's mean in the upper `top_share` of the
    slices. `size_mm` (z, y, x): the box is centred on the brain and reaches down from 20 mm above it. `channel`: the PET's.
    """

    kind: Literal["head_and_neck"] = "head_and_neck"
    channel: int = Field(ge=0)
    size_mm: tuple[float, float, float] = (310.0, 200.0, 200.0)
    uptake: float = 1.0
    top_share: float = Field(default=0.25, gt=0, le=1)

    @model_validator(mode="after")
    def _positive(self) -> HeadAndNeckBox:
        if min(self.size_mm) <= 0:
            raise ValueError(f"size_mm must be positive, found {list(self.size_mm)}")
        return self


Region = HeadAndNeckBox
