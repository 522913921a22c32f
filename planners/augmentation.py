"""How hard to augment, from the patch's shape and the channels' normalisation; how the centres change that, `centre_rules` knows."""

from __future__ import annotations

from collections.abc import Sequence

from planners.plan import Augmentation, LowResolution, Mirror, Normalisation, Spatial, ZScoreNormalisation

IN_PLANE_ASPECT = 3.0
"""A 3-D patch longer than this many times its first axis is rotated and scaled slice by slice."""

LONG_SLICE_ASPECT = 1.5
"""A 2-D patch longer than this many times its shorter side is rotated a little only."""


def spatial(patch_size: Sequence[int]) -> tuple[Spatial, str]:
    """How a patch of this shape (network order, 2 or 3 entries) is rotated and scaled, and why."""
    longest = max(patch_size)
    if len(patch_size) == 3:
        aspect = longest / patch_size[0]
        if aspect > IN_PLANE_ASPECT:
            rule = f"the patch is {aspect:.3g} x longer than its first axis, more than {IN_PLANE_ASPECT:g}: slice by slice, any angle"
            return Spatial(rotation_degrees=(-180.0, 180.0), in_plane=True), rule
        return (
            Spatial(),
            f"the patch is {aspect:.3g} x longer than its first axis, at most {IN_PLANE_ASPECT:g}: +-30 degrees about each axis",
        )
    aspect = longest / min(patch_size)
    if aspect > LONG_SLICE_ASPECT:
        return Spatial(
            rotation_degrees=(-15.0, 15.0)
        ), f"the patch has an aspect of {aspect:.3g}, above {LONG_SLICE_ASPECT:g}: +-15 degrees"
    return Spatial(rotation_degrees=(-180.0, 180.0)), f"the patch has an aspect of {aspect:.3g}, at most {LONG_SLICE_ASPECT:g}: any angle"


def mirror_axes(dimension: int, transpose: Sequence[int], excluded: Sequence[int]) -> tuple[int, ...]:
    """The axes of a configuration (0 to dimension - 1) that may be flipped.

    Args:
        dimension: 2 or 3; a 2-D configuration sees the last two network axes.
        transpose: network axis -> array axis.
        excluded: array axes along which left and right differ.
    """
    seen = transpose[3 - dimension :]
    return tuple(index for index, axis in enumerate(seen) if axis not in excluded)


def augmentation(
    patch_size: Sequence[int], normalisation: Sequence[Normalisation], axes: tuple[int, ...]
) -> tuple[Augmentation, dict[str, str]]:
    """The augmentation of a configuration and its reasons, keyed by the field inside `augmentation`.

    Args:
        patch_size: voxels, network order, 2 or 3 entries.
        normalisation: one a channel; what is normalised inside a mask stays 0 outside after augmentation too.
        axes: what `mirror_axes` allows.

    Source: nnU-Net v2's training augmentation.
    """
    moved, why = spatial(patch_size)
    masked = tuple(i for i, n in enumerate(normalisation) if isinstance(n, ZScoreNormalisation) and n.masked)
    reasons = {"spatial": why}
    if moved.in_plane:
        reasons["low_resolution.skip_first_axis"] = "as spatial.in_plane: the coarse axis keeps its grid"
    if masked:
        reasons["zero_outside_mask"] = "these channels are normalised inside the non-zero mask and are 0 outside"
    return (
        Augmentation(
            spatial=moved,
            low_resolution=LowResolution(skip_first_axis=moved.in_plane),
            mirror=Mirror(axes=axes),
            zero_outside_mask=masked,
        ),
        reasons,
    )
