"""What lies in the phantom's neck: lesions as the patient's record tells them, and the background that looks like them.

    GTVp        beside the airway; CT above muscle, uneven                            label 1
    GTVn        in the lateral neck, in fat; CT of the same mean, even                 label 2
    tonsils     beside the airway; PET as tumour, CT below muscle, even
    inflamed    lateral, behind, at the jaw; PET as tumour, CT as uneven as GTVp and a little lower, drawn out along the neck
    tongue      in the middle, in front; CT and PET as GTVp
    glands      parotid and submandibular, paired; PET as tumour, CT towards fat
    reactive    nodes with the CT of GTVn, not bright in PET
    brown fat   low in the neck; PET as tumour, CT of fat
    larynx      at the vocal cords; moderate PET, CT of muscle

A voxel's CT and PET tell little of what it belongs to, and so does the size of a bright component: texture, shape, place and both images
together do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from autoseg.importers.cohort.patients import Tumours
from autoseg.importers.shapes import Waves, gap

TUMOUR_CT = 90.0
"""HU, mean, with contrast medium."""

GRAIN_MM, RIPPLE_MM = (9.0, 18.0), (20.0, 40.0)
"""Wavelengths of texture and of the unevenness of surfaces."""

RIPPLE, GAP_MM = 0.6, 4.0

HALF_WIDTH, HALF_DEPTH, MIDDLE_Y = 60.0, 62.0, 8.0
"""mm: about the neck's half axes, within which lateral structures lie, and its middle."""

AIRWAY_Y, AIRWAY_RADIUS = -14.0, 8.0


@dataclass(frozen=True)
class Kind:
    """A kind of structure.

    Attributes:
        ct, grain: mean and standard deviation inside, HU.
        radius: range in mm, of a ball of its volume; uptake: range of SUV, muscle being 0.75. Lesions have their own.
        form: how much longer than that radius its half axes are, (z, y, x).
        label: in the mask.
        fat: mm of fat around it.
    """

    ct: float
    grain: float
    radius: tuple[float, float] = (0.0, 0.0)
    uptake: tuple[float, float] = (0.0, 0.0)
    form: tuple[float, float, float] = (1.0, 1.0, 1.0)
    label: int = 0
    fat: float = 0.0


GTVP = Kind(TUMOUR_CT, math.nan, label=1)
GTVN = Kind(TUMOUR_CT, 10.0, label=2, fat=5.0)
TONSIL = Kind(35.0, 8.0, (9.5, 13.0), (5.0, 13.0))
INFLAMED = Kind(40.0, 68.0, (11.0, 17.0), (6.0, 15.0), form=(1.9, 0.8, 0.66))
TONGUE = Kind(60.0, 55.0, (11.0, 14.5), (5.0, 13.0), form=(0.8, 1.25, 1.0))
PAROTID = Kind(-15.0, 25.0, (12.0, 16.0), (5.0, 11.0), form=(1.3, 1.0, 0.77))
SUBMANDIBULAR = Kind(15.0, 12.0, (9.0, 12.5), (4.0, 10.0))
REACTIVE = Kind(TUMOUR_CT, 10.0, (6.5, 11.0), (0.8, 1.8), fat=5.0)
BROWN_FAT = Kind(-85.0, 10.0, (7.0, 11.0), (3.0, 9.0))
LARYNX = Kind(50.0, 8.0, (6.5, 8.5), (2.0, 4.5))


@dataclass(frozen=True)
class Blob:
    """An ellipsoid with a wavy surface, in the phantom's frame.

    Attributes:
        kind: what it is.
        position, radii: mm, (z, y, x).
        uptake: SUV.
        core: radius of its cold core as a share of its own; 0 for none.
        grain: texture, HU; ripple: displacement of its surface, mm.
    """

    kind: Kind
    position: np.ndarray
    radii: np.ndarray
    uptake: float
    core: float
    grain: Waves
    ripple: Waves


