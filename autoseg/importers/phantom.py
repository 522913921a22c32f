"""The generated dataset: two channels, two labels, two centres; seeded, small, and not solvable by thresholds.

A neck-like phantom, drawn in mm and then sampled on the grid of its centre. Everything that is bright in PET comes from one distribution of
uptake, whatever it is, so uptake alone tells nothing:

    GTVp     beside the airway, CT above muscle                       label 1
    GTVn     1 to 3, in the lateral fat, CT as GTVp                   label 2
    glands   a lateral pair, CT below muscle                          background
    tonsil   beside the airway, CT as muscle                          background
    vessels  lateral, CT as GTVn, but long and thin                   background
    cold     nodules with the CT of GTVn and no uptake                background

The step in CT is of the order of the noise, so it shows over a region and not in a voxel; the labels differ in where they lie; the sizes
overlap. The two centres differ in spacing, resolution, noise, units of uptake and offset of CT.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CHANNELS = {"0": "CT", "1": "PET"}
LABELS = {"background": 0, "GTVp": 1, "GTVn": 2}


@dataclass(frozen=True)
class Centre:
    """How one hospital images.

    Attributes:
        name: as it stands in cases.csv.
        spacing: mm, (z, y, x).
        shape: voxels, (z, y, x); without `write_generated_dataset(shape=...)` both centres cover the same field of view.
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

UPTAKE = (3.5, 10.0)
COLD = (0.8, 1.2)
MUSCLE, FAT, AIR, BONE = 50.0, -90.0, -1000.0, 350.0
LESION_CT, GLAND_CT, TONSIL_CT = 100.0, -30.0, 20.0
GTVP_TEXTURE = 90.0
UPTAKE_GTVP, UPTAKE_GTVN = (5.0, 10.0), (3.5, 8.0)
AIRWAY = (-12.0, 0.0)
AIRWAY_RADIUS = 7.0
BODY = (58.0, 60.0)
TOP = 38.0


@dataclass(frozen=True)
class GeneratedCase:
    """One phantom: images float32 (2, z, y, x), labels uint8 (z, y, x), spacing ."""

    images: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]
    centre: str


@dataclass(frozen=True)
class _Blob:
    """An ellipsoid: centre and radii in mm (z, y, x); what it is in CT and PET; its label."""

    position: np.ndarray
    radii: np.ndarray
    ct: float
    uptake: float
    label: int = 0
    core: float = 1.0
    texture: float = 0.0

    @property
    def reach(self) -> float:
        return float(self.radii.max())


@dataclass
class _Neck:
    """Structures placed so far; a new one keeps its distance from all of them."""

    blobs: list[_Blob] = field(default_factory=list)

    def place(self, candidates: list[_Blob], gap_mm: float = 5.0) -> bool:
        """Add the first candidate that touches nothing; False where none does."""
        for blob in candidates:
            if all(_separation(blob, other) > gap_mm for other in self.blobs):
                self.blobs.append(blob)
                return True
        return False


def _separation(a: _Blob, b: _Blob) -> float:
    """Gap in mm between two ellipsoids along the line between their centres (exact for spheres)."""
    offset = b.position - a.position
    distance = float(np.linalg.norm(offset))
    direction = offset / max(distance, 1e-9)
    return distance - 1 / float(np.linalg.norm(direction / a.radii)) - 1 / float(np.linalg.norm(direction / b.radii))


def generate_case(seed: int, patient: int, visit: int, centre: Centre) -> GeneratedCase:
    """One phantom; the same arguments give the same voxels.

    Args:
        seed: of the dataset.
        patient: number of the patient: decides size, position and tilt of the anatomy.
        visit: number of the scan of this patient: decides lesions, look-alikes and noise.
        centre: where it is scanned.
    """
    build = np.random.default_rng([seed, patient])
    anatomy = {
        "scale": build.uniform(0.92, 1.06),
        "shift": build.uniform(-4, 4, size=3) * (1, 1, 1),
        "tilt": np.deg2rad(build.uniform(-12, 12)),
    }
    rng = np.random.default_rng([seed, patient, visit + 1])
    blobs = _draw_blobs(rng)
    grid = _coordinates(centre, anatomy)
    ct, pet, labels = _render(grid, blobs, centre, rng)
    return GeneratedCase(np.stack([_scan_ct(ct, centre, rng), _scan_pet(pet, centre, rng)]), labels, centre.spacing, centre.name)


