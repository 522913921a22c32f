"""All features of one case: pure arrays in, named numbers out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planners.labels import Values
from prognosis.features import first_order, nodal, shape, uptake, volume
from prognosis.features.feature import EMPTY_MASK, NO_CT, NO_NODES, NO_PET, NO_PRIMARY, PET_NOT_SUV, registered
from prognosis.features.suv import suv_problem

FEATURES = registered((*volume.FEATURES, *uptake.FEATURES, *nodal.FEATURES, *shape.FEATURES, *first_order.FEATURES))
"""Name -> feature: the columns of a feature table, in order."""

PRIMARY, NODES = "GTVp", "GTVn"
LABELS = {PRIMARY: 1, NODES: 2}


@dataclass(frozen=True)
class Measured:
    """One case's features.

    Attributes:
        values: by the names in `FEATURES`, all of them; nan where a feature has no value.
        flags: those of `feature.FLAGS` that hold.
        notes: what was found, in words.
    """

    values: dict[str, float]
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Region:
    """The images around the tumour, and its masks."""

    ct: np.ndarray | None
    pet: np.ndarray | None
    primary: np.ndarray
    nodes: np.ndarray
    spacing: tuple[float, float, float]

    @property
    def tumour(self) -> np.ndarray:
        return self.primary | self.nodes


def case_features(
    ct: np.ndarray | None, pet: np.ndarray | None, mask: np.ndarray, spacing: Sequence[float], labels: Mapping[str, Values] = LABELS
) -> dict[str, float]:
    """The features of one case, by the names in `FEATURES`; arguments and errors as `measure`."""
    return measure(ct, pet, mask, spacing, labels).values


def measure(
    ct: np.ndarray | None, pet: np.ndarray | None, mask: np.ndarray, spacing: Sequence[float], labels: Mapping[str, Values] = LABELS
) -> Measured:
    """The features of one case with the flags that say which of them have no value, and why.

    An empty mask gives nan everywhere, volumes included: the patients have a tumour, so a mask without one is a failed segmentation and no
    tumour of 0 ml. A mask with a primary and no node is a finding: nodal volumes and counts are 0, nodal uptake is nan. A mask with nodes
    and no primary leaves everything of the primary nan. No value is ever imputed here.

    Args:
        ct: HU, (z, y, x); None where there is none.
        pet: SUV on the same grid; None where there is none.
        mask: label values on the same grid.
        spacing: mm, (z, y, x).
        labels: the values of "GTVp" and, where there are nodes, "GTVn"; several for a region.

    Raises:
        ValueError: shapes differ, a spacing is not positive, or `labels` names no "GTVp".
    """
    _check(ct, pet, mask, spacing, labels)
    flags, notes = [], []
    if pet is None:
        flags.append(NO_PET)
    elif problem := suv_problem(pet, ct):
        flags.append(PET_NOT_SUV)
        notes.append(f"PET is not in SUV: {problem}")
        pet = None
    if ct is None:
        flags.append(NO_CT)
    values = dict.fromkeys(FEATURES, math.nan)
    region = _region(ct, pet, mask, spacing, labels)
    if region is None:
        return Measured(values, (EMPTY_MASK, *flags), tuple(notes))
    has_primary, has_nodes = bool(region.primary.any()), bool(region.nodes.any())
    values |= _extent(region, has_primary, has_nodes)
    values |= _uptake(region, has_primary, has_nodes)
    values["nodal_to_primary_volume"] = nodal.ratio(values["volume_gtvn_ml"], values["volume_gtvp_ml"])
    values["nodal_to_primary_suv"] = nodal.ratio(values["suvmax_gtvn"], values["suvmax_gtvp"])
    if has_primary:
        values |= _primary(region)
    flags += [] if has_primary else [NO_PRIMARY]
    flags += [] if has_nodes or NODES not in labels else [NO_NODES]
    return Measured(values, tuple(flags), tuple(notes))


def _check(ct: np.ndarray | None, pet: np.ndarray | None, mask: np.ndarray, spacing: Sequence[float], labels: Mapping[str, Values]) -> None:
    shapes = {name: array.shape for name, array in (("CT", ct), ("PET", pet), ("mask", mask)) if array is not None}
    if mask.ndim != 3 or len(set(shapes.values())) > 1:
        raise ValueError(f"CT, PET and mask must have one shape (z, y, x), found {shapes}")
    if len(spacing) != 3 or not all(0 < step < math.inf for step in spacing):
        raise ValueError(f"spacing must be three positive numbers, found {spacing}")
    if PRIMARY not in labels or not set(labels) <= {PRIMARY, NODES}:
        raise ValueError(f"labels must tell the values of {PRIMARY} and {NODES}, found {dict(labels)}")


def _region(
    ct: np.ndarray | None, pet: np.ndarray | None, mask: np.ndarray, spacing: Sequence[float], labels: Mapping[str, Values]
) -> _Region | None:
    primary, nodes = np.isin(mask, labels[PRIMARY]), np.isin(mask, labels.get(NODES, -1))
    tumour = primary | nodes
    if not tumour.any():
        return None
    box = volume.bounding_box(tumour, uptake.peak_margin(spacing))
    z, y, x = (float(step) for step in spacing)
    return _Region(None if ct is None else ct[box], None if pet is None else pet[box], primary[box], nodes[box], (z, y, x))


def _extent(region: _Region, has_primary: bool, has_nodes: bool) -> dict[str, float]:
    nodes = volume.lesions(region.nodes)[1] if has_nodes else 0
    primaries = volume.lesions(region.primary)[1] if has_primary else 0
    return {
        "volume_gtvp_ml": volume.volume_ml(region.primary, region.spacing) if has_primary else math.nan,
        "volume_gtvn_ml": volume.volume_ml(region.nodes, region.spacing),
        "volume_total_ml": volume.volume_ml(region.tumour, region.spacing),
        "lesion_count": float(primaries + nodes),
        "node_count": float(nodes),
        "dmax_mm": volume.dmax_mm(region.tumour, region.spacing),
    }


def _uptake(region: _Region, has_primary: bool, has_nodes: bool) -> dict[str, float]:
    pet, spacing = region.pet, region.spacing
    if pet is None:
        return {}
    found: dict[str, float] = {}
    active = np.zeros(region.primary.shape, bool)
    for label, mask, there in (("gtvp", region.primary, has_primary), ("gtvn", region.nodes, has_nodes)):
        found |= {f"{name}_{label}": value for name, value in uptake.uptake(pet, mask).items()}
        found[f"suvpeak_{label}"] = uptake.global_peak(pet, mask, spacing)
        hot = uptake.isocontour(pet, *volume.lesions(mask)) if there else np.zeros(mask.shape, bool)
        found[f"mtv_{label}_ml"], found[f"tlg_{label}_g"] = uptake.metabolic(pet, hot, spacing)
        active |= hot
    if not has_primary:
        found["mtv_gtvp_ml"] = found["tlg_gtvp_g"] = math.nan
    found["mtv_ml"], found["tlg_g"] = uptake.metabolic(pet, active, spacing)
    found["mtv_suv4_ml"], found["tlg_suv4_g"] = uptake.metabolic(pet, region.tumour & (pet >= uptake.FIXED_SUV), spacing)
    found["tlg_mask_g"] = uptake.metabolic(pet, region.tumour, spacing)[1]
    return found


def _primary(region: _Region) -> dict[str, float]:
    taken = {f"shape_{name}_gtvp": value for name, value in shape.morphology(region.primary, region.spacing).items()}
    if region.pet is not None:
        taken["shape_centre_of_mass_shift_gtvp"] = shape.centre_of_mass_shift(region.primary, region.pet, region.spacing)
        taken |= {f"first_order_pet_{name}_gtvp": value for name, value in first_order.first_order(region.pet[region.primary]).items()}
    if region.ct is not None:
        taken |= {f"first_order_ct_{name}_gtvp": value for name, value in first_order.first_order(region.ct[region.primary]).items()}
    return {name: value for name, value in taken.items() if name in FEATURES}
