"""Shape and first order against PyRadiomics' own baselines, where its definitions are the IBSI's (or differ by a known step)."""

import csv

import numpy as np
import pytest

from autoseg.images import read_image, read_mask
from prognosis.features.first_order import first_order
from prognosis.features.shape import morphology

CASES = ("brain1", "brain2", "breast1", "lung1")
SHIFT = 2000
"""Added to the values by the settings of these baselines before energy and root mean square."""

FIRST_ORDER = {
    "InterquartileRange": "interquartile_range",
    "Skewness": "skewness",
    "Median": "median",
    "RobustMeanAbsoluteDeviation": "robust_mean_absolute_deviation",
    "MeanAbsoluteDeviation": "mean_absolute_deviation",
    "Maximum": "maximum",
    "90Percentile": "p90",
    "Minimum": "minimum",
    "Range": "range",
    "Variance": "variance",
    "10Percentile": "p10",
    "Mean": "mean",
}
SHAPE = {
    "VoxelVolume": ("voxel_volume", 1e-9),
    "Maximum3DDiameter": ("maximum_diameter", 1e-9),
    "Elongation": ("elongation", 1e-9),
    "Flatness": ("flatness", 1e-9),
    # Its marching cubes cut some corners along the other diagonal: the same voxels, up to 0.5 % another area.
    "MeshVolume": ("mesh_volume", 1e-3),
    "SurfaceArea": ("surface_area", 1e-2),
    "SurfaceVolumeRatio": ("surface_to_volume", 1e-2),
    "Sphericity": ("sphericity", 1e-2),
}


def baseline(path, case):
    rows = list(csv.reader(path.read_text().splitlines()))
    column = rows[0].index(case)
    return {row[0].rpartition("_")[2]: float(row[column]) for row in rows[1:] if row[0].startswith("original")}


@pytest.mark.parametrize("case", CASES)
def test_the_baselines(shared_data, case):
    folder = shared_data / "pyradiomics"
    image = read_image(folder / "data" / f"{case}_image.nrrd")
    inside = read_mask(folder / "data" / f"{case}_label.nrrd").array == 1
    values = image.array[inside]

    expected = baseline(folder / "baseline" / "baseline_firstorder.csv", case)
    found = first_order(values)
    for theirs, ours in FIRST_ORDER.items():
        assert found[ours] == pytest.approx(expected[theirs], rel=1e-9), theirs
    assert found["kurtosis"] == pytest.approx(expected["Kurtosis"] - 3, rel=1e-9)
    shifted = first_order(values.astype(float) + SHIFT)
    assert shifted["energy"] == pytest.approx(expected["Energy"], rel=1e-9)
    assert shifted["root_mean_square"] == pytest.approx(expected["RootMeanSquared"], rel=1e-9)

    expected = baseline(folder / "baseline" / "baseline_shape.csv", case)
    found = morphology(inside, image.geometry.spacing)
    for theirs, (ours, accuracy) in SHAPE.items():
        assert found[ours] == pytest.approx(expected[theirs], rel=accuracy), theirs
    # Its covariance is divided by the number of voxels, the IBSI's by one less.
    shorter = np.sqrt((inside.sum() - 1) / inside.sum())
    for theirs, ours in (("MajorAxisLength", "major_axis"), ("MinorAxisLength", "minor_axis"), ("LeastAxisLength", "least_axis")):
        assert found[ours] * shorter == pytest.approx(expected[theirs], rel=1e-6), theirs
