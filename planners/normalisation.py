"""Which normalisation a channel gets, from its name."""

from __future__ import annotations

from collections.abc import Sequence

from planners.fingerprint import Fingerprint
from planners.intensity import IntensityStatistics
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
