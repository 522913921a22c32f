"""Where in a large scan the network looks: the plan's region of interest as a box of voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.preprocessing.crop import Box
from planners.plan import HeadAndNeckBox

ABOVE_MM = 20.0
"""The box starts this far above the uptake of the brain: the skull and what smoothing blurs."""


def region_box(channels: Sequence[np.ndarray], spacing: Sequence[float], rule: HeadAndNeckBox) -> tuple[Box | None, str]:
    """The box of a case that the rule finds, and what to say of it.

    The brain is the largest connected region of high uptake in the upper part of the scan. The box is centred on it from left to right and
    from front to back, and reaches down from above it.

    Args:
        channels: (z, y, x) each, in canonical orientation: z towards the head.
        spacing: mm, (z, y, x).
        rule: the plan's.

    Returns:
        One (start, stop) an axis, inside the image; None where nothing is found, and then the whole image is meant.

    Source: the box and the region's rule as HECKTOR's organisers and winners describe them (Oreiller et al. 2022; Myronenko et al. 2022);
    that the box hangs from the brain's top is this project's.
    """
    pet = channels[rule.channel]
    depth = pet.shape[0]
    lowest = depth - max(1, round(depth * rule.top_share))
    high = pet[lowest:] > float(pet.mean(dtype=np.float64)) + rule.uptake * float(pet.std(dtype=np.float64))
    if not high.any():
        return None, "region of interest: no uptake in the upper part of the scan, so the whole image is taken"
    import cc3d

    components = cc3d.connected_components(np.ascontiguousarray(high), connectivity=26)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    places = np.argwhere(components == int(sizes.argmax()))
    middle = places.mean(axis=0)
    top = lowest + int(places[:, 0].max()) + 1 + round(ABOVE_MM / spacing[0])
    wanted = [max(1, round(length / step)) for length, step in zip(rule.size_mm, spacing, strict=True)]
    starts = [top - wanted[0], *(round(float(m) + 0.5 - n / 2) for m, n in zip(middle[1:], wanted[1:], strict=True))]
    return tuple(_inside(start, size, extent) for start, size, extent in zip(starts, wanted, pet.shape, strict=True)), ""


def _inside(start: int, size: int, extent: int) -> tuple[int, int]:
    """The part of [start, start + size) that the axis has, moved inwards so that as little as possible is lost."""
    start = min(max(start, 0), max(extent - size, 0))
    return start, min(start + size, extent)
