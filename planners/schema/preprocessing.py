"""Normalisation, one scheme a channel, and resampling."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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
    CTNormalisation | ZScoreNormalisation | NoNormalisation | RescaleNormalisation | RGBNormalisation, Field(discriminator="kind")
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
