"""The hospitals of the phantom cohort: how each images, whom it sees and what its table leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoseg.errors import DatasetError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """A field of view.

    Attributes:
        spacing: mm, (z, y, x).
        shape: voxels, (z, y, x).
        middle: mm, (z, y, x): where its middle lies in the patient; z = 0 is the height of the mandible, y grows backwards.
    """

    spacing: Triple
    shape: tuple[int, int, int]
    middle: Triple


@dataclass(frozen=True)
class Scanner:
    """How a hospital images.

    Attributes:
        ct_offset, ct_noise: HU; the noise is a standard deviation.
        pet_scale: factor on SUV; pet_noise: standard deviation at an SUV of 1, it grows with the square root.
        resolution_mm: standard deviation of the PET's blur.
        flipped: whether the stored axes x and y run against the patient's.
        grids: by size ("demo", "full"), of CT and PET.
    """

    ct_offset: float
    ct_noise: float
    pet_scale: float
    pet_noise: float
    resolution_mm: float
    flipped: bool
    grids: Mapping[str, tuple[Grid, Grid]]


@dataclass(frozen=True)
class Centre:
    """One hospital.

    Attributes:
        number: its CenterID.
        name: first part of its patients' names.
        weight: how many of the cohort's patients it has, relative to the others.
        hpv_intercept: of the logit of HPV: its prevalence.
        missing: by group of columns, the share of its patients without them.
        scanner: how it images.
    """

    number: int
    name: str
    weight: float
    hpv_intercept: float
    missing: Mapping[str, float]
    scanner: Scanner


_GRIDS: tuple[dict[str, tuple[Grid, Grid]], ...] = (
    {
        "demo": (Grid((4.0, 4.5, 4.5), (34, 32, 32), (-31.0, 0.0, 0.0)), Grid((5.0, 5.5, 5.5), (30, 30, 30), (-29.0, 3.0, -2.0))),
        "full": (
            Grid((3.0, 0.98, 0.98), (200, 512, 512), (-135.0, 0.0, 0.0)),
            Grid((4.0, 4.07, 4.07), (152, 168, 168), (-134.0, 4.0, 1.0)),
        ),
    },
    {
        "demo": (Grid((5.0, 4.2, 4.2), (28, 34, 34), (-34.0, 2.0, 0.0)), Grid((6.0, 5.2, 5.2), (26, 32, 32), (-32.0, 0.0, 1.0))),
        "full": (
            Grid((3.0, 1.17, 1.17), (200, 512, 512), (-130.0, 0.0, 0.0)),
            Grid((3.27, 2.73, 2.73), (188, 256, 256), (-128.0, 2.0, 0.0)),
        ),
    },
    {
        "demo": (Grid((4.5, 4.8, 4.8), (30, 30, 30), (-31.0, 0.0, 2.0)), Grid((4.5, 6.0, 6.0), (34, 26, 26), (-32.0, -2.0, 0.0))),
        "full": (Grid((2.5, 0.98, 0.98), (200, 512, 512), (-85.0, 0.0, 0.0)), Grid((4.0, 4.0, 4.0), (128, 200, 200), (-84.0, 0.0, -2.0))),
    },
)

_ROWS: tuple[tuple[str, float, float, tuple[float, float, float, float, float], Triple, Triple], ...] = (
    # name, weight, HPV intercept, missing (tobacco and alcohol, performance, HPV, M-stage, outcome), CT (offset, noise, PET scale), PET
    ("NOR", 1.0, -1.1, (0.10, 0.05, 0.10, 0.00, 0.00), (0.0, 24.0, 1.00), (0.10, 2.6, 0)),
    ("SUD", 0.8, 0.9, (1.00, 0.20, 0.20, 0.02, 0.04), (18.0, 32.0, 0.62), (0.18, 3.3, 1)),
    ("EST", 0.7, 0.1, (0.30, 1.00, 0.15, 0.00, 0.02), (-14.0, 27.0, 1.40), (0.13, 2.9, 0)),
    ("WES", 0.7, 1.4, (0.20, 0.10, 0.45, 0.05, 0.03), (8.0, 22.0, 0.80), (0.15, 3.0, 0)),
    ("MID", 0.6, -0.4, (0.40, 0.30, 0.10, 0.00, 0.02), (-8.0, 30.0, 1.20), (0.12, 2.4, 1)),
    ("LAK", 0.5, 0.6, (0.05, 0.05, 0.60, 0.03, 0.06), (12.0, 26.0, 0.70), (0.16, 3.4, 0)),
    ("HIL", 0.5, -0.8, (1.00, 1.00, 0.20, 0.00, 0.02), (-20.0, 29.0, 1.10), (0.14, 2.8, 0)),
    ("BAY", 0.4, 1.1, (0.15, 0.20, 0.30, 0.04, 0.05), (5.0, 25.0, 0.90), (0.11, 3.1, 1)),
    ("RIV", 0.4, 0.0, (0.60, 0.10, 0.25, 0.02, 0.02), (20.0, 33.0, 1.30), (0.17, 2.7, 0)),
    ("ISL", 0.3, -0.3, (0.25, 0.40, 0.15, 0.01, 0.04), (-4.0, 23.0, 0.75), (0.13, 3.2, 0)),
)

MISSING_GROUPS = ("habits", "performance", "hpv", "m_stage", "outcome")
"""Columns that are missing together; "habits" are tobacco and alcohol."""


def _centre(index: int) -> Centre:
    name, weight, intercept, missing, (offset, noise, scale), (pet_noise, resolution, flipped) = _ROWS[index]
    scanner = Scanner(offset, noise, scale, pet_noise, resolution, bool(flipped), _GRIDS[index % len(_GRIDS)])
    return Centre(index + 1, name, weight, intercept, dict(zip(MISSING_GROUPS, missing, strict=True)), scanner)


CENTRES = tuple(_centre(index) for index in range(len(_ROWS)))


def first_centres(count: int) -> tuple[Centre, ...]:
    """The first so many hospitals.

    Raises:
        DatasetError: there are not so many.
    """
    if not 1 <= count <= len(CENTRES):
        raise DatasetError(f"--centres {count}: the phantom cohort has 1 to {len(CENTRES)} centres")
    return CENTRES[:count]
