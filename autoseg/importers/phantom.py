"""A neck-like phantom in two channels with two kinds of lesion: seeded, small, and not solvable by thresholds and components.

It is drawn in mm and then sampled on the grid of its centre. Beside the lesions stand look-alikes, all of them background:

    GTVp      1        beside the airway; bright in PET, CT above muscle and uneven                 label 1
    GTVn      1 to 3   in the lateral fat; bright in PET, CT as GTVp's mean, even                   label 2
    tonsil    1        beside the airway, opposite to GTVp; bright in PET, CT below muscle
    glands    2        lateral; bright in PET, CT between fat and muscle
    vessels   2        lateral; PET and CT as GTVn, but long and thin
    nodules   1 or 2   lateral; CT as GTVn, not bright in PET

The uptakes overlap, so does the volume of lesions and look-alikes: a voxel does not tell what it belongs to, and neither does the size of a
component. Evenness, shape and place do, which a network sees and a threshold does not. The two centres differ in spacing, resolution,
noise, units of uptake and offset of CT.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autoseg.importers.shapes import Waves, ellipse_distance, ellipsoid_distance, gap, soft_inside

CHANNELS = {"0": "CT", "1": "PET"}
LABELS = {"background": 0, "GTVp": 1, "GTVn": 2}


@dataclass(frozen=True)
class Centre:
    """How one hospital images.

    Attributes:
        name: as it stands in cases.csv.
        spacing: mm, (z, y, x).
        shape: voxels, (z, y, x); both centres cover about the same field of view.
        ct_offset, ct_noise: HU; the noise is a standard deviation.
        pet_scale: factor on uptake; pet_noise: standard deviation as a share of the square root of uptake.
        resolution_mm: standard deviation of the PET blur.
    """

    name: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    ct_offset: float
    ct_noise: float
    pet_scale: float
    pet_noise: float
    resolution_mm: float


CENTRES = (
    Centre("North", (3.0, 2.5, 2.5), (32, 52, 52), ct_offset=0.0, ct_noise=20.0, pet_scale=1.0, pet_noise=0.15, resolution_mm=1.8),
    Centre("South", (4.0, 3.0, 3.0), (24, 44, 44), ct_offset=15.0, ct_noise=28.0, pet_scale=0.6, pet_noise=0.25, resolution_mm=2.4),
)

MUSCLE, FAT, AIR, BONE = 50.0, -90.0, -1000.0, 350.0
"""HU."""

BODY = (58.0, 60.0)
CORE = (48.0, 36.0)
"""Half axes (y, x) in mm of the body and of the muscle in its middle."""

AIRWAY, AIRWAY_RADIUS = (-12.0, 0.0), 7.0
SPINE, SPINE_RADII = (30.0, 0.0), (11.0, 13.0)
"""Places and radii (y, x) in mm."""

HALF_HEIGHT = 38.0
"""mm above and below the middle in which structures lie."""

RIPPLE, RIPPLE_WAVELENGTHS = 0.6 * 1.5**0.5, (20.0, 40.0)
"""How uneven surfaces are: standard deviation (the three waves reach about 2 mm) and wavelengths, mm."""


@dataclass(frozen=True)
class _Kind:
    """What a structure is.

    Attributes:
        radius: range in mm.
        ct, unevenness: mean and standard deviation inside, HU.
        uptake: range; muscle is 1.
        label: in the mask.
        cored: how often its core takes up little.
    """

    radius: tuple[float, float]
    ct: float
    uptake: tuple[float, float]
    unevenness: float = 0.0
    label: int = 0
    cored: float = 0.0


GTVP = _Kind((9.5, 13.5), ct=100.0, uptake=(5.0, 10.0), unevenness=90.0, label=1, cored=0.4)
GTVN = _Kind((8.5, 12.5), ct=100.0, uptake=(3.5, 8.0), label=2, cored=0.4)
TONSIL = _Kind((8.0, 11.0), ct=20.0, uptake=(3.5, 10.0))
GLAND = _Kind((8.0, 11.5), ct=-30.0, uptake=(3.5, 10.0))
VESSEL = _Kind((6.5, 8.0), ct=100.0, uptake=(3.5, 10.0))
NODULE = _Kind((7.0, 11.0), ct=100.0, uptake=(0.8, 1.2))


@dataclass(frozen=True)
class GeneratedCase:
    """One phantom: images float32 (2, z, y, x), labels uint8 (z, y, x), spacing (z, y, x) in mm, the centre's name."""

    images: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]
    centre: str


