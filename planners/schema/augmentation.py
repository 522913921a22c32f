"""What is done to a training sample, one class a transform.

Transforms of intensities have a range for all channels; `channels`, where it is not empty, has one for each channel in its place.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from planners.schema.base import NotNegativeRange, PositiveRange, Probability, Range, Strict


class Spatial(Strict):
    """Rotation (degrees, drawn per axis) and isotropic scaling of the sampling grid; images linear with 0 outside, labels one-hot linear
    with -1 (ignored, later 0) outside. `in_plane`: only the last two axes, slice by slice."""

    rotation_probability: Probability = 0.2
    rotation_degrees: Range = (-30.0, 30.0)
    scaling_probability: Probability = 0.2
    scaling: PositiveRange = (0.7, 1.4)
    in_plane: bool = False


class Noise(Strict):
    """Additive Gaussian noise; one standard deviation for all channels, drawn from the range. `channels`: one draw for all still, at the
    same place of each channel's range."""

    probability: Probability = 0.1
    std: NotNegativeRange = (0.0, 0.1)
    channels: tuple[NotNegativeRange, ...] = ()


class Blur(Strict):
    """Gaussian blur; standard deviation in voxels, drawn per channel and axis."""

    probability: Probability = 0.2
    channel_probability: Probability = 0.5
    sigma: NotNegativeRange = (0.5, 1.0)
    channels: tuple[NotNegativeRange, ...] = ()


class Brightness(Strict):
    """Multiplication by a factor, drawn per channel."""

    probability: Probability = 0.15
    factor: PositiveRange = (0.75, 1.25)
    channels: tuple[PositiveRange, ...] = ()


class Contrast(Strict):
    """(x - mean) * factor + mean, clipped to the old range, per channel; half the draws below 1 where the range spans 1."""

    probability: Probability = 0.15
    factor: PositiveRange = (0.75, 1.25)
    channels: tuple[PositiveRange, ...] = ()


class LowResolution(Strict):
    """Down by nearest neighbour and up again linearly; zoom drawn per channel. `skip_first_axis`: the coarse axis keeps its grid."""

    probability: Probability = 0.25
    channel_probability: Probability = 0.5
    zoom: PositiveRange = (0.5, 1.0)
    skip_first_axis: bool = False


class Gamma(Strict):
    """Power law on the image scaled to its range, mean and standard deviation kept; drawn per channel, half the draws below 1.
    `inverted_probability`: a separate transform on the negated image, applied before."""

    probability: Probability = 0.3
    inverted_probability: Probability = 0.1
    gamma: PositiveRange = (0.7, 1.5)
    channels: tuple[PositiveRange, ...] = ()


class Mirror(Strict):
    """Each listed axis flipped with this probability."""

    probability: Probability = 0.5
    axes: tuple[int, ...] = (0, 1, 2)


LARGEST_RADIUS = 100.0


def _ball_radius(radius: Range) -> Range:
    low, high = radius
    if not 0 < low <= high <= LARGEST_RADIUS:
        raise ValueError(f"must be a range inside (0, {LARGEST_RADIUS:g}] voxels, found {list(radius)}")
    return radius


class MaskMorphology(Strict):
    """Dilation, erosion, closing or opening of a previous stage's masks by a ball (2-D: a disc); operator, radius in voxels and whether a
    class is chosen are drawn per class. What a class gains is taken from the classes that exclude it."""

    probability: Probability = 0.4
    class_probability: Probability = 0.5
    radius: Annotated[tuple[float, float], AfterValidator(_ball_radius)] = (1.0, 8.0)


class MaskComponents(Strict):
    """One connected component (26 neighbours; 2-D: 8) of each chosen class of a previous stage's masks is left out, drawn among those that
    fill less than `largest_share` of the patch."""

    probability: Probability = 0.2
    class_probability: Probability = 0.5
    largest_share: Probability = 0.15


class PreviousStageMasks(Strict):
    """What is done to the masks of a previous stage, after everything else: a network that sees them must not trust them blindly."""

    morphology: MaskMorphology | None = MaskMorphology()
    components: MaskComponents | None = MaskComponents()


class Augmentation(Strict):
    """Everything done to a training sample, in this order. `backend`: own fused transforms, or batchgenerators as the reference."""

    backend: Literal["fused", "batchgenerators"] = "fused"
    spatial: Spatial | None = Spatial()
    noise: Noise | None = Noise()
    blur: Blur | None = Blur()
    brightness: Brightness | None = Brightness()
    contrast: Contrast | None = Contrast()
    low_resolution: LowResolution | None = LowResolution()
    gamma: Gamma | None = Gamma()
    mirror: Mirror | None = Mirror()
    zero_outside_mask: tuple[int, ...] = ()
    previous_stage: PreviousStageMasks | None = None

    def channel_ranges(self) -> dict[str, int]:
        """For how many channels each transform has ranges of their own; transforms without such ranges are left out."""
        found = {name: getattr(getattr(self, name), "channels", ()) for name in ("noise", "blur", "brightness", "contrast", "gamma")}
        return {name: len(ranges) for name, ranges in found.items() if ranges}


def channel_range(common: Range, channels: tuple[Range, ...], channel: int) -> Range:
    """The range of one channel: its own where there are such, else the common one."""
    return channels[channel] if channels else common
