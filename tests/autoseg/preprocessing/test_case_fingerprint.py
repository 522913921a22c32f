"""What one case tells planning, beside plain numpy and scipy."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.preprocessing import case_fingerprint as module
from autoseg.preprocessing.case_fingerprint import fingerprint_images, label_voxels, lesion_volumes
from planners.fingerprint import LEVELS, CaseFingerprint

CASE = SimpleNamespace(name="a", patient="p", centre="c")
BOX = (slice(2, 7), slice(3, 9), slice(1, 8))


def test_numbers_of_a_small_case(image_of, body):
    image, mask = body
    mask[0, 0, 0] = 2
    second = image * 2 + 1
    second[image == 0] = 0
    spacing = (2.0, 1.0, 0.5)
    found = fingerprint_images(
        CASE, [image_of(image, spacing), image_of(second, spacing)], image_of(mask, spacing), "as_stored", (0, 1, 2, 3)
    )
    assert (found.case, found.patient, found.centre) == ("a", "p", "c")
    assert found.spacing == spacing
    assert found.shape == (9, 10, 11)
    assert found.shape_after_crop == (5, 6, 7)
    assert found.relative_size == pytest.approx(5 * 6 * 7 / (9 * 10 * 11))
    assert found.orientation == "LPS"
    labelled = image[BOX][mask[BOX] > 0].astype(float)
    assert found.foreground[0].count == 13
    assert found.foreground[0].mean == pytest.approx(labelled.mean())
    assert found.foreground[1].mean == pytest.approx(labelled.mean() * 2 + 1)
    np.testing.assert_allclose(found.foreground[0].quantiles, np.quantile(labelled, LEVELS), rtol=1e-6)
    assert found.body[0].count == 5 * 6 * 7
    assert found.body[0].mean == pytest.approx(image[BOX].astype(float).mean())
    assert found.label_voxels == {1: 12, 2: 2, 3: 0}
    assert found.lesions == {1: (12.0,), 2: (1.0, 1.0)}
    assert CaseFingerprint.from_dict(found.to_dict()) == found


def test_what_is_ignored_is_no_foreground(image_of, body):
    image, mask = body
    known = fingerprint_images(CASE, [image_of(image)], image_of(mask), "as_stored", (0, 1))
    marked = mask.copy()
    marked[(mask == 0) & (np.indices(mask.shape)[0] > 3)] = 5
    found = fingerprint_images(CASE, [image_of(image)], image_of(marked), "as_stored", (0, 1, 5), ignore=5)
    assert found == known
    assert found != fingerprint_images(CASE, [image_of(image)], image_of(marked), "as_stored", (0, 1, 5))


def test_body_leaves_out_what_is_outside_the_filled_region(image_of, body):
    image, mask = body
    image[2, 3, 1] = 0
    image[4, 6, 4] = 0
    found = fingerprint_images(CASE, [image_of(image)], image_of(mask), "as_stored")
    assert found.body[0].count == 5 * 6 * 7 - 1
    assert found.body[0].minimum == 0, "a hole is inside"


def test_empty_mask_no_mask_and_air(image_of, body):
    image, mask = body
    for empty in (image_of(np.zeros_like(mask)), None):
        found = fingerprint_images(CASE, [image_of(image)], empty, "as_stored", (0, 1))
        assert found.foreground == (None,)
        assert found.label_voxels == {1: 0}
        assert found.lesions == {}
    air = fingerprint_images(CASE, [image_of(np.zeros_like(image))], image_of(np.zeros_like(mask)), "as_stored")
    assert air.body == (None,)
    assert air.relative_size == 1


def test_canonical_turns_shape_and_spacing_and_keeps_the_stored_code(image_of, body):
    image, mask = body
    spacing = (1.0, 2.0, 3.0)
    base = fingerprint_images(CASE, [image_of(image, spacing)], image_of(mask, spacing), "canonical")
    # Stored with x and z exchanged: the first index runs along S, the third along L.
    direction = (0, 0, 1, 0, 1, 0, 1, 0, 0)
    turned = fingerprint_images(
        CASE,
        [image_of(image.transpose(2, 1, 0), (3.0, 2.0, 1.0), direction)],
        image_of(mask.transpose(2, 1, 0), (3.0, 2.0, 1.0), direction),
        "canonical",
    )
    assert turned.orientation == "SPL"
    assert (turned.spacing, turned.shape, turned.foreground, turned.lesions) == (base.spacing, base.shape, base.foreground, base.lesions)


def test_a_large_body_is_thinned_with_exact_ends(image_of, monkeypatch):
    image = np.random.default_rng(0).uniform(5, 10, (20, 30, 40)).astype(np.float32)
    image[3, 3, 3], image[4, 4, 6] = 1, 99
    full = fingerprint_images(CASE, [image_of(image)], None, "as_stored").body[0]
    monkeypatch.setattr(module, "SKETCHED", 5000)
    thinned = fingerprint_images(CASE, [image_of(image)], None, "as_stored").body[0]
    assert (thinned.count, thinned.minimum, thinned.maximum) == (24000, 1, 99)
    assert (thinned.quantiles[0], thinned.quantiles[-1]) == (1, 99)
    np.testing.assert_allclose(thinned.quantiles[1:-1], full.quantiles[1:-1], atol=0.15)


@given(seed=st.integers(0, 9999), share=st.sampled_from([0.05, 0.2, 0.4]))
@settings(deadline=None, max_examples=40)
def test_lesions_are_scipys_components(seed, share):
    rng = np.random.default_rng(seed)
    mask = (rng.integers(1, 4, (9, 8, 7)) * (rng.random((9, 8, 7)) < share)).astype(np.int16)
    expected = {}
    for label in np.unique(mask[mask > 0]).tolist():
        components, _ = ndimage.label(mask == label, np.ones((3, 3, 3)))
        expected[label] = tuple(sorted((np.bincount(components.ravel())[1:] * 0.5).tolist(), reverse=True))
    assert lesion_volumes(mask, 0.5) == expected
    assert label_voxels(mask) == {label: int((mask == label).sum()) for label in expected}