@dataclass(frozen=True)
class _Blob:
    """An ellipsoid: its middle and radii in mm (z, y, x), its uptake, and the share of that which its core keeps."""

    kind: _Kind
    position: np.ndarray
    radii: np.ndarray
    uptake: float
    core: float


def _place(blobs: list[_Blob], candidates: Iterable[_Blob], gap_mm: float = 5.0) -> None:
    """Adds the first candidate that keeps its distance from all blobs; none where all are too near."""
    for blob in candidates:
        if all(gap(blob.position, blob.radii, other.position, other.radii) > gap_mm for other in blobs):
            blobs.append(blob)
            return


def generate_case(seed: int, patient: int, visit: int, centre: Centre) -> GeneratedCase:
    """One phantom; the same arguments give the same voxels.

    Args:
        seed: of the dataset.
        patient: number of the patient: decides size, place and tilt of the neck.
        visit: number of the scan of this patient: decides lesions, look-alikes and noise.
        centre: where it is scanned.
    """
    build = np.random.default_rng([seed, patient])
    scale, shift, tilt = build.uniform(0.92, 1.06), build.uniform(-4, 4, size=3), np.deg2rad(build.uniform(-12, 12))
    grid = _coordinates(centre, scale, shift, tilt)
    rng = np.random.default_rng([seed, patient, visit + 1])
    ct, pet, labels = _render(grid, _draw_blobs(rng), centre, rng)
    return GeneratedCase(np.stack([_scan_ct(ct, centre, rng), _scan_pet(pet, centre, rng)]), labels, centre.spacing, centre.name)


