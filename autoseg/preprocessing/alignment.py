"""How PET lies on CT: the shift that lays the body in one onto the body in the other, from both bodies' outlines alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft  # type: ignore[import-untyped]

from planners.measures import Alignment

TISSUE_HU = -300.0
"""CT above this is body (or table), below it air."""

UPTAKE = 0.02
"""PET above this share of its 99.5 percentile is body."""

GRID_MM = 6.0
"""About so far apart lie the voxels that are compared; the shift is told between them."""

REACH_MM = 100.0
"""No larger shift is looked for, nor one beyond half of the image."""

LEAST = 0.01
"""A body that fills less than this share of the image, or all but this, has no outline to compare."""


def alignment(ct: np.ndarray, pet: np.ndarray, spacing: Sequence[float]) -> Alignment | None:
    """How far PET lies from where its body would cover the CT's best, and how much of both coincides as they lie.

    The shift is the peak of the cross-correlation of both bodies as masks less their means, refined by a parabola along each axis. An image
    of 512x512x200 voxels takes about a tenth of a second: every few voxels are looked at.

    Args:
        ct: HU, (z, y, x).
        pet: in any unit, on the same grid.
        spacing: mm, (z, y, x).

    Returns:
        None where CT or PET shows no body, or nothing but body.
    """
    steps = [max(1, round(GRID_MM / mm)) for mm in spacing]
    thinned = tuple(slice(step // 2 if n > step else 0, None, step) for step, n in zip(steps, ct.shape, strict=True))
    tissue = ct[thinned] > TISSUE_HU
    uptake = pet[thinned]
    active = uptake > UPTAKE * float(np.percentile(uptake, 99.5))
    if not all(LEAST <= float(mask.mean()) <= 1 - LEAST for mask in (tissue, active)):
        return None
    overlap = 2 * float((tissue & active).sum()) / float(tissue.sum() + active.sum())
    lengths = [step * float(mm) for step, mm in zip(steps, spacing, strict=True)]
    reach = [min(int(REACH_MM / length), n // 2) for length, n in zip(lengths, tissue.shape, strict=True)]
    z, y, x = (place * length for place, length in zip(_peak(_correlation(tissue, active, reach)), lengths, strict=True))
    return Alignment((z, y, x), overlap)


def _correlation(fixed: np.ndarray, moving: np.ndarray, reach: Sequence[int]) -> np.ndarray:
    """Cross-correlation of two masks less their means at all shifts up to `reach`, those beyond the border counting as 0."""
    size = [fft.next_fast_len(n + r, real=True) for n, r in zip(fixed.shape, reach, strict=True)]
    spectra = [fft.rfftn((mask - mask.mean(dtype=np.float64)).astype(np.float32), size) for mask in (fixed, moving)]
    whole = fft.irfftn(np.conj(spectra[0]) * spectra[1], size)
    return whole[np.ix_(*(np.arange(-r, r + 1) for r in reach))]


def _peak(values: np.ndarray) -> list[float]:
    """Where the largest value lies from the middle, in places along each axis, by a parabola through it and its neighbours."""
    best = np.unravel_index(int(values.argmax()), values.shape)
    found = []
    for axis, place in enumerate(best):
        line = values[tuple(slice(None) if other == axis else at for other, at in enumerate(best))]
        offset = 0.0
        if 0 < place < len(line) - 1:
            before, at, after = (float(v) for v in line[place - 1 : place + 2])
            bend = before - 2 * at + after
            offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
        found.append(float(place) + offset - (len(line) - 1) // 2)
    return found
