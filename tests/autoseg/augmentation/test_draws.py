"""What 10 000 draws of each transform look like, against the rates and ranges of nnU-Net's list (reference: its own augmentation).

Tolerances: five standard errors of a rate; five of a quantile of a uniform distribution, sqrt(q (1 - q) / n) x width.
"""

import numpy as np
import pytest
import torch

from autoseg.augmentation import blur, components, gamma, intensity, low_resolution, mirror, morphology, noise, spatial
from autoseg.augmentation.counters import generator
from planners.plan import (
    Augmentation,
    Blur,
    Brightness,
    Contrast,
    Gamma,
    LowResolution,
    MaskComponents,
    MaskMorphology,
    Mirror,
    Noise,
    PreviousStageMasks,
    Spatial,
)

N = 10_000
QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])


def draws(sample, *arguments, **keywords):
    return [sample(*arguments[:1], generator("draws", k), *arguments[1:], **keywords) for k in range(N)]


def check_rate(hits, trials, rate):
    assert abs(hits / trials - rate) < 5 * np.sqrt(rate * (1 - rate) / trials), f"{hits} of {trials} for a rate of {rate}"


def check_uniform(values, low, high):
    values = np.asarray(values, dtype=float)
    assert values.min() >= low
    assert values.max() <= high
    found, wanted = np.quantile(values, QUANTILES), low + (high - low) * QUANTILES
    allowed = 5 * np.sqrt(QUANTILES * (1 - QUANTILES) / len(values)) * (high - low)
    assert (np.abs(found - wanted) < allowed).all(), f"quantiles {found}, expected {wanted} +- {allowed}"


def check_around_one(values, low, high):
    values = np.asarray(values)
    below = values < 1
    check_rate(below.sum(), len(values), 0.5)
    check_uniform(values[below], low, 1)
    check_uniform(values[~below], 1, high)


def test_spatial_in_three_dimensions():
    found = draws(spatial.sample, Spatial(), 3)
    done = [p for p in found if p]
    rotated, scaled = [p for p in done if p.rotated], [p for p in done if p.scale != 1]
    check_rate(len(done), N, 1 - 0.8 * 0.8)
    check_rate(len(rotated), N, 0.2)
    check_rate(len(scaled), N, 0.2)
    check_rate(sum(p.rotated and p.scale != 1 for p in done), N, 0.04)
    for axis in range(3):
        check_uniform([p.degrees[axis] for p in rotated], -30, 30)
    angles = np.array([p.degrees for p in rotated])
    assert np.abs(np.corrcoef(angles.T) - np.eye(3)).max() < 5 / np.sqrt(len(rotated))
    check_uniform([p.scale for p in scaled], 0.7, 1.4)


@pytest.mark.parametrize(
    ("spec", "dimension"), [(Spatial(in_plane=True, rotation_degrees=(-180, 180)), 3), (Spatial(rotation_degrees=(-180, 180)), 2)]
)
def test_spatial_in_a_plane_has_one_angle(spec, dimension):
    done = [p for p in draws(spatial.sample, spec, dimension) if p]
    assert {len(p.degrees) for p in done} == {1}
    rotated = [p for p in done if p.rotated]
    check_rate(len(rotated), N, 0.2)
    check_uniform([p.degrees[0] for p in rotated], -180, 180)


def test_noise():
    done = [p for p in draws(noise.sample, Noise()) if p]
    check_rate(len(done), N, 0.1)
    check_uniform([p.std for p in done], 0, 0.1)
    assert len({p.seed for p in done}) == len(done)


def test_blur():
    done = [p for p in draws(blur.sample, Blur(), 2, 3) if p]
    check_rate(len(done), N, 0.2)
    channels = [sigmas for p in done for sigmas in p.sigmas]
    chosen = np.array([sigmas for sigmas in channels if sigmas])
    check_rate(len(chosen), len(channels), 0.5)
    assert chosen.shape[1] == 3
    for axis in range(3):
        check_uniform(chosen[:, axis], 0.5, 1)
    assert abs(np.corrcoef(chosen[:, 0], chosen[:, 1])[0, 1]) < 5 / np.sqrt(len(chosen))


def test_brightness():
    done = [p.factors for p in draws(intensity.sample_brightness, Brightness(), 2) if p]
    check_rate(len(done), N, 0.15)
    check_uniform(np.ravel(done), 0.75, 1.25)
    check_around_one(np.ravel(done), 0.75, 1.25)
    assert abs(np.corrcoef(np.transpose(done))[0, 1]) < 5 / np.sqrt(len(done))


def test_contrast():
    done = [p.factors for p in draws(intensity.sample_contrast, Contrast(), 2) if p]
    check_rate(len(done), N, 0.15)
    check_around_one(np.ravel(done), 0.75, 1.25)
    assert abs(np.corrcoef(np.transpose(done))[0, 1]) < 5 / np.sqrt(len(done))


