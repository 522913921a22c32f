from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.augmentation import pipeline
from autoseg.augmentation.counters import generator
from autoseg.augmentation.draw import Draw
from autoseg.augmentation.pipeline import Augmenter
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

NOTHING = Augmentation(spatial=None, noise=None, blur=None, brightness=None, contrast=None, low_resolution=None, gamma=None, mirror=None)
EVERYTHING = Augmentation(
    spatial=Spatial(rotation_probability=0.6, scaling_probability=0.6),
    noise=Noise(probability=0.5),
    blur=Blur(probability=0.5),
    brightness=Brightness(probability=0.5),
    contrast=Contrast(probability=0.5),
    low_resolution=LowResolution(probability=0.5),
    gamma=Gamma(probability=0.5, inverted_probability=0.5),
)
PATCH = (24, 40, 36)


def sample(size, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 3, (1, *(-(-n // 5) for n in size))).astype(np.int16)
    for axis in range(1, labels.ndim):
        labels = np.repeat(labels, 5, axis)
    return rng.normal(size=(channels, *size)).astype(np.float32), labels[(slice(None), *(slice(n) for n in size))].copy()


def augmented(augmenter, key, channels=2):
    draw = augmenter.draw(generator(key), channels)
    return augmenter.apply(*sample(draw.read_size, channels), draw)


def test_without_transforms_the_patch_comes_back_and_minus_one_becomes_background():
    augmenter = Augmenter(NOTHING, PATCH)
    assert augmenter.read_size == PATCH
    data, labels = sample(PATCH)
    before = data.copy(), labels.copy()
    image, mask = augmenter(data, labels, generator(0))
    assert np.array_equal(image, data)
    assert np.array_equal(mask, np.where(labels[0] == -1, 0, labels[0]))
    assert (image.dtype, mask.dtype, mask.shape) == (np.float32, np.int16, PATCH)
    image += 1
    mask += 1
    assert np.array_equal(data, before[0])
    assert np.array_equal(labels, before[1])


@pytest.mark.parametrize("writeable", [True, False])
def test_inputs_stay_as_they_are(writeable):
    augmenter = Augmenter(EVERYTHING, PATCH)
    for key in range(12):
        draw = augmenter.draw(generator(key), 2)
        data, labels = sample(draw.read_size)
        before = data.copy(), labels.copy()
        data.flags.writeable = labels.flags.writeable = writeable
        augmenter.apply(data, labels, draw)
        assert np.array_equal(data, before[0])
        assert np.array_equal(labels, before[1])


def test_the_same_key_gives_the_same_bits_with_any_number_of_threads_and_any_global_state():
    augmenter = Augmenter(EVERYTHING, PATCH)
    threads = torch.get_num_threads()
    expected = [augmented(augmenter, key) for key in range(10)]
    assert len({image.tobytes() for image, _ in expected}) == 10
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            torch.manual_seed(count)
            np.random.seed(count)
            for key in reversed(range(10)):
                image, mask = augmented(augmenter, key)
                assert np.array_equal(image, expected[key][0])
                assert np.array_equal(mask, expected[key][1])
    finally:
        torch.set_num_threads(threads)


def test_global_generators_are_left_alone():
    for backend in ("fused", "batchgenerators"):
        augmenter = Augmenter(EVERYTHING.model_copy(update={"backend": backend}), (8, 10, 12))
        states = np.random.get_state()[1].copy(), torch.get_rng_state()
        for key in range(4):
            augmented(augmenter, key)
        assert np.array_equal(np.random.get_state()[1], states[0])
        assert torch.equal(torch.get_rng_state(), states[1])


def test_torch_in_torch_out():
    augmenter = Augmenter(EVERYTHING, PATCH)
    draw = augmenter.draw(generator(3), 2)
    data, labels = sample(draw.read_size)
    image, mask = augmenter.apply(torch.from_numpy(data), torch.from_numpy(labels), draw)
    expected = augmenter.apply(data, labels, draw)
    assert np.array_equal(image.numpy(), expected[0])
    assert np.array_equal(mask.numpy(), expected[1])


@pytest.mark.parametrize("patch", [PATCH, (40, 36)])
@pytest.mark.parametrize("in_plane", [False, True])
def test_shapes_label_sets_and_finite_values(patch, in_plane):
    spatial = Spatial(rotation_probability=0.6, scaling_probability=0.6, in_plane=in_plane, rotation_degrees=(-180, 180))
    spec = EVERYTHING.model_copy(update={"spatial": spatial, "mirror": Mirror(axes=tuple(range(len(patch))))})
    augmenter = Augmenter(spec, patch)
    for key in range(15):
        image, mask = augmented(augmenter, key)
        assert image.shape == (2, *patch)
        assert mask.shape == patch
        assert np.isfinite(image).all()
        assert set(np.unique(mask)) <= {0, 1, 2}


def test_a_larger_crop_gives_the_same_patch():
    augmenter = Augmenter(EVERYTHING, PATCH)
    data, labels = sample(augmenter.read_size)
    for key in range(8):
        draw = augmenter.draw(generator(key), 2)
        middle = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(augmenter.read_size, draw.read_size, strict=True))
        whole = augmenter(data, labels, generator(key))
        tight = augmenter.apply(data[:, *middle], labels[:, *middle], draw)
        assert np.array_equal(whole[0], tight[0])
        assert np.array_equal(whole[1], tight[1])


def test_masked_channels_are_zero_outside_after_everything():
    spec = EVERYTHING.model_copy(update={"zero_outside_mask": (1,), "spatial": None, "mirror": None})
    plain = EVERYTHING.model_copy(update={"spatial": None, "mirror": None})
    data, labels = sample(PATCH)
    outside = labels[0] == -1
    for key in range(6):
        masked, _ = Augmenter(spec, PATCH)(data, labels, generator(key))
        also, _ = Augmenter(plain, PATCH, masked_channels=(1,))(data, labels, generator(key))
        free, _ = Augmenter(plain, PATCH)(data, labels, generator(key))
        assert np.array_equal(masked, also)
        assert (masked[1][outside] == 0).all()
        assert np.array_equal(masked[1][~outside], free[1][~outside])
        assert np.array_equal(masked[0], free[0])


def test_image_and_labels_are_mirrored_together():
    data, labels = sample(PATCH, channels=1)
    image, mask = Augmenter(NOTHING.model_copy(update={"mirror": Mirror(probability=1.0, axes=(0, 2))}), PATCH)(data, labels, generator(0))
    assert np.array_equal(image, data[:, ::-1, :, ::-1])
    assert np.array_equal(mask, np.maximum(labels[0], 0)[::-1, :, ::-1])


def test_the_transforms_run_in_the_plans_order(monkeypatch):
    calls = []

    def recorded(real, label):
        def record(*arguments):
            calls.append(label + (" inverted" if getattr(arguments[1], "inverted", False) else ""))
            return real(*arguments)

        return record

    for family, name in [
        ("spatial", "apply"), ("noise", "apply"), ("blur", "apply"), ("intensity", "apply_brightness"), ("intensity", "apply_contrast"),
        ("low_resolution", "apply"), ("gamma", "apply"), ("mirror", "apply"),
    ]:  # fmt: skip
        module = getattr(pipeline, family)
        monkeypatch.setattr(module, name, recorded(getattr(module, name), f"{family}.{name}"))
    always = {"probability": 1.0}
    spec = Augmentation(
        spatial=Spatial(rotation_probability=1), noise=Noise(**always), blur=Blur(**always), brightness=Brightness(**always),
        contrast=Contrast(**always), low_resolution=LowResolution(**always), gamma=Gamma(probability=1, inverted_probability=1),
        mirror=Mirror(**always),
    )  # fmt: skip
    augmented(Augmenter(spec, (8, 8, 8)), 0)
    assert calls == [
        "spatial.apply", "noise.apply", "blur.apply", "intensity.apply_brightness", "intensity.apply_contrast", "low_resolution.apply",
        "gamma.apply inverted", "gamma.apply", "mirror.apply", "mirror.apply",
    ]  # fmt: skip


def test_a_draw_is_a_value():
    augmenter = Augmenter(EVERYTHING, PATCH)
    assert augmenter.draw(generator(1, 2), 2) == augmenter.draw(generator(1, 2), 2)
    assert augmenter.draw(generator(1, 2), 2) != augmenter.draw(generator(1, 3), 2)
    assert all(
        m >= n and (m - n) % 2 == 0 for key in range(50) for n, m in zip(PATCH, augmenter.draw(generator(key), 2).read_size, strict=True)
    )


def test_what_does_not_fit_is_refused():
    augmenter = Augmenter(NOTHING, PATCH)
    data, labels = sample(PATCH)
    with pytest.raises(ValueError, match="labels must have shape"):
        augmenter.apply(data, labels[:, 1:], Draw(PATCH))
    with pytest.raises(ValueError, match="needs a crop"):
        augmenter.apply(data[:, 1:], labels[:, 1:], Draw(PATCH))
    with pytest.raises(ValueError, match="needs a crop"):
        augmenter.apply(data[:, 0], labels[:, 0], Draw(PATCH))
    with pytest.raises(ValueError, match="two or three axes"):
        Augmenter(NOTHING, (4,))


@pytest.mark.parametrize(
    "masks",
    [
        PreviousStageMasks(morphology=MaskMorphology(probability=1, class_probability=1), components=None),
        PreviousStageMasks(morphology=None, components=MaskComponents(probability=1, class_probability=1)),
    ],
)
def test_masks_of_a_previous_stage_leave_images_and_labels_and_their_draws_as_they_were(masks):
    plain, second = (
        Augmenter(EVERYTHING, PATCH),
        Augmenter(EVERYTHING.model_copy(update={"previous_stage": masks}), PATCH, classes=((1,), (2,))),
    )
    changed = 0
    for key in range(3):
        without, draw = plain.draw(generator(key), 2), second.draw(generator(key), 2)
        assert without == replace(draw, morphology=None, components=None)
        data, labels = sample(draw.read_size)
        _, previous = sample(draw.read_size, seed=1)
        expected, mask = plain.apply(data, labels, without)
        image, found = second.apply(data, np.concatenate([labels, previous]), draw)
        assert np.array_equal(image[:2], expected)
        assert np.array_equal(found, mask)
        assert set(np.unique(image[2:])) <= {0, 1}
        _, moved = plain.apply(data, previous, without)
        changed += not np.array_equal(image[2:], np.stack([moved == 1, moved == 2]))
    assert changed == 3


def test_masks_of_a_previous_stage_without_augmentation_are_a_channel_for_each_class():
    augmenter = Augmenter(NOTHING, PATCH, classes=((1,), (1, 2)))
    data, labels = sample(PATCH)
    _, previous = sample(PATCH, seed=1)
    image, mask = augmenter(data, np.concatenate([labels, previous]), generator(0))
    assert np.array_equal(image, np.concatenate([data, previous == 1, (previous == 1) | (previous == 2)]))
    assert np.array_equal(mask, np.where(labels[0] == -1, 0, labels[0]))
    with pytest.raises(ValueError, match="labels must have shape"):
        augmenter.apply(data, labels, Draw(PATCH))
