"""Features as they would be measured on the phantom's images, worked out from the simulated patients without any image.

Names are those that `prognosis features` writes. Lesions are taken for ellipsoids, values in them for normally distributed; errors of
contouring and of the scanner's SUV scale are shared by all features that they touch, and each feature has a little noise of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoseg.importers.cohort.patients import TEXTURE_HU, TEXTURE_SPREAD, Patients
from autoseg.importers.cohort.structures import TUMOUR_CT

OWN_NOISE = 0.03
"""Relative standard deviation of what each feature has on its own."""

_VOXEL_ML = 0.08


def measured_features(patients: Patients) -> dict[str, np.ndarray]:
    """Name -> values (n,) of every feature; nan where a patient has no value. A row does not depend on how many others there are."""
    found = {name: np.asarray(values, float) for name, values in _all(patients, _Noise(patients))}
    nodeless = patients.node_count == 0
    for name in found:
        if name.endswith("_gtvn") or name == "nodal_to_primary_suv":
            found[name] = np.where(nodeless, np.nan, found[name])
    return found


class _Noise:
    """Standard normal values, a row a patient, taken column by column."""

    COLUMNS = 96

    def __init__(self, patients: Patients):
        rng = np.random.default_rng([patients.seed, patients.stream, 2])
        self._values = rng.standard_normal((len(patients), self.COLUMNS))
        self._used = 0

    def normal(self) -> np.ndarray:
        self._used += 1
        return self._values[:, self._used - 1]

    def factor(self, spread: float = OWN_NOISE) -> np.ndarray:
        return np.exp(spread * self.normal())


def _all(patients: Patients, noise: _Noise) -> Iterator[tuple[str, np.ndarray]]:
    contour = np.exp(patients.errors["volume"])
    volume = {"gtvp": patients.gtvp_ml * contour, "gtvn": patients.node_ml.sum(axis=1) * contour}
    scanners = [centre.scanner for centre in patients.centres]
    scale = np.array([scanner.pet_scale for scanner in scanners])[patients.centre] * np.exp(patients.errors["uptake"])
    yield from _extent(patients, volume, noise)
    yield from _uptake(patients, volume, contour, scale, noise)
    yield from _shape(volume["gtvp"], noise)
    deviation = TEXTURE_HU * np.exp(TEXTURE_SPREAD * (patients.texture + patients.errors["texture"]))
    ct_noise, offset = (np.array([getattr(scanner, name) for scanner in scanners])[patients.centre] for name in ("ct_noise", "ct_offset"))
    mean = TUMOUR_CT - 10 + offset + 6 * noise.normal()
    yield from _first_order("ct", mean, np.hypot(deviation, ct_noise), volume["gtvp"], noise)
    suv = patients.gtvp_suv * scale * 0.72
    spread = suv * (0.22 + 0.5 * patients.gtvp_core**2) * noise.factor(0.1)
    yield from _first_order("pet", suv, spread, volume["gtvp"], noise)


def _extent(patients: Patients, volume: dict[str, np.ndarray], noise: _Noise) -> Iterator[tuple[str, np.ndarray]]:
    yield from ((f"volume_{label}_ml", values) for label, values in volume.items())
    yield "volume_total_ml", volume["gtvp"] + volume["gtvn"]
    yield "lesion_count", patients.node_count + 1
    yield "node_count", patients.node_count
    diameter = 2.3 * _radius_mm(volume["gtvp"])
    yield "dmax_mm", diameter + (patients.node_count > 0) * np.maximum(28 + 7 * patients.node_count + 10 * noise.normal(), 10)
    yield "nodal_to_primary_volume", volume["gtvn"] / volume["gtvp"]


def _uptake(
    patients: Patients, volume: dict[str, np.ndarray], contour: np.ndarray, scale: np.ndarray, noise: _Noise
) -> Iterator[tuple[str, np.ndarray]]:
    mtv = {"gtvp": patients.mtv_gtvp_ml * contour, "gtvn": patients.mtv_gtvn_ml * contour}
    node_mean = (patients.node_ml * patients.node_suv).sum(axis=1) / np.maximum(patients.node_ml.sum(axis=1), 1e-9)
    highest = {"gtvp": patients.gtvp_suv * scale, "gtvn": patients.node_suv.max(axis=1) * scale}
    mean = {"gtvp": patients.gtvp_suv * scale * 0.72, "gtvn": node_mean * scale * 0.7}
    above_4 = {label: mtv[label] / (1 + np.exp(-(np.log(np.maximum(mean[label], 0.1) / 4)) / 0.2)) for label in mtv}
    suvmax = {}
    for label in ("gtvp", "gtvn"):
        suvmax[label] = 1.06 * highest[label] * noise.factor()
        yield f"suvmax_{label}", suvmax[label]
        yield f"suvmean_{label}", mean[label] * noise.factor()
        yield f"suvpeak_{label}", 0.9 * highest[label] * noise.factor()
        yield f"mtv_{label}_ml", mtv[label]
        yield f"tlg_{label}_g", mtv[label] * mean[label] * 1.1
    yield "mtv_ml", mtv["gtvp"] + mtv["gtvn"]
    yield "tlg_g", 1.1 * (mtv["gtvp"] * mean["gtvp"] + mtv["gtvn"] * mean["gtvn"])
    yield "mtv_suv4_ml", (above_4["gtvp"] + above_4["gtvn"]) * noise.factor()
    yield "tlg_suv4_g", 1.2 * (above_4["gtvp"] * mean["gtvp"] + above_4["gtvn"] * mean["gtvn"]) * noise.factor()
    yield "tlg_mask_g", volume["gtvp"] * mean["gtvp"] + volume["gtvn"] * mean["gtvn"]
    yield "nodal_to_primary_suv", suvmax["gtvn"] / suvmax["gtvp"]


def _shape(volume: np.ndarray, noise: _Noise) -> Iterator[tuple[str, np.ndarray]]:
    """Of an ellipsoid with a wavy surface.

    Source: Thomsen's approximation of an ellipsoid's surface, with p = 1.6075.
    """
    elongation = np.exp(-0.14 * np.abs(noise.normal()))
    flatness = elongation * np.exp(-0.14 * np.abs(noise.normal()))
    major = _radius_mm(volume) / np.cbrt(elongation * flatness)
    axes = [major, elongation * major, flatness * major]
    power = 1.6075
    products = [(axes[a] * axes[b]) ** power for a, b in ((0, 1), (0, 2), (1, 2))]
    smooth = 4 * np.pi * (sum(products) / 3) ** (1 / power)
    roughness = 1.08 * np.exp(0.03 * np.abs(noise.normal()))
    area, mm3 = smooth * roughness, 1000 * volume
    to_axis = 4 / np.sqrt(5)
    shape = {
        "mesh_volume": 0.97 * mm3,
        "surface_area": area,
        "surface_to_volume": area / mm3,
        "sphericity": np.cbrt(36 * np.pi * mm3**2) / area,
        "maximum_diameter": 2.15 * major * noise.factor(),
        "major_axis": to_axis * axes[0],
        "minor_axis": to_axis * axes[1],
        "least_axis": to_axis * axes[2],
        "elongation": elongation,
        "flatness": flatness,
        "volume_density_box": 0.5 * noise.factor(),
        "area_density_box": 0.6 * noise.factor(),
        "volume_density_ellipsoid": 0.97 * noise.factor(),
        "area_density_ellipsoid": roughness,
        "volume_density_hull": 0.9 * noise.factor(),
        "area_density_hull": 1.05 * noise.factor(),
        "centre_of_mass_shift": 0.08 * _radius_mm(volume) * np.abs(noise.normal()),
    }
    yield from ((f"shape_{name}_gtvp", values) for name, values in shape.items())


def _first_order(
    channel: str, mean: np.ndarray, deviation: np.ndarray, volume_ml: np.ndarray, noise: _Noise
) -> Iterator[tuple[str, np.ndarray]]:
    """Of normally distributed values; PET's are not below 0, and have the statistics that need a zero."""
    from scipy.special import ndtri

    extreme = -ndtri(0.5 / np.maximum(volume_ml / _VOXEL_ML, 2))
    lowest, highest = mean - deviation * extreme * noise.factor(), mean + deviation * extreme * noise.factor()
    p10, p90 = mean - 1.2816 * deviation * noise.factor(), mean + 1.2816 * deviation * noise.factor()
    quartiles = 1.349 * deviation * noise.factor()
    if channel == "pet":
        lowest, p10 = np.maximum(lowest, 0.05), np.maximum(p10, 0.05)
    statistics = {
        "mean": mean,
        "variance": deviation**2,
        "skewness": 0.2 * noise.normal(),
        "kurtosis": -0.3 + 0.3 * noise.normal(),
        "median": mean + 0.05 * deviation * noise.normal(),
        "minimum": lowest,
        "p10": p10,
        "p90": p90,
        "maximum": highest,
        "interquartile_range": quartiles,
        "range": highest - lowest,
        "mean_absolute_deviation": 0.798 * deviation * noise.factor(),
        "robust_mean_absolute_deviation": 0.56 * deviation * noise.factor(),
        "median_absolute_deviation": 0.797 * deviation * noise.factor(),
    }
    if channel == "pet":
        del statistics["mean"], statistics["maximum"]  # SUVmean and SUVmax have columns of their own
        statistics |= {
            "coefficient_of_variation": deviation / mean,
            "quartile_coefficient_of_dispersion": quartiles / (2 * mean),
            "root_mean_square": np.hypot(mean, deviation),
        }
    yield from ((f"first_order_{channel}_{name}_gtvp", values) for name, values in statistics.items())


def _radius_mm(volume_ml: np.ndarray) -> np.ndarray:
    """Of a ball of that volume."""
    return np.cbrt(3000 * volume_ml / (4 * np.pi))
