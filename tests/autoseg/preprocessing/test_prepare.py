"""A whole case: the order of the steps, what the properties tell, and the odd cases."""

import itertools

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from skimage.transform import resize

from autoseg.errors import DatasetError, GeometryError
from autoseg.preprocessing.prepare import CaseProperties, prepare
from planners.plan import CTNormalisation, NoNormalisation, ZScoreNormalisation

BOX = (slice(2, 7), slice(3, 9), slice(1, 8))


def test_crop_and_labels_without_resampling(image_of, plan_of, body):
    image, mask = body
    done = prepare([image_of(image)], image_of(mask), plan_of(), "c")
    np.testing.assert_array_equal(done.data[0], image[BOX])
    np.testing.assert_array_equal(done.labels, mask[BOX])
    assert done.data.dtype == np.float32
    assert done.labels.dtype == np.int8
    assert done.properties.labels == (1, 2)
    assert done.properties.crop_box == ((2, 7), (3, 9), (1, 8))


def test_steps_in_order_beside_skimage(image_of, plan_of, body):
    image, mask = body
    scheme = ZScoreNormalisation()
    done = prepare([image_of(image, (1.0, 1.5, 2.0))], image_of(mask, (1.0, 1.5, 2.0)), plan_of((1.0, 1.0, 1.5), (scheme,)), "c")
    cropped = image[BOX].astype(float)
    shape = (5, 9, 9)
    np.testing.assert_allclose(
        done.data[0], resize((cropped - cropped.mean()) / cropped.std(), shape, 3, mode="edge", anti_aliasing=False), atol=1e-5
    )
    np.testing.assert_array_equal(done.labels, resize_segmentation(mask[BOX].astype(int), shape, 1))
    assert done.properties.shape_after_resampling == shape
    assert done.properties.shape_after_crop == (5, 6, 7)


def test_background_outside_the_filled_region_is_minus_1(image_of, plan_of, body):
    image, mask = body
    image[2, 3, 1] = 0
    image[4, 6, 4] = 0
    mask[4, 6, 4] = 0
    second = np.zeros_like(image)
    scheme = ZScoreNormalisation(masked=True)
    done = prepare([image_of(image), image_of(second)], image_of(mask), plan_of(normalisation=(scheme, scheme)), "c")
    assert done.labels[0, 0, 0] == -1, "a corner is outside"
    assert done.labels[2, 3, 3] == 0, "a hole is inside"
    assert (done.labels == -1).sum() == 1
    inside = image[BOX].astype(float)
    values = np.delete(inside.ravel(), 0)
    np.testing.assert_allclose(done.data[0].ravel()[1:], (values - values.mean()) / values.std(), atol=1e-5)
    assert done.data[0, 0, 0, 0] == 0


def test_a_label_where_the_image_is_0_stays(image_of, plan_of, body):
    image, mask = body
    image[2, 3, 1], mask[2, 3, 1] = 0, 2
    assert prepare([image_of(image)], image_of(mask), plan_of(), "c").labels[0, 0, 0] == 2


def test_masked_zscore_without_a_mask_file_is_the_same(image_of, plan_of, body):
    image, mask = body
    image[2, 3, 1] = 0
    plan = plan_of(normalisation=(ZScoreNormalisation(masked=True),))
    training, prediction = prepare([image_of(image)], image_of(mask), plan, "c"), prepare([image_of(image)], None, plan, "c")
    np.testing.assert_array_equal(training.data, prediction.data)
    assert prediction.labels is None


def test_transpose_goes_before_everything(image_of, plan_of, body):
    image, mask = body
    spacing = (1.0, 2.0, 3.0)
    plan = plan_of((2.0, 2.0, 2.0), transpose=(2, 0, 1))
    turned = plan_of((2.0, 2.0, 2.0))
    done = prepare([image_of(image, spacing)], image_of(mask, spacing), plan, "c")
    expected = prepare(
        [image_of(image.transpose(2, 0, 1), (3.0, 1.0, 2.0))], image_of(mask.transpose(2, 0, 1), (3.0, 1.0, 2.0)), turned, "c"
    )
    np.testing.assert_array_equal(done.data, expected.data)
    np.testing.assert_array_equal(done.labels, expected.labels)
    assert done.properties.spacing == (3.0, 1.0, 2.0)


