from __future__ import annotations

import pytest

from planners.augmentation import augmentation, mirror_axes, spatial
from planners.plan import CTNormalisation, ZScoreNormalisation


@pytest.mark.parametrize(
    ("patch", "degrees", "in_plane"),
    [
        ((128, 128, 128), 30, False),
        ((64, 192, 192), 30, False),
        ((63, 192, 128), 180, True),
        ((20, 320, 256), 180, True),
        ((192, 160), 180, False),
        ((192, 128), 180, False),
        ((128, 200), 15, False),
    ],
)
def test_rotation_follows_the_patch(patch, degrees, in_plane):
    found, why = spatial(patch)
    assert found.rotation_degrees == (-degrees, degrees)
    assert found.in_plane == in_plane
    assert f"{max(patch) / (patch[0] if len(patch) == 3 else min(patch)):.3g}" in why


@pytest.mark.parametrize(
    ("dimension", "transpose", "excluded", "expected"),
    [
        (3, (0, 1, 2), (), (0, 1, 2)),
        (3, (0, 1, 2), (2,), (0, 1)),
        (3, (2, 0, 1), (2,), (1, 2)),
        (3, (1, 0, 2), (0, 2), (0,)),
        (2, (0, 1, 2), (2,), (0,)),
        (2, (2, 0, 1), (2,), (0, 1)),
        (2, (1, 0, 2), (0,), (1,)),
    ],
)
def test_mirrored_axes_are_the_networks(dimension, transpose, excluded, expected):
    assert mirror_axes(dimension, transpose, excluded) == expected


def test_defaults_and_what_depends():
    masked, plain = ZScoreNormalisation(masked=True), ZScoreNormalisation()
    ct = CTNormalisation(lower=-100, upper=200, mean=40, std=20)
    found, reasons = augmentation((20, 320, 256), [ct, masked, plain, masked], (0, 1))
    assert found.zero_outside_mask == (1, 3)
    assert found.low_resolution.skip_first_axis
    assert found.mirror.axes == (0, 1)
    assert set(reasons) == {"spatial", "low_resolution.skip_first_axis", "zero_outside_mask"}
    found, reasons = augmentation((64, 64, 64), [ct], ())
    assert not found.low_resolution.skip_first_axis
    assert found.zero_outside_mask == ()
    assert set(reasons) == {"spatial"}


def test_the_published_defaults():
    found, _ = augmentation((64, 64, 64), [ZScoreNormalisation()], (0, 1, 2))
    assert (found.spatial.rotation_probability, found.spatial.scaling_probability, found.spatial.scaling) == (0.2, 0.2, (0.7, 1.4))
    assert (found.noise.probability, found.noise.std) == (0.1, (0.0, 0.1))
    assert (found.blur.probability, found.blur.channel_probability, found.blur.sigma) == (0.2, 0.5, (0.5, 1.0))
    assert (found.brightness.probability, found.brightness.factor) == (0.15, (0.75, 1.25))
    assert (found.contrast.probability, found.contrast.factor) == (0.15, (0.75, 1.25))
    low = found.low_resolution
    assert (low.probability, low.channel_probability, low.zoom) == (0.25, 0.5, (0.5, 1.0))
    assert (found.gamma.probability, found.gamma.inverted_probability, found.gamma.gamma) == (0.3, 0.1, (0.7, 1.5))
    assert found.mirror.probability == 0.5
