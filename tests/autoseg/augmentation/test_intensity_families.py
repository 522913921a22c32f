"""Noise, blur, brightness, contrast, low resolution, gamma and mirror against hand formulas, scipy and scikit-image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from skimage.transform import resize

from autoseg.augmentation import blur, chunks, gamma, intensity, low_resolution, mirror, noise

SHAPES = [(2, 9, 14, 11), (2, 13, 17), (1, 40, 5, 70), (2, 1, 30, 20)]


def image(shape, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(np.float32)


def applied(family, array, parameters):
    return family(torch.from_numpy(array.copy()), parameters).numpy()


def test_noise_is_normal_with_the_given_deviation_and_repeats():
    data = image((2, 30, 40, 50))
    added = applied(noise.apply, data, noise.NoiseParameters(0.07, seed=5)).astype(float) - data
    assert stats.kstest(added.ravel()[::7] / 0.07, "norm").pvalue > 1e-3
    assert added.std() == pytest.approx(0.07, rel=0.01)
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 0.02
    again = applied(noise.apply, data, noise.NoiseParameters(0.07, seed=5))
    assert np.array_equal(again, applied(noise.apply, data, noise.NoiseParameters(0.07, seed=5)))
    assert not np.array_equal(again, applied(noise.apply, data, noise.NoiseParameters(0.07, seed=6)))


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_scipys(shape):
    data = image(shape)
    sigmas = (0.5, 0.97, 0.74)[: len(shape) - 1]
    found = applied(blur.apply, data, blur.BlurParameters((sigmas, *[None] * (shape[0] - 1))))
    np.testing.assert_allclose(found[0], ndimage.gaussian_filter(data[0].astype(float), sigmas), atol=2e-6)
    assert np.array_equal(found[1:], data[1:])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=3), st.floats(0.3, 4.0))
def test_blur_is_scipys_also_when_the_kernel_is_longer_than_the_image(shape, sigma):
    data = image((1, *shape))
    found = applied(blur.apply, data, blur.BlurParameters(((sigma,) * len(shape),)))
    np.testing.assert_allclose(found[0], ndimage.gaussian_filter(data[0].astype(float), sigma), atol=5e-6)


def test_blur_of_an_image_larger_than_a_piece():
    data = image((1, 6, 120, 300))
    found = applied(blur.apply, data, blur.BlurParameters(((0.8, 0.9, 1.0),)))
    np.testing.assert_allclose(found[0], ndimage.gaussian_filter(data[0].astype(float), (0.8, 0.9, 1.0)), atol=3e-6)


def test_brightness_is_a_factor_a_channel():
    data = image((3, 4, 5, 6))
    found = applied(intensity.apply_brightness, data, intensity.BrightnessParameters((0.8, 1.0, 1.2)))
    np.testing.assert_allclose(found, data * np.array([0.8, 1.0, 1.2], np.float32)[:, None, None, None], rtol=1e-6)


@pytest.mark.parametrize("factor", [0.75, 1.0, 1.25])
def test_contrast_scales_about_the_mean_inside_the_old_range(factor):
    data = image((1, 30, 31, 32))
    found = applied(intensity.apply_contrast, data, intensity.ContrastParameters((factor,)))
    exact = data.astype(float)
    expected = np.clip((exact - exact.mean()) * factor + exact.mean(), exact.min(), exact.max())
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.min() >= data.min()
    assert found.max() <= data.max()


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.5])
def test_gamma_is_the_power_law_with_mean_and_deviation_kept(exponent, inverted):
    data = image((2, 20, 31, 32)) ** 2
    found = applied(gamma.apply, data, gamma.GammaParameters((exponent,) * 2, inverted))
    for channel, before in zip(found, data.astype(float), strict=True):
        x = -before if inverted else before
        powered = ((x - x.min()) / (np.ptp(x) + 1e-7)) ** exponent
        expected = (powered - powered.mean()) / powered.std() * x.std() + x.mean()
        np.testing.assert_allclose(channel, -expected if inverted else expected, atol=1e-4)
        assert channel.mean() == pytest.approx(before.mean(), abs=1e-4)
        assert channel.std() == pytest.approx(before.std(), rel=1e-5)
        order = np.argsort(before, axis=None)
        assert (np.diff(channel.ravel()[order]) >= -1e-5).all()


def test_gamma_leaves_a_constant_channel_alone():
    data = np.full((1, 4, 4, 4), 3.0, np.float32)
    assert np.array_equal(applied(gamma.apply, data, gamma.GammaParameters((1.4,))), data)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("zoom", [0.53, 0.71, 1.0])
def test_low_resolution_is_nearest_down_and_linear_up(shape, zoom):
    data = image(shape)
    found = applied(low_resolution.apply, data, low_resolution.LowResolutionParameters((zoom, *[None] * (shape[0] - 1))))
    small = [max(1, round(n * zoom)) for n in shape[1:]]
    coarse = data[0].astype(float)
    for axis, (n, m) in enumerate(zip(shape[1:], small, strict=True)):
        # the voxel whose interval holds the new voxel's centre
        coarse = coarse.take([int((i + 0.5) * n / m + 1e-9) for i in range(m)], axis)
    expected = resize(coarse, shape[1:], order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(found[0], expected, atol=5e-6)
    assert np.array_equal(found[1:], data[1:])


def test_low_resolution_can_spare_the_first_axis():
    ramp = np.arange(9, dtype=np.float32)[None, :, None, None] * np.ones((1, 1, 8, 8), np.float32)
    kept = applied(low_resolution.apply, ramp, low_resolution.LowResolutionParameters((0.5,), skip_first_axis=True))
    np.testing.assert_allclose(kept, ramp, atol=1e-6)
    assert not np.allclose(applied(low_resolution.apply, ramp, low_resolution.LowResolutionParameters((0.5,))), ramp)


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, 2)))
def test_mirroring_twice_changes_nothing(axes):
    data = torch.from_numpy(image((2, 3, 4, 5)))
    parameters = mirror.MirrorParameters(tuple(sorted(axes)))
    once = mirror.apply(data, parameters)
    assert np.array_equal(once.numpy(), np.flip(data.numpy(), [a + 1 for a in axes]))
    assert torch.equal(mirror.apply(once, parameters), data)


def test_sums_in_pieces_are_numpys():
    values = torch.from_numpy(image((3, 50, 60, 70)) + 100)
    mean, std = chunks.mean_and_std(values)
    exact = values.numpy().astype(float)
    assert mean == pytest.approx(exact.mean(), rel=1e-7)
    assert std == pytest.approx(exact.std(), rel=1e-5)
    assert chunks.extremes(values) == (values.min(), values.max())
