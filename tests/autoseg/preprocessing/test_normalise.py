"""Intensity schemes beside values worked out by hand and plain numpy in float64."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.preprocessing.crop import nonzero_mask
from autoseg.preprocessing.normalise import mean_and_std, normalise
from planners.fingerprint import sketch
from planners.normalisation import scale_of
from planners.plan import CTNormalisation, NoNormalisation, PETNormalisation, RescaleNormalisation, RGBNormalisation, ZScoreNormalisation

CT = CTNormalisation(lower=-100, upper=300, mean=50, std=25)
ALL = [
    CT,
    ZScoreNormalisation(),
    ZScoreNormalisation(masked=True),
    PETNormalisation(),
    NoNormalisation(),
    RescaleNormalisation(),
    RGBNormalisation(),
]


def volume(values):
    return np.array(values, np.float32).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("scheme", "values", "expected"),
    [
        (CT, [-1000, 50, 100, 4000], [-6, 0, 2, 10]),
        (ZScoreNormalisation(), [1, 3], [-1, 1]),
        (NoNormalisation(), [1, -3], [1, -3]),
        (RescaleNormalisation(), [-2, 0, 6], [0, 0.25, 1]),
        (RGBNormalisation(), [0, 51, 255], [0, 0.2, 1]),
    ],
)
def test_by_hand(scheme, values, expected):
    np.testing.assert_allclose(normalise(volume(values), scheme).ravel(), expected, rtol=1e-6)


def test_masked_zscore_looks_inside_and_leaves_the_outside():
    image = volume([0, 10, 0, 14])
    mask = np.array([[[False, True, False, True]]])
    np.testing.assert_allclose(normalise(image.copy(), ZScoreNormalisation(masked=True), mask).ravel(), [0, -1, 0, 1], rtol=1e-6)
    everywhere = normalise(image.copy(), ZScoreNormalisation(masked=False), mask)
    np.testing.assert_allclose(everywhere, (image - 6) / image.std(), rtol=1e-5)


def test_masked_zscore_without_a_mask_is_everywhere():
    np.testing.assert_allclose(normalise(volume([1, 3]), ZScoreNormalisation(masked=True)).ravel(), [-1, 1])


def pet_like(seed=0):
    """Air, a body, and a small hot lesion."""
    image = np.zeros((20, 30, 30), np.float32)
    image[2:18, 5:25, 5:25] = np.random.default_rng(seed).gamma(4, 0.25, (16, 20, 20)).astype(np.float32) + 0.1
    image[8:11, 10:14, 10:14] += 6
    return image


def test_pet_by_numpy():
    image = pet_like()
    body = image[image > 0.01 * np.percentile(image, 99.5)]
    top = np.percentile(body, 99.5)
    clipped = np.minimum(body, top).astype(np.float64)
    expected = (np.minimum(image, top) - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(normalise(image.copy(), PETNormalisation()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-4, 0.07, 350.0, 26929.0])
def test_pet_does_not_depend_on_the_unit(factor):
    expected = normalise(pet_like(), PETNormalisation())
    np.testing.assert_allclose(normalise(pet_like() * np.float32(factor), PETNormalisation()), expected, rtol=1e-4, atol=1e-4)


def test_pet_does_not_depend_on_the_air_around():
    # The percentile that tells air from body moves a little with the air, the body does not.
    expected = normalise(pet_like(), PETNormalisation())
    wide = np.pad(pet_like(), ((0, 0), (15, 15), (15, 15)))
    np.testing.assert_allclose(normalise(wide, PETNormalisation())[:, 15:-15, 15:-15], expected, rtol=1e-4, atol=1e-4)


def test_a_hot_spot_moves_a_pet_little():
    expected = normalise(pet_like(), PETNormalisation())
    hot = pet_like()
    hot[3, 6, 6] = 5000
    found = normalise(hot.copy(), PETNormalisation())
    assert np.abs(found - expected)[hot < 5000].max() < 0.05
    assert np.isfinite(found).all()


@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: scheme.kind)
@pytest.mark.parametrize("value", [0.0, 0.1, -1024.0, 1.7e6])
def test_a_constant_image_stays_finite(scheme, value):
    image = normalise(np.full((3, 5, 7), value, np.float32), scheme, np.zeros((3, 5, 7), bool))
    assert np.isfinite(image).all()
    if scheme.kind == "zscore" and not scheme.masked:
        assert not image.any()


@given(
    seed=st.integers(0, 999),
    offset=st.sampled_from([0.0, 1e4, -1e6]),
    scale=st.sampled_from([1e-3, 1.0, 1e5]),
    shape=st.sampled_from([(7,), (3, 4, 5)]),
)
@settings(deadline=None, max_examples=40)
def test_moments_are_float64s(seed, offset, scale, shape):
    values = (np.random.default_rng(seed).normal(size=shape) * scale + offset).astype(np.float32)
    mean, std = mean_and_std(values)
    assert mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert std == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


def test_moments_of_a_constant_are_exact():
    assert mean_and_std(np.full((9, 9, 9), 0.1, np.float32)) == (float(np.float32(0.1)), 0.0)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: f"{scheme.kind}-{getattr(scheme, 'masked', '')}")
def test_what_the_planner_expects_of_a_case_is_what_is_done_to_it(scheme, outside):
    rng = np.random.default_rng(0)
    image = rng.normal(40, 60, (8, 9, 10)).astype(np.float32)
    if outside:
        image[:, :3] = 0  # the box of the non-zero region would cut this off: a corner stays
        image[0, 0, 0] = 1
    mask = nonzero_mask([image])

    inside = image[mask] if mask is not None else image
    case = SimpleNamespace(body=(sketch(inside),), shape_after_crop=image.shape)
    normalised = normalise(image.copy(), scheme, mask)
    scale = scale_of(scheme, case, 0)
    for place in ((4, 5, 6), (7, 8, 9), (2, 4, 1)):
        # the body of a PET has to be found in the sketch: its quantiles are not all values
        allowed = 0.03 if scheme.kind == "pet" else 1e-4
        assert scale.apply(float(image[place])) == pytest.approx(float(normalised[place]), rel=1e-4, abs=allowed)


def test_without_contrast_there_is_no_scale():
    flat = SimpleNamespace(body=(sketch([3.0, 3.0]),), shape_after_crop=(1, 1, 2))
    for scheme in (ZScoreNormalisation(), ZScoreNormalisation(masked=True), PETNormalisation(), RescaleNormalisation()):
        assert scale_of(scheme, flat, 0) is None
        assert scale_of(scheme, SimpleNamespace(body=(None,), shape_after_crop=(1, 1, 2)), 0) is None