@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_canonical_does_not_depend_on_how_the_image_is_stored(image_of, plan_of, body, flips, order):
    image, mask = body
    spacing = (1.0, 1.5, 2.0)
    plan = plan_of((1.0, 1.0, 1.0))
    expected = prepare([image_of(image, spacing)], image_of(mask, spacing), plan, "c")
    flipped = [axis for axis in range(3) if flips[axis]]
    stored = [np.flip(array.transpose(order), flipped) for array in (image, mask)]
    direction = np.zeros((3, 3))
    for axis in range(3):
        # Array axis 0 is z, the third column; it runs along world axis 2 - order[axis].
        direction[2 - order[axis], 2 - axis] = -1 if flips[axis] else 1
    other = tuple(spacing[axis] for axis in order)
    done = prepare([image_of(stored[0], other, direction.ravel())], image_of(stored[1], other, direction.ravel()), plan, "c")
    np.testing.assert_array_equal(done.data, expected.data)
    np.testing.assert_array_equal(done.labels, expected.labels)
    assert done.properties.spacing == expected.properties.spacing


def test_as_stored_leaves_the_orientation(image_of, plan_of, body):
    image, _ = body
    done = prepare([image_of(image, direction=(-1, 0, 0, 0, -1, 0, 0, 0, -1))], None, plan_of(orientation="as_stored"), "c")
    np.testing.assert_array_equal(done.data[0], image[BOX])


def test_2d_leaves_the_slices(image_of, plan_of, body):
    image, mask = body
    done = prepare([image_of(image, (5.0, 1.0, 1.0))], image_of(mask, (5.0, 1.0, 1.0)), plan_of((0.5, 0.7)), "c")
    assert done.data.shape == (1, 5, 12, 10)
    assert done.properties.new_spacing == (5.0, 0.5, 0.7)
    plane = resize(image[BOX][2].astype(float), (12, 10), 3, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(done.data[0, 2], plane, atol=1e-4)


def test_a_single_slice(image_of, plan_of):
    image = np.random.default_rng(0).uniform(1, 2, (1, 12, 9))
    assert prepare([image_of(image)], None, plan_of((0.5, 0.5)), "c").data.shape == (1, 1, 24, 18)


def test_all_air_is_valid_and_noted(image_of, plan_of):
    air = np.zeros((4, 5, 6), np.int16)
    plan = plan_of(normalisation=(ZScoreNormalisation(masked=True), CTNormalisation(lower=0, upper=1, mean=0.5, std=0.1)))
    done = prepare([image_of(air), image_of(air)], image_of(air), plan, "c")
    assert done.data.shape == (2, 4, 5, 6)
    assert np.isfinite(done.data).all()
    assert done.properties.notes == ("channel 'c0' is 0 everywhere", "channel 'c1' is 0 everywhere")
    assert (done.labels == -1).all()


def test_a_constant_image_is_finite_and_noted(image_of, plan_of):
    done = prepare([image_of(np.full((4, 5, 6), -1024, np.int16))], None, plan_of((0.7, 0.7, 0.7), (ZScoreNormalisation(),)), "c")
    assert not done.data.any()
    assert done.properties.notes == ("channel 'c0' is constant everywhere",)


def test_large_labels_get_more_bits(image_of, plan_of, body):
    image, mask = body
    done = prepare([image_of(image)], image_of(mask.astype(np.int32) * 200), plan_of(), "c")
    assert done.labels.dtype == np.int16
    assert done.properties.labels == (200, 400)


def test_inputs_are_left_as_they_are(image_of, plan_of, body):
    image, mask = body
    before = image.copy(), mask.copy()
    prepare([image_of(image)], image_of(mask), plan_of((0.5, 1, 1), (CTNormalisation(lower=0, upper=1, mean=0, std=1),)), "c")
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_properties_survive_json_and_lead_back(image_of, plan_of, body):
    image, mask = body
    stored = image_of(image, (1.0, 2.0, 3.0), (0, 0, 1, -1, 0, 0, 0, 1, 0))
    plan = plan_of((2.0, 3.0, 1.0), (NoNormalisation(),), transpose=(1, 2, 0), orientation="as_stored")
    done = prepare([stored], image_of(mask), plan, "c")
    told = CaseProperties.model_validate_json(done.properties.model_dump_json())
    assert told == done.properties
    assert told.image_geometry() == stored.geometry
    whole = np.zeros(told.shape_before_crop, done.labels.dtype)
    whole[told.crop_slices()] = done.labels
    np.testing.assert_array_equal(whole.transpose(np.argsort(told.transpose)), mask)


def test_the_plans_channels_are_asked_for(image_of, plan_of, body):
    with pytest.raises(DatasetError, match="the plan is for 1 channels, found 2"):
        prepare([image_of(body[0]), image_of(body[0])], None, plan_of(), "c")


def test_another_shape_is_told_with_both_files(image_of, plan_of, body):
    other = image_of(body[1][:-1], path="mask.nii.gz")
    with pytest.raises(GeometryError, match=r"mask.nii.gz has shape \(8, 10, 11\).*image.nii.gz has \(9, 10, 11\)"):
        prepare([image_of(body[0])], other, plan_of(), "c")
