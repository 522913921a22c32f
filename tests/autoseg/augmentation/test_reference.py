"""batchgenerators and the own transforms give the same for the same draw."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from autoseg.augmentation import noise
from autoseg.augmentation.counters import generator
from autoseg.augmentation.pipeline import Augmenter
from autoseg.augmentation.reference import Pinned
from planners.plan import Augmentation, Blur, Brightness, Contrast, Gamma, LowResolution, Mirror, Noise, Spatial

NONE = {"spatial": None, "noise": None, "blur": None, "brightness": None, "contrast": None, "low_resolution": None, "gamma": None}
FAMILIES = {
    "spatial": {"spatial": Spatial(rotation_probability=0.7, scaling_probability=0.7)},
    "in plane": {"spatial": Spatial(rotation_probability=0.7, scaling_probability=0.7, in_plane=True, rotation_degrees=(-180, 180))},
    "blur": {"blur": Blur(probability=1)},
    "brightness": {"brightness": Brightness(probability=1)},
    "contrast": {"contrast": Contrast(probability=1)},
    "low resolution": {"low_resolution": LowResolution(probability=1)},
    "low resolution in plane": {"low_resolution": LowResolution(probability=1, skip_first_axis=True)},
    "gamma": {"gamma": Gamma(probability=1, inverted_probability=0)},
    "inverted gamma": {"gamma": Gamma(probability=0, inverted_probability=1)},
    "all": {
        "spatial": Spatial(rotation_probability=0.5), "blur": Blur(probability=0.5), "brightness": Brightness(probability=0.5),
        "contrast": Contrast(probability=0.5), "gamma": Gamma(probability=0.5, inverted_probability=0.5),
    },
}  # fmt: skip


def sample(size, key):
    rng = generator("sample", key)
    labels = np.digitize(ndimage.gaussian_filter(rng.normal(size=(1, *size)), 1.5), (-0.15, 0.0, 0.15)) - 1
    return rng.normal(size=(2, *size)).astype(np.float32), labels.astype(np.int16)


@pytest.mark.parametrize("patch", [(17, 25, 21), (31, 27)])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_backends_agree(family, patch):
    """Odd sizes: on even ones the nearest neighbour can be two at once, which integers decide here and rounding in scikit-image."""
    spec = Augmentation(**{**NONE, **FAMILIES[family], "mirror": Mirror(axes=tuple(range(len(patch))))})
    own, theirs = (Augmenter(spec.model_copy(update={"backend": backend}), patch) for backend in ("fused", "batchgenerators"))
    changed = 0
    for key in range(8):
        draw = own.draw(generator(family, key), 2)
        data, labels = sample(draw.read_size, key)
        (image, mask), (expected_image, expected_mask) = own.apply(data, labels, draw), theirs.apply(data, labels, draw)
        np.testing.assert_allclose(image, expected_image, atol=2e-4)
        assert np.array_equal(mask, expected_mask)
        middle = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(draw.read_size, patch, strict=True))
        changed += not np.array_equal(np.sort(image, axis=None), np.sort(data[:, *middle], axis=None))
    assert changed >= 3, "the draws hardly did anything"


@pytest.mark.parametrize("in_plane", [False, True])
def test_both_backends_move_the_masks_of_a_previous_stage_as_labels(in_plane):
    spec = Augmentation(**{**NONE, "spatial": Spatial(rotation_probability=1, in_plane=in_plane), "mirror": Mirror(axes=(0, 1, 2))})
    own, theirs = (
        Augmenter(spec.model_copy(update={"backend": backend}), (17, 25, 21), classes=((1,), (2,)))
        for backend in ("fused", "batchgenerators")
    )
    draw = own.draw(generator("masks"), 2)
    data, labels = sample(draw.read_size, 0)
    _, previous = sample(draw.read_size, 1)
    image, mask = own.apply(data, np.concatenate([labels, previous]), draw)
    expected_image, expected_mask = theirs.apply(data, np.concatenate([labels, previous]), draw)
    assert image.shape == (4, 17, 25, 21)
    assert np.array_equal(image[2:], expected_image[2:])
    assert np.array_equal(mask, expected_mask)
    _, alone = Augmenter(spec, (17, 25, 21)).apply(data, previous, draw)
    assert np.array_equal(image[2:], np.stack([alone == 1, alone == 2]))


def test_noise_has_the_same_distribution():
    spec = Augmentation(**NONE, mirror=None).model_copy(update={"noise": Noise(probability=1, std=(0.05, 0.05))})
    zeros, labels = np.zeros((1, 20, 20, 20), np.float32), np.zeros((1, 20, 20, 20), np.int16)
    own, theirs = (
        Augmenter(spec.model_copy(update={"backend": backend}), (20, 20, 20))(zeros, labels, generator(0))[0].ravel()
        for backend in ("fused", "batchgenerators")
    )
    assert stats.ks_2samp(own, theirs).pvalue > 1e-3
    assert noise.apply(torch.zeros(1, 3), noise.NoiseParameters(0.0, 1)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("value", [0.7, 1.0, 1.3])
def test_a_pinned_range_yields_its_value(value):
    from batchgenerators.augmentations.color_augmentations import augment_gamma

    x = np.linspace(0, 1, 50)[None]
    for _ in range(5):
        found = augment_gamma(x.copy(), (Pinned(value), Pinned(value)), per_channel=True)
        np.testing.assert_allclose(found, x**value, atol=1e-5)
