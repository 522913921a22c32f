"""What of an image lies outside everything that was seen in training."""

from __future__ import annotations

from collections.abc import Sequence

from planners.fingerprint import Fingerprint

SPACING_MARGIN = 1.25
"""A spacing further than this factor outside the range of the training images is noted."""


def unseen_spacing(spacing: Sequence[float], fingerprint: Fingerprint | None) -> list[str]:
    """A note where the image's spacing lies well outside that of all training images; else nothing.

    Args:
        spacing: mm, (z, y, x) after reorientation.
        fingerprint: of the training images, None where unknown.
    """
    if fingerprint is None or not fingerprint.spacings:
        return []
    notes = []
    for axis, name in enumerate("zyx"):
        seen = [case[axis] for case in fingerprint.spacings]
        if not min(seen) / SPACING_MARGIN <= spacing[axis] <= max(seen) * SPACING_MARGIN:
            notes.append(f"spacing {spacing[axis]:.3g} mm along {name}: the training images have {min(seen):.3g} to {max(seen):.3g}")
    return notes
