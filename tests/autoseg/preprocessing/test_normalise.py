"""Intensity schemes beside values worked out by hand and plain numpy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.preprocessing.normalise import mean_and_std, normalise
from planners.plan import CTNormalisation, NoNormalisation, RescaleNormalisation, RGBNormalisation, ZScoreNormalisation

CT = CTNormalisation(lower=-100, upper=300, mean=50, std=25)
ALL = [CT, ZScoreNormalisation(), ZScoreNormalisation(masked=True), NoNormalisation(), RescaleNormalisation(), RGBNormalisation()]


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
