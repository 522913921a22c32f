import numpy as np
import pytest

from autoseg.importers.cohort.centres import Grid, first_centres
from autoseg.importers.cohort.measured import measured_features
from autoseg.importers.cohort.patients import simulate
from autoseg.importers.cohort.write import image_patient

THREE = first_centres(3)


@pytest.fixture(scope="module")
def many():
    patients = simulate(3000, THREE, seed=4)
    return patients, measured_features(patients)


def test_columns_are_those_that_prognosis_features_writes(many):
    from prognosis.features.case import FEATURES

    assert set(many[1]) == set(FEATURES)


def test_a_row_does_not_depend_on_how_many_there_are(many):
    few = measured_features(simulate(20, THREE, seed=4))
    for name, values in many[1].items():
        assert np.array_equal(values[:20], few[name], equal_nan=True), name


def test_only_patients_without_nodes_lack_values(many):
    patients, features = many
    nodeless = patients.node_count == 0
    for name, values in features.items():
        expected = nodeless if name.endswith("_gtvn") or name == "nodal_to_primary_suv" else np.zeros(len(patients), bool)
        assert np.array_equal(np.isnan(values), expected), name
    for name in ("volume_gtvn_ml", "mtv_gtvn_ml", "tlg_gtvn_g", "node_count", "nodal_to_primary_volume"):
        assert not features[name][nodeless].any(), name


def test_truth_shows_through(many):
    patients, features = many
    assert np.corrcoef(np.log(features["mtv_ml"]), np.log(patients.mtv_ml))[0, 1] > 0.97
    texture = np.log(features["first_order_ct_variance_gtvp"])
    for centre in range(3):
        rows = patients.centre == centre
        assert 0.85 < np.corrcoef(texture[rows], patients.texture[rows])[0, 1] < 0.99
    # the SUV scale is the scanner's own
    medians = [np.median(features["suvmax_gtvp"][patients.centre == centre]) for centre in range(3)]
    assert medians[1] < 0.75 * medians[0] < 0.75 * medians[2]


def test_features_of_real_voxels_are_like_these(many):
    """Medians of a few imaged patients, by the package that measures real ones, lie within a factor of the simulated ones."""
    from scipy.ndimage import map_coordinates

    from prognosis.features.case import case_features

    patients, features = many
    rows = [row for row in range(60) if patients.centre[row] == 0][:6]
    found = []
    for row in rows:
        made = image_patient(patients.tumours(row), THREE[0].scanner, "demo", (4, row))
        ct_grid, pet_grid = THREE[0].scanner.grids["demo"]
        pet = map_coordinates(made.pet, np.meshgrid(*_steps(ct_grid, pet_grid), indexing="ij"), order=1, mode="nearest")
        found.append(case_features(made.ct.astype(np.float32), pet.astype(np.float32), made.mask, ct_grid.spacing))
    assert all(measured["lesion_count"] <= patients.node_count[row] + 1 for measured, row in zip(found, rows, strict=True))
    for name, factor in (
        ("volume_total_ml", 1.2),
        ("mtv_ml", 1.5),
        ("suvmax_gtvp", 1.5),
        ("suvmean_gtvp", 1.5),
        ("tlg_g", 1.7),
        ("shape_surface_area_gtvp", 1.3),
        ("shape_sphericity_gtvp", 1.2),
        ("shape_major_axis_gtvp", 1.3),
        ("first_order_ct_variance_gtvp", 2.5),
        ("first_order_pet_median_gtvp", 1.5),
    ):
        ratio = np.nanmedian([measured[name] for measured in found]) / np.nanmedian(features[name][rows])
        assert 1 / factor < ratio < factor, f"{name}: {ratio:.2f}"


def _steps(onto: Grid, of: Grid):
    """For each axis, where the voxels of one grid lie in voxels of another."""
    for axis in range(3):
        positions = onto.middle[axis] + (np.arange(onto.shape[axis]) - (onto.shape[axis] - 1) / 2) * onto.spacing[axis]
        yield (positions - of.middle[axis]) / of.spacing[axis] + (of.shape[axis] - 1) / 2
