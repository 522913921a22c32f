"""Resampling in the patient's space; the oracles are positions worked out here and scipy.ndimage.map_coordinates."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from autoseg.errors import DatasetError
from autoseg.images import Geometry, Image
from autoseg.importers.hecktor.grids import Onto, field_of_view, resample, resample_mask, same_grid

RNG = np.random.default_rng(5)
SOURCE = Geometry((5, 6, 7), (4.0, 3.0, 3.0), (-9.0, -8.0, -7.0))
TURNS = {
    "same": np.eye(3),
    "flipped": np.diag([-1.0, 1.0, -1.0]),
    "permuted": np.array([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]]),
    "oblique": np.linalg.qr(np.array([[1, 0.2, -0.1], [-0.15, 1, 0.3], [0.2, -0.25, 1]]))[0],
}


def voxel_coordinates(source: Geometry, grid: Geometry) -> np.ndarray:
    """Where the grid's voxels lie on the source, in its voxels: (3, z, y, x)."""
    z, y, x = np.indices(grid.shape)
    steps = np.stack([x, y, z]).reshape(3, -1) * np.array(grid.spacing[::-1])[:, None]
    position = np.reshape(grid.direction, (3, 3)) @ steps + np.array(grid.origin)[:, None]
    back = np.linalg.inv(np.reshape(source.direction, (3, 3))) @ (position - np.array(source.origin)[:, None])
    return (back / np.array(source.spacing[::-1])[:, None])[::-1].reshape(3, *grid.shape)


def turned(name: str) -> Geometry:
    """A grid about the source's middle that reaches beyond it on all sides."""
    shape, spacing = (12, 14, 16), (2.0, 1.5, 1.6)
    middle = np.array([0.0, -0.5, 1.0]) + 0.3
    half = np.array(spacing[::-1]) * (np.array(shape[::-1]) - 1) / 2
    return Geometry(shape, spacing, tuple(middle - TURNS[name] @ half), tuple(TURNS[name].ravel()))


def is_inside(coordinates, shape, margin):
    limits = np.array(shape).reshape(3, 1, 1, 1) - 1 + margin
    return ((coordinates >= -margin) & (coordinates <= limits)).all(0)


@pytest.mark.parametrize("name", TURNS)
def test_values_come_from_where_the_voxels_lie(name):
    grid = turned(name)
    values = RNG.normal(size=SOURCE.shape).astype(np.float32)
    found = resample(Image(values, SOURCE), grid, outside=-7.0)
    at = voxel_coordinates(SOURCE, grid)
    expected = map_coordinates(values.astype(float), at, order=1, mode="nearest")
    inside, near = is_inside(at, SOURCE.shape, 0.499), is_inside(at, SOURCE.shape, 0.501)
    assert inside.any()
    assert not near.all()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
    assert (found[~near] == -7).all()
    view = field_of_view(SOURCE, grid)
    assert view[inside].all()
    assert not view[~near].any()


def test_nothing_is_invented():
    spikes = np.zeros(SOURCE.shape, np.float32)
    spikes[2, 3, 3], spikes[2, 2, 5] = 20, 9
    found = resample(Image(spikes, SOURCE), turned("oblique"), outside=0.0)
    assert found.min() >= 0
    assert 0 < found.max() <= 20


def test_the_same_grid_is_left_alone():
    values = RNG.integers(-1000, 1000, SOURCE.shape).astype(np.int16)
    assert resample(Image(values, SOURCE), SOURCE, outside=0.0) is values
    assert same_grid(SOURCE, Geometry(SOURCE.shape, SOURCE.spacing, (-9.0, -8.0, -7.001)))
    assert not same_grid(SOURCE, Geometry(SOURCE.shape, SOURCE.spacing, (-9.0, -8.0, -7.01)))


@pytest.mark.parametrize("name", ["same", "permuted"])
def test_a_coarser_grid_averages_where_a_finer_one_does_not(name):
    fine = Geometry((24, 24, 24), (1.0, 1.0, 1.0))
    noise = RNG.normal(size=fine.shape).astype(np.float32)
    coarse = Geometry((4, 20, 20), (4.0, 1.0, 1.0), (2.0, 2.0, 2.0), tuple(TURNS[name].ravel()))
    found = resample(Image(noise, fine), coarse, outside=0.0)
    points = map_coordinates(noise.astype(float), voxel_coordinates(fine, coarse), order=1)
    # A Gaussian of sigma = sqrt(4 ** 2 - 1) / 2.355 voxels along one axis leaves 1 / sqrt(2 sqrt(pi) sigma) of white noise.
    left = 1 / np.sqrt(2 * np.sqrt(np.pi) * np.sqrt(15) / 2.3548)
    assert found.std() / points.std() == pytest.approx(left, rel=0.25)
    flat = resample(Image(np.full(fine.shape, 3.0, np.float32), fine), coarse, outside=0.0)
    np.testing.assert_allclose(flat, 3.0, rtol=1e-5)


@pytest.mark.parametrize("name", TURNS)
def test_a_mask_takes_the_label_with_the_largest_share(name):
    grid = turned(name)
    mask = np.zeros(SOURCE.shape, np.uint8)
    mask[1:4, 1:4, 1:4], mask[2:5, 3:6, 3:6] = 1, 2
    at = voxel_coordinates(SOURCE, grid)
    shares = np.stack([map_coordinates((mask == label).astype(float), at, order=1, mode="nearest") for label in range(3)])
    second, first = np.sort(shares, axis=0)[-2:]
    sure = is_inside(at, SOURCE.shape, 0.499) & (first - second > 1e-4)
    found = resample_mask(mask, SOURCE, grid)
    assert set(np.unique(found[sure])) == {0, 1, 2}
    assert np.array_equal(found[sure], shares.argmax(0)[sure])
    assert not found[~is_inside(at, SOURCE.shape, 0.501)].any()


@pytest.mark.parametrize(
    ("text", "onto"), [("CT", Onto("CT")), ("pet", Onto("PT")), ("2", Onto("", (2, 2, 2))), ("3,1,1.5", Onto("", (3, 1, 1.5)))]
)
def test_what_onto_says(text, onto):
    assert Onto.parse(text) == onto
    assert Onto.parse(str(onto)) == onto


@pytest.mark.parametrize("text", ["MR", "", "0", "1,1", "-1", "nan", "inf", "1,1,1,1", "1;1;1"])
def test_what_onto_cannot_say(text):
    with pytest.raises(DatasetError, match="--onto .*: must be CT, PT, or a spacing"):
        Onto.parse(text)


def test_a_spacing_is_the_patients_over_the_cts_field_of_view():
    # Stored with the patient's z (superior) as the array's last axis.
    ct = Geometry((20, 30, 10), (1.0, 1.0, 3.0), (5.0, -4.0, 7.0), (0, 0, 1, 0, 1, 0, 1, 0, 0))
    grid = Onto("", (2.0, 1.5, 4.0)).grid(ct, SOURCE)
    assert grid.spacing == (4.0, 1.5, 2.0), "z, y, x of the patient are the array's x, y, z"
    assert grid.shape == (5, 20, 15)
    middle = [geometry.positions([(n - 1) / 2 for n in geometry.shape]) for geometry in (ct, grid)]
    np.testing.assert_allclose(middle[0], middle[1], atol=1e-9)
    assert Onto("CT").grid(ct, SOURCE) == ct
    assert Onto("PT").grid(ct, SOURCE) == SOURCE