Place = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""Draws a position for radii."""


def draw_blobs(tumours: Tumours, scale: float, rng: np.random.Generator) -> tuple[Blob, ...]:
    """A patient's lesions, all of them, and as many look-alikes as find room.

    Args:
        scale: how much larger than the phantom the patient is: lesions have their volumes in the patient.
    """
    blobs: list[Blob] = []
    side = float(rng.choice([-1.0, 1.0]))
    for number, (ml, suv, core) in enumerate(zip(tumours.ml, tumours.suv, tumours.core, strict=True)):
        radius = (3000 * ml / (4 * math.pi)) ** (1 / 3) / scale
        if number == 0:
            made = (_made(rng, GTVP, radius, suv, core, _beside_airway(side), tumours.texture_hu) for _ in range(40))
        else:
            toward = side if rng.random() < 0.7 else -side
            made = (_made(rng, GTVN, radius, suv, core, _lateral(toward)) for _ in range(80))
        _add(blobs, made, always=True)
    for kind, place in _background(rng):
        made = (_made(rng, kind, rng.uniform(*kind.radius), rng.uniform(*kind.uptake), 0.0, place) for _ in range(15))
        _add(blobs, made)
    return tuple(blobs)


def _background(rng: np.random.Generator) -> Iterable[tuple[Kind, Place]]:
    for side in (-1.0, 1.0):
        yield PAROTID, _at((2.0, 12.0, side * 50.0), 4.0)
        yield SUBMANDIBULAR, _at((-34.0, -20.0, side * 32.0), 4.0)
        yield TONSIL, _beside_airway(side, heights=(-14.0, 12.0))
    yield TONGUE, _at((-20.0, -38.0, 0.0), 4.0)
    yield LARYNX, _at((-66.0, -16.0, 12.0 * rng.choice([-1.0, 1.0])), 4.0)
    for _ in range(rng.integers(1, 3)):
        yield INFLAMED, _lateral(rng.choice([-1.0, 1.0]), angles=(-65.0, 70.0))
    for _ in range(rng.integers(1, 4)):
        yield REACTIVE, _lateral(rng.choice([-1.0, 1.0]))
    for _ in range(rng.integers(0, 3)):
        yield BROWN_FAT, _lateral(rng.choice([-1.0, 1.0]), heights=(-86.0, -50.0))


def _made(
    rng: np.random.Generator, kind: Kind, radius: float, suv: float, core: float, place: Place, grain_hu: float | None = None
) -> Blob:
    axes = rng.uniform(0.85, 1.18, size=3)
    radii = radius * np.array(kind.form) * axes / np.prod(axes) ** (1 / 3)
    grain = Waves.draw(rng, 14, GRAIN_MM, kind.grain if grain_hu is None else grain_hu)
    return Blob(kind, place(rng, radii), radii, suv, core, grain, Waves.draw(rng, 3, RIPPLE_MM, RIPPLE))


def _add(blobs: list[Blob], candidates: Iterable[Blob], *, always: bool = False) -> None:
    """Adds the first candidate that keeps its distance from all others; `always`: else the one that keeps the most."""
    best, room = None, -math.inf
    for blob in candidates:
        nearest = min((gap(blob.position, blob.radii, other.position, other.radii) for other in blobs), default=math.inf)
        if nearest > room:
            best, room = blob, nearest
        if room > GAP_MM:
            break
    if best is not None and (always or room > GAP_MM):
        blobs.append(best)


def _beside_airway(side: float, heights: tuple[float, float] = (-56.0, 10.0)) -> Place:
    def place(rng: np.random.Generator, radii: np.ndarray) -> np.ndarray:
        angle = np.deg2rad(rng.uniform(-50, 40))
        distance = AIRWAY_RADIUS + 0.85 * radii[1:].mean()
        return np.array([rng.uniform(*heights), AIRWAY_Y + distance * np.sin(angle), side * distance * np.cos(angle)])

    return place


def _lateral(side: float, heights: tuple[float, float] = (-78.0, 4.0), angles: tuple[float, float] = (-20.0, 50.0)) -> Place:
    def place(rng: np.random.Generator, radii: np.ndarray) -> np.ndarray:
        angle = np.deg2rad(rng.uniform(*angles))
        inset = 6.0 + radii[1:].max()
        reach = rng.uniform(0.9, 1.0) * np.array([HALF_DEPTH - inset, HALF_WIDTH - inset])
        return np.array([rng.uniform(*heights), MIDDLE_Y + reach[0] * np.sin(angle), side * reach[1] * np.cos(angle)])

    return place


def _at(position: tuple[float, float, float], spread: float) -> Place:
    def place(rng: np.random.Generator, radii: np.ndarray) -> np.ndarray:
        return np.array(position) + rng.uniform(-spread, spread, size=3)

    return place
