import numpy as np
import pytest
from scipy.ndimage import label

from autoseg.importers.phantom import CENTRES, GTVN, GTVP, LABELS, generate_case

NORTH, SOUTH = CENTRES


@pytest.fixture(scope="module")
def phantoms():
    return [generate_case(seed=3, patient=number, visit=0, centre=CENTRES[number % 2]) for number in range(12)]


def test_the_same_numbers_give_the_same_voxels():
    first, second = (generate_case(1, 5, 0, NORTH) for _ in range(2))
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
    for other in (generate_case(2, 5, 0, NORTH), generate_case(1, 6, 0, NORTH), generate_case(1, 5, 1, NORTH)):
        assert not np.array_equal(first.labels, other.labels)


def test_every_case_has_one_gtvp_and_up_to_three_gtvn(phantoms):
    for phantom in phantoms:
        assert set(np.unique(phantom.labels)) == {0, 1, 2}
        assert label(phantom.labels == 1)[1] == 1
        assert 1 <= label(phantom.labels == 2)[1] <= 3


def test_volumes_are_those_of_the_radii_whatever_the_grid(phantoms):
    for phantom in phantoms:
        volume = np.sum(phantom.labels == 1) * np.prod(phantom.spacing)
        low, high = ((0.8 * radius) ** 3 * 4.19 for radius in (GTVP.radius[0], 1.6 * GTVP.radius[1]))
        assert low < volume < high


def test_the_centres_differ(phantoms):
    assert NORTH.spacing != SOUTH.spacing
    for phantom, centre in zip(phantoms, CENTRES * 6, strict=True):
        assert phantom.labels.shape == centre.shape
        assert phantom.images.shape == (2, *centre.shape)
        assert phantom.images.dtype == np.float32
    fields = [np.array(centre.shape) * centre.spacing for centre in CENTRES]
    assert np.allclose(*fields, atol=4)
    lesions = [[p.images[1][p.labels == 1].mean() for p in phantoms if p.centre == c.name] for c in CENTRES]
    assert np.mean(lesions[1]) < 0.8 * np.mean(lesions[0])


def test_labels_do_not_differ_by_the_intensity_of_a_voxel(phantoms):
    """The area under the curve of telling GTVp from GTVn by one voxel's CT: 0.5 is chance."""
    ct = [np.concatenate([p.images[0][p.labels == value] for p in phantoms]) for value in LABELS.values()]
    ranks = np.concatenate([ct[1], ct[2]]).argsort().argsort()[: ct[1].size]
    area = (ranks.sum() - ct[1].size * (ct[1].size - 1) / 2) / (ct[1].size * ct[2].size)
    assert 0.35 < area < 0.65


def test_look_alikes_hold_more_uptake_than_lesions(phantoms):
    bright = [p.images[1] > 2.5 * CENTRES[i % 2].pet_scale for i, p in enumerate(phantoms)]
    outside = sum(np.sum(b & (p.labels == 0)) * np.prod(p.spacing) for b, p in zip(bright, phantoms, strict=True))
    inside = sum(np.sum(b & (p.labels > 0)) * np.prod(p.spacing) for b, p in zip(bright, phantoms, strict=True))
    assert outside > 0.9 * inside
    assert GTVP.ct == GTVN.ct
