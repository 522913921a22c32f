import numpy as np
import pytest

from autoseg.augmentation import components
from autoseg.augmentation.components import ComponentParameters


def mask():
    """Three components of 1, 2 and 4 of 40 voxels; the second is connected by a corner only."""
    found = np.zeros((1, 4, 10), bool)
    found[0, 0, 0] = True
    found[0, 0, 5] = found[0, 1, 6] = True
    found[0, 3, 4:8] = True
    return found


@pytest.mark.parametrize(("pick", "left"), [(0.0, 6), (0.4, 5), (0.99, 3)])
def test_the_number_that_was_drawn_picks_the_component(pick, left):
    found = components.apply(mask(), ComponentParameters(((0, pick),), 0.15))
    assert found.sum() == left
    assert not (found & ~mask()).any()


def test_large_components_stay():
    assert components.apply(mask(), ComponentParameters(((0, 0.99),), 0.1)).sum() == 5, "4 of 40 voxels are not less than 10 %"
    assert np.array_equal(components.apply(mask(), ComponentParameters(((0, 0.5),), 0.02)), mask())


def test_an_empty_mask_and_other_classes_stay_as_they_are():
    both = np.concatenate([mask(), np.zeros_like(mask()), mask()])
    found = components.apply(both.copy(), ComponentParameters(((0, 0.0), (1, 0.5)), 0.15))
    assert found.sum((1, 2)).tolist() == [6, 0, 7]
