"""What the PET shows inside the masks: SUVmax, SUVmean, SUVpeak, metabolic volumes and their glycolysis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from prognosis.features.feature import Feature
from prognosis.features.volume import volume_ml

PEAK_RADIUS_MM = 10.0 * (3.0 / (4.0 * math.pi)) ** (1.0 / 3.0)
"""Of a sphere of 1 ml: 6.2 mm."""

ISOCONTOUR = 0.41
"""Share of a lesion's own SUVmax from which a voxel of it counts as metabolically active."""

FIXED_SUV = 4.0

_WHERE = {"gtvp": "the primary tumour", "gtvn": "all nodes"}
_SUV = {
    "suvmax": ("highest SUV of a voxel in {0}", "84IY"),
    "suvmean": ("mean SUV of the voxels in {0}", "Q4LE"),
    "suvpeak": ("highest mean SUV in a 1 ml sphere (radius 6.2 mm) around a voxel of {0}; the sphere may reach out of the mask", "0F91"),
}
_41 = "voxels of at least 41 % of the SUVmax of their own lesion"

FEATURES = (
    *(
        Feature(f"{name}_{label}", "SUV", "image", "uptake", definition.format(where), code, "PET")
        for label, where in _WHERE.items()
        for name, (definition, code) in _SUV.items()
    ),
    *(
        Feature(f"mtv_{label}_ml", "ml", "image", "uptake", f"metabolic tumour volume of {where}: {_41}", "", "PET")
        for label, where in _WHERE.items()
    ),
    *(
        Feature(f"tlg_{label}_g", "g", "image", "uptake", f"total lesion glycolysis of {where}: SUV x ml, over the {_41}", "", "PET")
        for label, where in _WHERE.items()
    ),
    Feature("mtv_ml", "ml", "image", "uptake", f"metabolic tumour volume of primary and nodes: {_41}", "", "PET"),
    Feature("tlg_g", "g", "image", "uptake", f"total lesion glycolysis of primary and nodes: SUV x ml, over the {_41}", "", "PET"),
    Feature("mtv_suv4_ml", "ml", "image", "uptake", "volume of the voxels of primary and nodes with an SUV of at least 4", "", "PET"),
    Feature("tlg_suv4_g", "g", "image", "uptake", "sum over those voxels of SUV x voxel volume in ml", "", "PET"),
    Feature("tlg_mask_g", "g", "image", "uptake", "sum over all voxels of primary and nodes of SUV x voxel volume in ml", "", "PET"),
)
"""MTV without a further word is the 41 % isocontour inside each lesion of the mask: the EANM guideline's contour, and one that keeps its
meaning where a scanner's SUV scale is off by a factor. The fixed threshold and the whole mask are columns of their own."""


def uptake(pet: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """SUVmax and SUVmean of a mask; nan where it is empty.

    Args:
        pet: SUV, (z, y, x).
        mask: bool, (z, y, x).
    """
    values = pet[mask]
    if values.size == 0:
        return {"suvmax": math.nan, "suvmean": math.nan}
    return {"suvmax": float(values.max()), "suvmean": float(values.mean(dtype=np.float64))}


def isocontour(pet: np.ndarray, components: np.ndarray, count: int, share: float = ISOCONTOUR) -> np.ndarray:
    """The voxels of numbered lesions that reach a share of their own lesion's highest value, as a bool array.

    Args:
        pet: SUV, (z, y, x).
        components, count: lesions numbered from 1 to `count`, 0 elsewhere.

    Source: Boellaard et al., "FDG PET/CT: EANM procedure guidelines for tumour imaging: version 2.0", Eur. J. Nucl. Med. Mol. Imaging
    2015 (41 % of the maximum).
    """
    if count == 0:
        return np.zeros(components.shape, bool)
    from scipy.ndimage import maximum

    highest = np.concatenate([[np.inf], np.atleast_1d(maximum(pet, components, index=np.arange(1, count + 1)))])
    return (components > 0) & (pet >= share * highest[components])


def metabolic(pet: np.ndarray, active: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """Metabolic volume in ml and lesion glycolysis in g (SUV x ml) of the active voxels; (0, 0) where there is none.

    Source: Larson et al., "Tumor treatment response based on visual and quantitative changes in global tumor glycolysis using PET-FDG
    imaging", Clin. Positron Imaging 1999.
    """
    return volume_ml(active, spacing), float(pet[active].sum(dtype=np.float64)) * float(np.prod(spacing)) / 1000.0


def global_peak(pet: np.ndarray, mask: np.ndarray, spacing: Sequence[float]) -> float:
    """SUVpeak: the highest of the means in spheres of 1 ml around every voxel of a mask (IBSI 0F91); nan where it is empty.

    A sphere's mean is that of all voxels whose centres lie within 6.2 mm of its own, in or out of the mask; what lies out of the image
    does not count. The spheres stand on voxel centres and cut no voxel.

    Args:
        pet: SUV, (z, y, x), with at least 6.2 mm around the mask where the image goes on.
        mask: bool, (z, y, x).
        spacing: mm, (z, y, x).

    Source: Zwanenburg et al., "The image biomarker standardization initiative", Radiology 2020, reference manual, section 3.2; Wahl et
    al., "From RECIST to PERCIST", J. Nucl. Med. 2009.
    """
    voxels = np.argwhere(mask)
    return float(_sphere_means(pet, voxels, spacing).max()) if len(voxels) else math.nan


def local_peak(pet: np.ndarray, mask: np.ndarray, spacing: Sequence[float]) -> float:
    """The mean in the 1 ml sphere around the hottest voxel of a mask, the highest where several are equally hot (IBSI VJGA); otherwise as
    `global_peak`."""
    voxels = np.argwhere(mask)
    if not len(voxels):
        return math.nan
    values = pet[mask]
    return float(_sphere_means(pet, voxels[values == values.max()], spacing).max())


def peak_margin(spacing: Sequence[float]) -> tuple[int, int, int]:
    """How many voxels along each axis a peak's sphere reaches out from its centre."""
    z, y, x = (int(PEAK_RADIUS_MM / step) for step in spacing)
    return z, y, x


def _sphere_means(image: np.ndarray, voxels: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The mean of the image in the 1 ml sphere around each of some voxels (n, 3)."""
    margin = peak_margin(spacing)
    offsets = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in margin), indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = offsets[np.linalg.norm(offsets * np.asarray(spacing, float), axis=1) <= PEAK_RADIUS_MM]
    padded = np.pad(np.asarray(image, np.float64), [(m, m) for m in margin])
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    flat, inside = padded.ravel(), np.pad(np.ones(image.shape, bool), [(m, m) for m in margin]).ravel()
    centres = (voxels + margin) @ strides
    totals, counts = np.zeros(len(voxels)), np.zeros(len(voxels))
    for step in offsets @ strides:
        totals += flat[centres + step]
        counts += inside[centres + step]
    return totals / counts
