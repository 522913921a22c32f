"""Noise and blur beside what was put into an image: noise of known deviation, scipy's Gaussian filter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from autoseg.preprocessing import measures as module
from autoseg.preprocessing.measures import measure

SHAPE = (32, 40, 48)


def balls(seed: int = 0, shape=SHAPE) -> np.ndarray:
    """Balls with ideal edges and different values, on a background."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape)
    image = np.full(shape, 100.0)
    for _ in range(14):
        middle, radius = rng.uniform(0, shape), rng.uniform(4, 9)
        image[((grid - middle[:, None, None, None]) ** 2).sum(0) < radius**2] = rng.uniform(0, 400)
    return image


BALLS = balls()
NOISE = np.random.default_rng(1).normal(size=SHAPE)


@pytest.mark.parametrize(("sigma", "blur"), [(0.5, 2.0), (5.0, 0.8), (5.0, 2.0), (40.0, 0.8), (40.0, 2.0)])
def test_noise_is_recovered_from_an_image_with_structure(sigma, blur):
    assert measure(gaussian_filter(BALLS, blur) + sigma * NOISE, (1, 1, 1)).noise == pytest.approx(sigma, rel=0.08)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.5, 2.5])
@pytest.mark.parametrize("noise", [0.0, 5.0, 20.0])
def test_blur_is_recovered_in_mm_along_each_axis(sigma, noise):
    found = measure(gaussian_filter(BALLS, sigma) + noise * NOISE, (2.0, 1.0, 0.5)).blur
    assert found == pytest.approx((2 * sigma, sigma, sigma / 2), rel=0.25)


def test_blur_of_one_axis_shows_on_that_axis():
    sharp, blurred = (measure(gaussian_filter(BALLS, sigma), (1, 1, 1)).blur for sigma in (0.7, (0.7, 0.7, 2.0)))
    assert blurred[2] > 2 * sharp[2]
    assert blurred[:2] == pytest.approx(sharp[:2], rel=0.25)


@given(seed=st.integers(0, 99), low=st.floats(0.6, 2.0), factor=st.floats(1.2, 2.0))
@settings(deadline=None, max_examples=8)
def test_more_blur_measures_as_more(seed, low, factor):
    image = balls(seed, (24, 28, 32))
    sharper, softer = (measure(gaussian_filter(image, sigma), (1, 1, 1)).blur for sigma in (low, low * factor))
    assert all(a < b for a, b in zip(sharper, softer, strict=True))


@given(factor=st.floats(0.01, 1000), offset=st.floats(-1000, 1000))
@settings(deadline=None, max_examples=10)
def test_noise_goes_with_the_units_and_blur_does_not(factor, offset):
    image = gaussian_filter(BALLS, 1.0) + 5 * NOISE
    one, other = measure(image, (1, 1, 1)), measure(factor * image + offset, (1, 1, 1))
    assert other.noise == pytest.approx(factor * one.noise, rel=0.01)
    assert other.blur == pytest.approx(one.blur, rel=0.03)


def test_clipped_air_does_not_hide_the_noise_of_tissue():
    image = np.full((20, 60, 60), -1024.0)
    image[:, 20:50, 20:50] = 40 + 25 * NOISE[:20, :30, :30]
    assert measure(np.rint(image), (3, 1, 1)).noise == pytest.approx(25, rel=0.08)


def test_outside_the_region_nothing_counts():
    inside = np.zeros(SHAPE, bool)
    inside[4:28, 5:35, 6:42] = True
    image = gaussian_filter(BALLS, 1.5) + 5 * NOISE
    disturbed = np.where(inside, image, np.random.default_rng(5).normal(0, 500, SHAPE))
    assert measure(disturbed, (1, 1, 1), inside).noise == pytest.approx(5, rel=0.08)
    assert measure(disturbed, (1, 1, 1), inside).blur == pytest.approx((1.5,) * 3, rel=0.25)


def test_some_planes_stand_for_a_large_image(monkeypatch):
    image = gaussian_filter(BALLS, 1.2) + 8 * NOISE
    whole = measure(image, (1, 1, 1))
    monkeypatch.setattr(module, "MEASURED", 10 * 40 * 48)
    part = measure(image, (1, 1, 1))
    assert part != whole
    assert part.noise == pytest.approx(whole.noise, rel=0.1)
    assert part.blur == pytest.approx(whole.blur, rel=0.2)


def test_slices_constant_and_tiny_images():
    rng = np.random.default_rng(3)
    edges = gaussian_filter(BALLS[16], 1.0)[None] + 5 * NOISE[16:17]
    flat = measure(edges, (5.0, 0.5, 0.5))
    assert flat.noise == pytest.approx(5, rel=0.15)
    assert flat.blur[0] is None
    assert flat.blur[1:] == pytest.approx((0.5, 0.5), rel=0.4)
    assert measure(np.full((6, 6, 6), 3.0), (1, 1, 1)) == module.ChannelMeasures(0.0, (None, None, None))
    assert measure(np.zeros((1, 1, 1)), (1, 1, 1)) == module.ChannelMeasures(None, (None, None, None))
    assert measure(rng.normal(size=(2, 2, 2)), (1, 1, 1)) == module.ChannelMeasures(None, (None, None, None))
    assert measure(rng.normal(size=SHAPE), (1, 1, 1)).blur == (None, None, None), "nothing but noise has no edges"


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_voxels_of_any_kind_and_stride(kind):
    image = np.rint(gaussian_filter(BALLS / 2, 1.0) + 4 * NOISE + 20).clip(0).astype(kind)
    found, turned = measure(image, (1, 1, 1)), measure(image[::-1, :, ::-1], (1, 1, 1))
    assert found.noise == pytest.approx(4, rel=0.08)
    assert turned.noise == pytest.approx(found.noise, rel=1e-5)
    assert turned.blur == pytest.approx(found.blur, rel=1e-9)
