import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import ball, disk

from autoseg.augmentation import morphology
from autoseg.augmentation.morphology import MorphologyParameters, operated, squared_distance

SCIPY = {
    "dilation": ndimage.binary_dilation,
    "erosion": lambda mask, element: ndimage.binary_erosion(mask, element, border_value=1),
    "opening": lambda mask, element: ndimage.binary_dilation(ndimage.binary_erosion(mask, element, border_value=1), element),
    "closing": lambda mask, element: ndimage.binary_erosion(ndimage.binary_dilation(mask, element), element, border_value=1),
}


def blobs(shape, seed=0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2) > 0.05


@pytest.mark.parametrize("operator", morphology.OPERATORS)
@pytest.mark.parametrize(("shape", "element"), [((17, 24, 9), ball), ((31, 26), disk)])
@pytest.mark.parametrize("radius", [1, 3, 8, 11])
def test_operations_are_scipys_with_scikit_images_ball(operator, shape, element, radius):
    mask = blobs(shape)
    found = operated(mask, operator, float(radius))
    assert np.array_equal(found, SCIPY[operator](mask, element(radius)))
    assert operator == "closing" or not np.array_equal(found, mask)


def test_a_radius_between_two_whole_ones():
    point = np.zeros((7, 7), bool)
    point[3, 3] = True
    assert operated(point, "dilation", 1.3).sum() == 5
    assert operated(point, "dilation", 1.5).sum() == 9, "the diagonal neighbours lie at 1.414"
    assert operated(point, "dilation", 2.1).sum() == 13


@pytest.mark.parametrize("reach", [0, 2, 10, 11, 40])
def test_distances_are_scipys_as_far_as_they_reach(reach):
    mask = blobs((20, 14, 25), seed=1) & blobs((20, 14, 25), seed=2)
    exact = np.round(ndimage.distance_transform_edt(~mask) ** 2)
    found = squared_distance(mask, reach)
    near = exact <= reach**2
    assert np.array_equal(found[near], exact[near])
    assert (found[~near] > reach**2).all()
    assert (squared_distance(np.zeros((5, 5), bool), reach) > reach**2).all()


def test_a_class_takes_what_it_gains_from_classes_that_exclude_it():
    masks = np.zeros((3, 1, 9), bool)
    masks[0, 0, 2:4], masks[1, 0, 4:6], masks[2, 0, 2:6] = True, True, True
    grown = MorphologyParameters(((0, "dilation", 1.0),))
    exclusive = morphology.apply(masks.copy(), grown, [(1,), (2,), (3,)])
    assert exclusive[:, 0].astype(int).tolist() == [[0, 1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 1, 0, 0, 0]]
    region = morphology.apply(masks.copy(), grown, [(1,), (2,), (1, 2)])
    assert np.array_equal(region[2], masks[2]), "a region that holds the class loses nothing to it"
    assert np.array_equal(region[:2], exclusive[:2])


def test_steps_follow_one_another():
    masks = np.zeros((2, 1, 9), bool)
    masks[0, 0, 2:4], masks[1, 0, 5:7] = True, True
    steps = ((0, "dilation", 2.0), (1, "dilation", 2.0))
    there, back = (morphology.apply(masks.copy(), MorphologyParameters(order), [(1,), (2,)]) for order in (steps, steps[::-1]))
    assert ["".join(map(str, row.astype(int))) for row in there[:, 0]] == ["111100000", "000011111"]
    assert ["".join(map(str, row.astype(int))) for row in back[:, 0]] == ["111110000", "000001111"]