@pytest.mark.parametrize("bounds", [(1.0, 2.0), (0.5, 1.0), (1.2, 1.5), (0.6, 0.8)])
def test_a_range_on_one_side_of_one_is_drawn_evenly(bounds):
    check_uniform([intensity.draw_around_one(bounds, generator(k)) for k in range(2000)], *bounds)


def test_low_resolution():
    done = [p for p in draws(low_resolution.sample, LowResolution(skip_first_axis=True), 2) if p]
    check_rate(len(done), N, 0.25)
    assert all(p.skip_first_axis for p in done)
    zooms = [zoom for p in done for zoom in p.zooms]
    chosen = [zoom for zoom in zooms if zoom is not None]
    check_rate(len(chosen), len(zooms), 0.5)
    check_uniform(chosen, 0.5, 1)


@pytest.mark.parametrize(("inverted", "rate"), [(True, 0.1), (False, 0.3)])
def test_gamma(inverted, rate):
    done = [p for p in draws(gamma.sample, Gamma(), 2, inverted=inverted) if p]
    check_rate(len(done), N, rate)
    assert {p.inverted for p in done} == {inverted}
    check_around_one(np.ravel([p.gammas for p in done]), 0.7, 1.5)


def test_mirror():
    found = draws(mirror.sample, Mirror())
    flipped = np.array([[axis in p.axes if p else False for axis in range(3)] for p in found])
    for axis in range(3):
        check_rate(flipped[:, axis].sum(), N, 0.5)
    check_rate(flipped.all(1).sum(), N, 1 / 8)
    assert {p.axes for p in draws(mirror.sample, Mirror(axes=(1,))) if p} == {(1,)}


def test_morphology_of_a_previous_stage():
    done = [p for p in draws(morphology.sample, MaskMorphology(), 3) if p]
    check_rate(len(done), N, 0.4)
    steps = [step for p in done for step in p.steps]
    check_rate(len(steps), 3 * len(done), 0.5)
    for index in range(3):
        check_rate(sum(step[0] == index for step in steps), len(steps), 1 / 3)
    for operator in ("dilation", "erosion", "closing", "opening"):
        check_rate(sum(step[1] == operator for step in steps), len(steps), 1 / 4)
    check_uniform([step[2] for step in steps], 1, 8)
    pairs = [[step[0] for step in p.steps] for p in done if len(p.steps) == 2]
    check_rate(sum(first < second for first, second in pairs), len(pairs), 0.5)


def test_components_of_a_previous_stage():
    done = [p for p in draws(components.sample, MaskComponents(), 3) if p]
    check_rate(len(done), N, 0.2)
    chosen = [pair for p in done for pair in p.chosen]
    for index in range(3):
        check_rate(sum(pair[0] == index for pair in chosen), len(done), 0.5)
    check_uniform([pair[1] for pair in chosen], 0, 1)
    assert {p.largest_share for p in done} == {0.15}


def test_the_defaults_of_the_plan_are_what_is_tested_here():
    default = Augmentation()
    assert (default.spatial, default.noise, default.blur, default.brightness) == (Spatial(), Noise(), Blur(), Brightness())
    assert (default.contrast, default.low_resolution, default.gamma, default.mirror) == (Contrast(), LowResolution(), Gamma(), Mirror())
    assert default.previous_stage is None
    assert PreviousStageMasks() == PreviousStageMasks(morphology=MaskMorphology(), components=MaskComponents())


def test_channels_may_have_ranges_of_their_own():
    ranges = ((0.1, 0.2), (3.0, 4.0))
    for make, values in (
        (lambda **k: intensity.sample_brightness(Brightness(**k), generator("channels"), 2), lambda p: p.factors),
        (lambda **k: intensity.sample_contrast(Contrast(**k), generator("channels"), 2), lambda p: p.factors),
        (lambda **k: gamma.sample(Gamma(**k), generator("channels"), 2), lambda p: p.gammas),
        (lambda **k: noise.sample(Noise(**k), generator("channels")), lambda p: p.channels),
        (lambda **k: [s[0] for s in blur.sample(Blur(**k, channel_probability=1), generator("channels"), 2, 3).sigmas], lambda p: p),
    ):
        found = values(make(probability=1, channels=ranges))
        assert len(found) == 2
        assert all(low <= value <= high for value, (low, high) in zip(found, ranges, strict=True))


def test_noise_of_channels_lies_at_the_same_place_of_each_range():
    spec = Noise(probability=1, channels=((0.0, 0.1), (0.0, 0.4)))
    drawn, common = noise.sample(spec, generator("channels")), noise.sample(Noise(probability=1), generator("channels"))
    assert (drawn.std, drawn.seed, common.channels) == (common.std, common.seed, ())
    assert drawn.channels == pytest.approx((common.std, 4 * common.std))
    data = torch.zeros(2, 20, 20, 20)
    noise.apply(data, drawn)
    assert data.std(dim=(1, 2, 3)).tolist() == pytest.approx(drawn.channels, rel=0.03)