def _coordinates(centre: Centre, anatomy: dict) -> np.ndarray:
    """Position of each voxel in the phantom's own mm frame, (3, z, y, x)."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(centre.shape, centre.spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    z, y, x = (value - shift for value, shift in zip((z, y, x), anatomy["shift"], strict=True))
    cos, sin = np.cos(anatomy["tilt"]), np.sin(anatomy["tilt"])
    return np.stack([z, cos * y + sin * x, cos * x - sin * y]) / anatomy["scale"]


def _draw_blobs(rng: np.random.Generator) -> list[_Blob]:
    neck = _Neck()
    side = rng.choice([-1.0, 1.0])
    neck.place(
        [
            _beside_airway(rng, side, (9.5, 13.5), LESION_CT, label=1, core=_core(rng), texture=GTVP_TEXTURE, uptake=UPTAKE_GTVP)
            for _ in range(50)
        ]
    )
    neck.place([_beside_airway(rng, -side, (8.0, 11.0), TONSIL_CT) for _ in range(50)])
    for _ in range(rng.integers(1, 4)):
        neck.place([_lateral(rng, (9.0, 13.5), LESION_CT, label=2, core=_core(rng), uptake=UPTAKE_GTVN) for _ in range(200)])
    for wanted in (-1.0, 1.0):
        neck.place([_lateral(rng, (8.0, 11.5), GLAND_CT, side=wanted) for _ in range(200)])
    for _ in range(2):
        neck.place([_vessel(rng) for _ in range(200)])
    for _ in range(rng.integers(1, 3)):
        neck.place([_lateral(rng, (7.0, 11.0), LESION_CT, uptake=COLD) for _ in range(100)])
    return neck.blobs


def _core(rng: np.random.Generator) -> float:
    """Share of its uptake that a lesion's necrotic core keeps; 1 where it has none."""
    return float(rng.uniform(0.35, 0.6)) if rng.random() < 0.4 else 1.0


def _radii(rng: np.random.Generator, radius: tuple[float, float]) -> np.ndarray:
    return rng.uniform(*radius) * rng.uniform(0.88, 1.12, size=3)


def _beside_airway(
    rng: np.random.Generator,
    side: float,
    radius: tuple[float, float],
    ct: float,
    *,
    label: int = 0,
    core: float = 1.0,
    texture: float = 0.0,
    uptake: tuple[float, float] = UPTAKE,
) -> _Blob:
    radii = _radii(rng, radius)
    angle = np.deg2rad(rng.uniform(-25, 35))
    distance = AIRWAY_RADIUS + radii.max() + 0.5
    position = np.array(
        [rng.uniform(-36 + radii[0] - radii[0]), AIRWAY[0] + distance * np.sin(angle), AIRWAY[1] + side * distance * np.cos(angle)]
    )
    return _Blob(position, radii, ct, rng.uniform(*uptake), label, core, texture)


def _lateral(
    rng: np.random.Generator,
    radius: tuple[float, float],
    ct: float,
    *,
    side: float | None = None,
    label: int = 0,
    core: float = 1.0,
    uptake: tuple[float, float] = UPTAKE,
) -> _Blob:
    radii = _radii(rng, radius)
    reach = BODY[1] - 6 - radii.max()
    angle = np.deg2rad(rng.uniform(-35, 45))
    position = np.array(
        [
            rng.uniform(-38 + radii[0] - radii[0]),
            reach * np.sin(angle),
            (side or rng.choice([-1.0, 1.0])) * rng.uniform(0.86, 1.0) * reach * np.cos(angle),
        ]
    )
    return _Blob(position, radii, ct, rng.uniform(*uptake), label, core)