def _coordinates(centre: Centre, scale: float, shift: np.ndarray, tilt: float) -> np.ndarray:
    """Position of each voxel in the phantom's own mm frame, (3, z, y, x)."""
    axes = [(np.arange(n) - (n - 1) / 2) * s - m for n, s, m in zip(centre.shape, centre.spacing, shift, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.stack([z, cos * y + sin * x, cos * x - sin * y]) / scale


def _draw_blobs(rng: np.random.Generator) -> list[_Blob]:
    """Lesions first, so that there is always room for one of each."""
    blobs: list[_Blob] = []
    side = rng.choice([-1.0, 1.0])
    _place(blobs, (_beside_airway(rng, GTVP, side) for _ in range(50)))
    for _ in range(rng.integers(1, 4)):
        _place(blobs, (_lateral(rng, GTVN) for _ in range(200)))
    _place(blobs, (_beside_airway(rng, TONSIL, -side) for _ in range(50)))
    for _ in range(2):
        _place(blobs, (_vessel(rng) for _ in range(200)))
    for _ in range(2):
        _place(blobs, (_lateral(rng, GLAND) for _ in range(200)))
    for _ in range(rng.integers(1, 3)):
        _place(blobs, (_lateral(rng, NODULE) for _ in range(200)))
    return blobs


def _blob(rng: np.random.Generator, kind: _Kind, position: np.ndarray, radii: np.ndarray) -> _Blob:
    core = rng.uniform(0.35, 0.6) if rng.random() < kind.cored else 1.0
    return _Blob(kind, position, radii, rng.uniform(*kind.uptake), core)


def _radii(rng: np.random.Generator, kind: _Kind) -> np.ndarray:
    return rng.uniform(*kind.radius) * rng.uniform(0.88, 1.12, size=3)


def _height(rng: np.random.Generator, radii: np.ndarray) -> float:
    return rng.uniform(radii[0] - HALF_HEIGHT, HALF_HEIGHT - radii[0])


def _beside_airway(rng: np.random.Generator, kind: _Kind, side: float) -> _Blob:
    radii = _radii(rng, kind)
    angle = np.deg2rad(rng.uniform(-25, 35))
    distance = AIRWAY_RADIUS + radii.max() + 0.5
    position = np.array([_height(rng, radii), AIRWAY[0] + distance * np.sin(angle), AIRWAY[1] + side * distance * np.cos(angle)])
    return _blob(rng, kind, position, radii)


def _lateral(rng: np.random.Generator, kind: _Kind) -> _Blob:
    radii = _radii(rng, kind)
    angle = np.deg2rad(rng.uniform(-35, 45))
    reach = (BODY[1] - 6 - radii.max()) * rng.uniform(0.86, 1.0)
    position = np.array([_height(rng, radii), reach * np.sin(angle), rng.choice([-1.0, 1.0]) * reach * np.cos(angle)])
    return _blob(rng, kind, position, radii)


def _vessel(rng: np.random.Generator) -> _Blob:
    radii = np.array([rng.uniform(24, 32), *(rng.uniform(*VESSEL.radius) * rng.uniform(0.92, 1.08, size=2))])
    angle = np.deg2rad(rng.uniform(-40, 60))
    reach = BODY[1] - 8 - radii[1:].max()
    position = np.array([_height(rng, radii), reach * np.sin(angle), rng.choice([-1.0, 1.0]) * reach * np.cos(angle)])
    return _blob(rng, VESSEL, position, radii)


def _render(grid: np.ndarray, blobs: list[_Blob], centre: Centre, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Noise-free CT (HU), uptake and labels; edges are as wide as a voxel, so that they carry where the surface lies inside it."""
    from scipy.ndimage import gaussian_filter

    z, y, x = grid
    edge = float(np.mean(centre.spacing)) / 2
    inside_body = soft_inside(ellipse_distance(y, x, *BODY), edge)
    ct = AIR + (FAT - AIR) * inside_body
    pet = 0.02 + 0.4 * inside_body
    for shape, value, uptake in (
        (ellipse_distance(y - 4.0, x, *CORE), MUSCLE, 1.0),
        (ellipse_distance(y - SPINE[0], x - SPINE[1], *SPINE_RADII), BONE, 0.8),
        (ellipse_distance(y - AIRWAY[0], x - AIRWAY[1], AIRWAY_RADIUS, AIRWAY_RADIUS), AIR, 0.05),
    ):
        share = soft_inside(shape, edge)
        ct, pet = ct + share * (value - ct), pet + share * (uptake - pet)
    labels = np.zeros(z.shape, np.uint8)
    for blob in blobs:
        offset = (z - blob.position[0], y - blob.position[1], x - blob.position[2])
        distance = ellipsoid_distance(offset, blob.radii) + Waves.draw(rng, 3, RIPPLE_WAVELENGTHS, RIPPLE).at(z, y, x)
        share = soft_inside(distance, edge)
        uptake = blob.uptake * (1 - (1 - blob.core) * soft_inside(distance + 0.45 * float(blob.radii.min()), edge))
        grain = gaussian_filter(rng.normal(size=z.shape), [1.7 / s for s in centre.spacing])
        inside = blob.kind.ct + blob.kind.unevenness * grain / grain.std()
        ct, pet = ct + share * (inside - ct), pet + share * (uptake - pet)
        if blob.kind.label:
            labels[distance < 0] = blob.kind.label
    return ct, pet, labels


def _scan_ct(ct: np.ndarray, centre: Centre, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.normal(size=ct.shape), 0.5)
    noise *= centre.ct_noise / noise.std()
    return np.clip(np.rint(ct + noise + centre.ct_offset), -1024, 3071).astype(np.float32)


def _scan_pet(pet: np.ndarray, centre: Centre, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    sigma = [centre.resolution_mm / s for s in centre.spacing]
    blurred = gaussian_filter(pet, sigma)
    noise = gaussian_filter(rng.normal(size=pet.shape), 0.7)
    noise *= centre.pet_noise / noise.std()
    noisy = np.maximum(blurred + noise * np.sqrt(np.maximum(blurred, 0.05)), 0)
    return (noisy * centre.pet_scale).astype(np.float32)
