"""Whether a PET image can be in SUV: a scale check, not a proof."""

from __future__ import annotations

import numpy as np

BODY_MEDIAN = (0.05, 4.0)
"""SUV of the median body voxel: muscle and fat lie at 0.3 to 1, a field of view with much brain higher. Bq/ml lies in the thousands."""

HIGHEST = (1.0, 1000.0)
"""SUV of the hottest voxel: every field of view holds something above blood; bladders and injection sites reach hundreds."""

BELOW_ZERO = -0.1
LARGEST_SHARE_BELOW_ZERO = 0.1
"""Reconstruction noise around 0 is far smaller; an image that was standardised has all of its background below."""

BODY_HU = -500.0
SMALLEST_BODY = 0.005
VOXELS_LOOKED_AT = 4_000_000


def suv_problem(pet: np.ndarray, ct: np.ndarray | None = None) -> str | None:
    """Why an image is not in SUV, in words; None where its scale is plausible.

    Looks at the hottest voxel of all, at the median of the body where a CT shows it (HU above -500), and at values below 0. An image in
    kBq/ml differs from SUV by a factor of only 3 to 6 and may pass.

    Args:
        pet: (z, y, x), finite.
        ct: HU on the same grid; None where there is none.
    """
    highest = float(pet.max())
    if not HIGHEST[0] <= highest <= HIGHEST[1]:
        return f"its highest value is {highest:.4g} where SUV reaches {HIGHEST[0]:g} to {HIGHEST[1]:g}"
    step = max(1, round((pet.size / VOXELS_LOOKED_AT) ** (1 / 3)))
    some = (slice(None, None, step),) * 3
    seen = pet[some]
    share = float(np.mean(seen < BELOW_ZERO))
    if share > LARGEST_SHARE_BELOW_ZERO:
        return f"{share:.0%} of its voxels lie below {BELOW_ZERO:g} where SUV is not negative"
    body = None if ct is None else seen[ct[some] > BODY_HU]
    if body is None or body.size < SMALLEST_BODY * seen.size:
        return None
    median = float(np.median(body))
    if not BODY_MEDIAN[0] <= median <= BODY_MEDIAN[1]:
        return f"the body's median is {median:.4g} where SUV has {BODY_MEDIAN[0]:g} to {BODY_MEDIAN[1]:g}"
    return None