def _vessel(rng: np.random.Generator) -> _Blob:
    half = rng.uniform(22, 30)
    radii = np.array([half, *(rng.uniform(5.5, 7.5) * rng.uniform(0.92, 1.08, size=2))])
    angle = np.deg2rad(rng.uniform(-40, 60))
    reach = BODY[1] - 8 - radii[1:].max()
    side = rng.choice([-1.0, 1.0])
    position = np.array([rng.uniform(-40 + half, max(TOP - half, -39 + half)), reach * np.sin(angle), side * reach * np.cos(angle)])
    return _Blob(position, radii, LESION_CT, rng.uniform(*UPTAKE))


def _render(grid: np.ndarray, blobs: list[_Blob], centre: Centre, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Noise-free CT (HU), uptake and labels; edges are as wide as a voxel, so that they carry where the surface lies inside it."""
    from scipy.ndimage import gaussian_filter

    z, y, x = grid
    edge = float(np.mean(centre.spacing)) / 2
    inside_body = _soft(_ellipse_mm(y, x, (0.0, 0.0), BODY), edge)
    ct = AIR + (FAT - AIR) * inside_body
    pet = 0.02 + 0.4 * inside_body
    for shape, value, uptake in (
        (_ellipse_mm(y, x, (4.0, 0.0), (48.0, 36.0)), MUSCLE, 1.0),
        (_ellipse_mm(y, x, (30.0, 0.0), (11.0, 13.0)), BONE, 0.8),
        (_ellipse_mm(y, x, AIRWAY, (AIRWAY_RADIUS, AIRWAY_RADIUS)), AIR, 0.05),
    ):
        share = _soft(shape, edge)
        ct, pet = ct + share * (value - ct), pet + share * (uptake - pet)
    labels = np.zeros(z.shape, np.uint8)
    for blob in blobs:
        distance = _ellipsoid_mm(grid, blob) + _ripple(grid, rng)
        share = _soft(distance, edge)
        uptake = blob.uptake * (1 - (1 - blob.core) * _soft(distance + 0.45 * float(blob.radii.min()), edge))
        grain = gaussian_filter(rng.normal(size=z.shape), [4.0 / s / 2.355 for s in centre.spacing])
        ct, pet = ct + share * (blob.ct + blob.texture * grain / grain.std() - ct), pet + share * (uptake - pet)
        if blob.label:
            labels[distance < 0] = blob.label
    return ct, pet, labels


def _ellipse_mm(y: np.ndarray, x: np.ndarray, position: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """About how far outside (positive) or inside an upright elliptic cylinder, mm."""
    return (np.hypot((y - position[0]) / radii[0], (x - position[1]) / radii[1]) - 1) * min(radii)


def _ellipsoid_mm(grid: np.ndarray, blob: _Blob) -> np.ndarray:
    """Signed distance to an ellipsoid in mm: exact to first order at its surface, the usual |f| (|f| - 1) / |grad| form."""
    offset = grid - blob.position[:, None, None, None]
    radii = blob.radii[:, None, None, None]
    unit = np.sqrt(((offset / radii) ** 2).sum(0))
    slope = np.sqrt(((offset / radii**2) ** 2).sum(0))
    return np.where(slope > 0, unit * (unit - 1) / np.maximum(slope, 1e-9), -float(blob.radii.min()))


def _ripple(grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth displacement of a surface, up to about 2 mm: three plane waves of 20 to 40 mm."""
    waves = np.zeros(grid.shape[1:])
    for _ in range(3):
        direction = rng.normal(size=3)
        direction *= 2 * np.pi / rng.uniform(20, 40) / np.linalg.norm(direction)
        waves += 0.6 * np.sin(np.tensordot(direction, grid, 1) + rng.uniform(0, 2 * np.pi))
    return waves


def _soft(distance: np.ndarray, edge: float) -> np.ndarray:
    """1 inside, 0 outside, linear over one voxel around the surface."""
    return np.clip(0.5 - distance / (2 * edge), 0, 1)


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
