"""Every shape, peak and first-order feature against the consensus values of the IBSI: digital phantom, and CT phantom A, C and D."""

import csv
import math

import numpy as np
import pytest

from autoseg.images import read_image, read_mask
from prognosis.features.first_order import first_order
from prognosis.features.shape import centre_of_mass_shift, morphology
from prognosis.features.uptake import global_peak, local_peak

MORPHOLOGY_TAGS = {
    "mesh_volume": "volume",
    "voxel_volume": "vol_approx",
    "surface_area": "area_mesh",
    "surface_to_volume": "av",
    "compactness_1": "comp_1",
    "compactness_2": "comp_2",
    "spherical_disproportion": "sph_dispr",
    "sphericity": "sphericity",
    "asphericity": "asphericity",
    "maximum_diameter": "diam",
    "major_axis": "pca_maj_axis",
    "minor_axis": "pca_min_axis",
    "least_axis": "pca_least_axis",
    "elongation": "pca_elongation",
    "flatness": "pca_flatness",
    "volume_density_box": "vol_dens_aabb",
    "area_density_box": "area_dens_aabb",
    "volume_density_ellipsoid": "vol_dens_aee",
    "area_density_ellipsoid": "area_dens_aee",
    "volume_density_hull": "vol_dens_conv_hull",
    "area_density_hull": "area_dens_conv_hull",
}
STATISTICS_TAGS = {
    "mean": "mean",
    "variance": "var",
    "skewness": "skew",
    "kurtosis": "kurt",
    "median": "median",
    "minimum": "min",
    "p10": "p10",
    "p90": "p90",
    "maximum": "max",
    "interquartile_range": "iqr",
    "range": "range",
    "mean_absolute_deviation": "mad",
    "robust_mean_absolute_deviation": "rmad",
    "median_absolute_deviation": "medad",
    "coefficient_of_variation": "cov",
    "quartile_coefficient_of_dispersion": "qcod",
    "energy": "energy",
    "root_mean_square": "rms",
}


@pytest.fixture(scope="module")
def ibsi(shared_data):
    return shared_data / "ibsi"


def consensus(path):
    """Tag -> (value, tolerance)."""
    rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter=";"))
    return {tag: (float(value), float(tolerance)) for value, tolerance, tag in rows if value and value != "reference value"}


def measured(image, morphological, intensity, spacing):
    """Tag -> value, of the mask for shapes and the one for intensities."""
    found = {f"morph_{MORPHOLOGY_TAGS[name]}": value for name, value in morphology(morphological, spacing).items()}
    found |= {f"stat_{STATISTICS_TAGS[name]}": value for name, value in first_order(image[intensity]).items()}
    found["morph_com"] = centre_of_mass_shift(morphological, image, spacing, weighed=intensity)
    found["loc_peak_loc"] = local_peak(image, intensity, spacing)
    found["loc_peak_glob"] = global_peak(image, intensity, spacing)
    return found


def deviating(found, reference):
    """What lies outside the consensus, whose values have three digits."""
    wrong = {}
    for tag, value in found.items():
        expected, tolerance = reference[tag]
        rounding = 0.5 * 10 ** (math.floor(math.log10(abs(expected))) - 2) if expected else 0.0
        if not abs(value - expected) <= tolerance + 1.001 * rounding:
            wrong[tag] = (value, expected, tolerance)
    return wrong


def interpolated(array, spacing, new):
    """Linear interpolation onto a grid of another spacing with the same centre, as the IBSI's manual lays it."""
    result = np.asarray(array, float)
    for axis, step in enumerate(spacing):
        count = math.ceil(array.shape[axis] * step / new)
        places = (np.arange(count) - (count - 1) / 2) * new / step + (array.shape[axis] - 1) / 2
        places = np.clip(places, 0, array.shape[axis] - 1)
        before = np.minimum(places.astype(int), array.shape[axis] - 2)
        share = np.expand_dims(places - before, tuple(other for other in range(3) if other != axis))
        result = result.take(before, axis) * (1 - share) + result.take(before + 1, axis) * share
    return result


def phantom(folder):
    image = read_image(next((folder / "nifti" / "image").glob("*.nii.gz")))
    mask = read_mask(next((folder / "nifti" / "mask").glob("*.nii.gz")))
    return image.array, mask.array > 0, image.geometry.spacing


def test_the_digital_phantom(ibsi):
    image, mask, spacing = phantom(ibsi / "ibsi_1_digital_phantom")
    reference = consensus(ibsi / "ibsi_1_reference_values" / "ibsi_1_dig_phantom.csv")
    found = measured(image, mask, mask, spacing)
    assert len(found) == 42
    assert deviating(found, reference) == {}


@pytest.fixture(scope="module")
def chest(ibsi):
    return phantom(ibsi / "ibsi_1_ct_radiomics_phantom")


def test_the_ct_phantom_without_interpolation(ibsi, chest):
    """Configuration A: intensities from -500 to 400 HU count."""
    image, mask, spacing = chest
    found = measured(image, mask, mask & (image >= -500) & (image <= 400), spacing)
    assert deviating(found, consensus(ibsi / "ibsi_1_reference_values" / "ibsi_1_chest_config_a.csv")) == {}


def test_the_ct_phantom_at_2_mm(ibsi, chest):
    """Configurations C (-1000 to 400 HU) and D (three standard deviations around the mean)."""
    image, mask, spacing = chest
    image = np.rint(interpolated(image, spacing, 2.0))
    mask = interpolated(mask, spacing, 2.0) >= 0.5
    values = image[mask]
    low, high = values.mean() - 3 * values.std(), values.mean() + 3 * values.std()
    for name, inside in (("c", (image >= -1000) & (image <= 400)), ("d", (image >= low) & (image <= high))):
        found = measured(image, mask, mask & inside, (2.0, 2.0, 2.0))
        assert deviating(found, consensus(ibsi / "ibsi_1_reference_values" / f"ibsi_1_chest_config_{name}.csv")) == {}, name
