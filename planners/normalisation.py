"""Which normalisation a channel gets, from its name; and what it does to the values of a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planners.fingerprint import CaseFingerprint, Fingerprint
from planners.intensity import LEVELS, IntensitySketch, IntensityStatistics
from planners.plan import (
    CTNormalisation,
    NoNormalisation,
    Normalisation,
    PETNormalisation,
    PlanInvalid,
    RescaleNormalisation,
    RGBNormalisation,
    ZScoreNormalisation,
)

PET_NAMES = ("pet", "pt", "suv")
"""What a PET channel is called, in lower case."""

SAMPLED = 20_000
"""So many values, evenly spread over the quantiles of a sketch, stand for an image."""

MASKED_BELOW = 0.75
"""Z-scores are taken inside the non-zero mask where cropping leaves less than this share of the median case."""


def pet_channel(channels: Sequence[str]) -> int | None:
    """The index of the first PET channel; None where there is none."""
    return next((index for index, name in enumerate(channels) if name.lower() in PET_NAMES), None)


def normalisations(fingerprint: Fingerprint) -> tuple[tuple[Normalisation, ...], dict[str, str]]:
    """One normalisation a channel, and the reasons keyed "normalisation.N".

    Raises:
        PlanInvalid: a CT channel, and no case has a labelled voxel.
    """
    chosen, reasons = [], {}
    for index, channel in enumerate(fingerprint.channels):
        scheme, why = _scheme(channel, fingerprint.foreground[index], fingerprint.relative_size)
        chosen.append(scheme)
        reasons[f"normalisation.{index}"] = f"channel {channel!r}: {why}"
    return tuple(chosen), reasons


def _scheme(channel: str, foreground: IntensityStatistics | None, relative_size: float) -> tuple[Normalisation, str]:
    match channel.lower():
        case "ct":
            return _ct(
                channel, foreground
            ), "CT: clipped to the 0.5 and 99.5 percentiles of the labelled voxels, every case weighing the same"
        case "nonorm":
            return NoNormalisation(), "values as they are"
        case "rescale_to_0_1":
            return RescaleNormalisation(), "each image's range to 0 and 1"
        case "rgb_to_0_1":
            return RGBNormalisation(), "divided by 255"
    if channel.lower() in PET_NAMES:
        return PETNormalisation(), "PET: z-score of each image inside the body, clipped at the body's 99.5 percentile, whatever its unit"
    masked = relative_size < MASKED_BELOW
    region, relation = ("inside the non-zero mask", "less than") if masked else ("over the whole image", "not less than")
    why = f"cropping leaves {relative_size:.3g} of the median case, {relation} {MASKED_BELOW:g}"
    return ZScoreNormalisation(masked=masked), f"no scheme of its own: z-score of each image {region}, since {why}"


def _ct(channel: str, foreground: IntensityStatistics | None) -> CTNormalisation:
    if foreground is None:
        raise PlanInvalid(f"channel {channel!r} is normalised by its intensities under the labels, and no case has a labelled voxel")
    return CTNormalisation(
        lower=foreground.percentile_00_5,
        upper=foreground.percentile_99_5,
        mean=foreground.mean,
        # A constant foreground must not divide by zero.
        std=max(foreground.std, 1e-8),
    )


@dataclass(frozen=True)
class Scale:
    """What a normalisation does to the values of one case: (clip(x, lower, upper) - shift) / factor."""

    shift: float
    factor: float
    lower: float = -math.inf
    upper: float = math.inf

    def apply(self, value: float) -> float:
        """One value on the network's scale."""
        return (min(max(value, self.lower), self.upper) - self.shift) / self.factor


def scale_of(scheme: Normalisation, case: CaseFingerprint, channel: int) -> Scale | None:
    """How a channel of a case comes onto the network's scale, from its sketch alone; None for a channel without voxels or contrast.

    Outside the non-zero region all channels are 0, so the statistics of the whole cropped image follow from those of the region.
    """
    body = case.body[channel]
    if isinstance(scheme, CTNormalisation):
        return Scale(scheme.mean, scheme.std, scheme.lower, scheme.upper)
    if isinstance(scheme, NoNormalisation):
        return Scale(0.0, 1.0)
    if isinstance(scheme, RGBNormalisation):
        return Scale(0.0, 255.0)
    if body is None:
        return None
    share = min(1.0, body.count / math.prod(case.shape_after_crop))
    if isinstance(scheme, RescaleNormalisation):
        low, high = (body.minimum, body.maximum) if share == 1 else (min(body.minimum, 0.0), max(body.maximum, 0.0))
        return Scale(low, high - low) if high > low else None
    if isinstance(scheme, PETNormalisation):
        return _pet_scale(scheme, body, share)
    if scheme.masked:
        return Scale(body.mean, body.std) if body.std > 0 else None
    mean = share * body.mean
    variance = share * (body.std**2 + body.mean**2) - mean**2
    return Scale(mean, math.sqrt(variance)) if variance > 0 else None


def _pet_scale(scheme: PETNormalisation, body: IntensitySketch, share: float) -> Scale | None:
    """The scale of a PET image whose non-zero region, that share of it, has this sketch; values between the quantiles taken as linear."""
    count = max(1, round(SAMPLED * share))
    inside = np.interp((np.arange(count) + 0.5) / count, LEVELS, body.quantiles)
    values = np.concatenate([np.zeros(SAMPLED - count), inside])
    kept = values[values > scheme.body * np.percentile(values, 99.5)]
    kept = kept if kept.size else values
    upper = float(np.percentile(kept, scheme.clip))
    kept = np.minimum(kept, upper)
    return Scale(float(kept.mean()), float(kept.std()), upper=upper) if kept.std() > 0 else None
