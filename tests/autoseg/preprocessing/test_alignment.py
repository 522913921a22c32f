"""How PET lies on CT: shifts that are known, on bodies of many shapes."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from autoseg.preprocessing.alignment import alignment

SPACING = (4.0, 3.0, 2.0)


def bodies(shift=(0, 0, 0), shape=(40, 60, 90), seed=0):
    """CT and PET of an egg with a bump, the PET moved by some voxels."""
    rng = np.random.default_rng(seed)
    place = np.stack(np.indices(shape)).astype(float)

    def inside(by):
        z, y, x = (2 * (axis - b) / n - 1 for axis, b, n in zip(place, by, shape, strict=True))
        return (z**2 + (y * 1.6) ** 2 + (x * 1.4 + 0.3 * z) ** 2 < 0.5) | ((z - 0.4) ** 2 + (y - 0.3) ** 2 + x**2 < 0.08)

    ct = np.where(inside((0, 0, 0)), 40.0, -1000.0) + rng.normal(0, 20, shape)
    pet = gaussian_filter(np.where(inside(shift), 2.0, 0.0), 1) + rng.gamma(1, 0.002, shape)
    return ct.astype(np.float32), pet.astype(np.float32)


@pytest.mark.parametrize("shift", [(0, 0, 0), (5, 0, 0), (0, -7, 0), (0, 0, 20), (-4, 6, -9)])
def test_a_known_shift_is_found(shift):
    ct, pet = bodies(shift)
    found = alignment(ct, pet, SPACING)
    np.testing.assert_allclose(found.shift, np.multiply(shift, SPACING), atol=5.0)  # the grid of comparison is 6 mm
    if shift == (0, 0, 0):
        assert found.overlap > 0.8
    else:
        assert found.overlap < alignment(*bodies(), SPACING).overlap
    in_becquerel = alignment(ct, pet * 7000, SPACING)
    np.testing.assert_allclose(in_becquerel.shift, found.shift, atol=1e-3)


def test_without_a_body_nothing_is_told():
    ct, pet = bodies()
    assert alignment(ct, np.zeros_like(pet), SPACING) is None
    assert alignment(np.zeros_like(ct), pet, SPACING) is None
    assert alignment(pet, ct, SPACING) is None
    assert alignment(ct[:1], pet[:1], SPACING) is None or alignment(ct[:1], pet[:1], SPACING).shift[0] == 0
