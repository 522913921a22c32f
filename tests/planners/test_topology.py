from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from planners.topology import topology


def test_an_isotropic_cube():
    found = topology((1, 1, 1), (128, 128, 128))
    assert found.strides == ((1, 1, 1), *[(2, 2, 2)] * 5)
    assert found.kernels == ((3, 3, 3),) * 6
    assert (found.divisor, found.patch_size, found.stages) == ((32, 32, 32), (128, 128, 128), 6)


def test_thick_slices_are_halved_later_and_have_flat_kernels_first():
    """Prostate, 3.6 x 0.62 x 0.62 mm: published strides and kernels."""
    found = topology((3.6, 0.62, 0.62), (20, 320, 256))
    assert found.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert found.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


def test_patches_are_padded_up():
    assert topology((1, 1, 1), (36, 50, 35)).patch_size == (40, 56, 40)
    assert topology((1.0, 1.0), (138.5, 169.0)).patch_size == (160, 192)


def test_a_single_short_axis_is_left_alone():
    assert topology((1, 1), (4, 11)).stages == 1
    assert topology((1, 1), (4, 12)).strides == ((1, 1), (1, 2))


@given(st.integers(2, 3).flatmap(lambda d: st.tuples(st.tuples(*[st.floats(0.1, 10)] * d), st.tuples(*[st.integers(1, 300)] * d))))
@settings(deadline=None, max_examples=200)
def test_what_holds_for_every_patch(given_):
    spacing, patch = given_
    found = topology(spacing, patch)
    assert len(found.kernels) == len(found.strides)
    assert set(found.strides[0]) == {1}
    assert set(found.kernels[-1]) == {3}
    for axis, length in enumerate(patch):
        product = math.prod(stride[axis] for stride in found.strides)
        assert product == found.divisor[axis]
        assert found.patch_size[axis] % product == 0
        assert 0 <= found.patch_size[axis] - length < product
        if product > 1:
            assert found.patch_size[axis] / product >= 4
        spans = [kernel[axis] for kernel in found.kernels]
        assert spans == sorted(spans)
