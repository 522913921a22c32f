"""Every lesion counts the same: Voronoi regions, and the loss over them, against values worked out by hand."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as scipy_label
from scipy.spatial import cKDTree

from autoseg.training.losses import segmentation_loss, target_regions
from autoseg.training.losses.components import lesion_regions
from planners.labels import LabelScheme
from planners.plan import CCDiceCELoss, DiceCELoss

LESION = LabelScheme({"background": 0, "lesion": 1})
IGNORING = LabelScheme({"background": 0, "lesion": 1, "ignore": 2})
REGIONS = LabelScheme({"background": 0, "whole": (1, 2), "core": 2}, region_order=(1, 2))


def regions_of(labels, scheme=LESION, spacing=(1.0, 1.0)):
    return lesion_regions(np.array(labels), scheme, spacing)


class TestRegions:
    def test_each_voxel_belongs_to_the_nearest_lesion(self):
        assert regions_of([[1, 0, 0, 0, 0, 1, 1]]).tolist() == [[[1, 1, 1, 2, 2, 2, 2]]]

    def test_nearest_in_mm(self):
        # from (0, 2): the upper-left lesion is 2 voxels of 5 mm away, the lower one 3 voxels of 1 mm; or 2 of 1 mm and 3 of 5 mm
        labels = np.zeros((4, 3), dtype=int)
        labels[0, 0] = labels[3, 2] = 1
        assert regions_of(labels, spacing=(1.0, 5.0))[0, 0].tolist() == [1, 1, 2]
        assert regions_of(labels, spacing=(5.0, 1.0))[0, 0].tolist() == [1, 1, 1]

    def test_corners_touch(self):
        assert regions_of([[1, 0], [0, 1]]).max() == 1

    @pytest.mark.parametrize("labels", [np.zeros((3, 4)), np.ones((3, 4))])
    def test_at_most_one_lesion_has_everything(self, labels):
        assert (regions_of(labels) == 1).all()

    def test_classes_have_regions_of_their_own(self):
        found = regions_of([[1, 0, 0, 2, 0, 0, 1]], REGIONS)
        assert found[0].tolist() == [[1, 1, 2, 2, 2, 3, 3]]
        assert (found[1] == 1).all()

    @settings(deadline=None, max_examples=15)
    @given(seed=st.integers(0, 1000))
    def test_agrees_with_a_search_over_all_lesion_voxels(self, seed):
        mask = np.random.default_rng(seed).random((5, 7, 6)) < 0.04
        spacing = np.array([2.0, 1.0, 0.5])
        found = regions_of(mask.astype(int), spacing=spacing)[0]
        components, count = scipy_label(mask, np.ones((3, 3, 3)))
        if count < 2:
            assert (found == 1).all()
            return
        everywhere = np.indices(mask.shape).reshape(3, -1).T * spacing
        lesions = np.argwhere(mask) * spacing
        nearest = cKDTree(lesions).query(everywhere)[0]
        own = [cKDTree(lesions[components[mask] == number]).query(everywhere)[0] for number in range(1, count + 1)]
        numbers = {number: found[components == number][0] for number in range(1, count + 1)}
        assert len(set(numbers.values())) == count
        for number, distance in enumerate(own, start=1):
            np.testing.assert_allclose(distance[(found == numbers[number]).ravel()], nearest[(found == numbers[number]).ravel()])


def loss_of(spec, probability, target, scheme=LESION, regions=None):
    """Of one sample in one row; probabilities of the lesion."""
    p = torch.tensor(probability)
    logits = torch.stack((1 - p, p)).log()[None, :, None]
    target = torch.tensor(target)[None, None]
    beside = regions if regions is not None else target_regions(spec, scheme, (1.0, 1.0))(target[0].numpy())
    return segmentation_loss(spec, 1, scheme)(logits, (target, torch.as_tensor(beside)[None])).item()


class TestLoss:
    P, T = (
        [0.6, 0.2, 0.1, 0.3, 0.9, 0.5],
        [1, 0, 0, 0, 1, 1],
    )  # lesions at 0 and at 4-5
    SPLIT = np.array([[[1, 1, 1, 2, 2, 2]]])

    def test_by_hand(self):
        spec = CCDiceCELoss(smooth=0)
        right = np.array([0.6, 0.8, 0.9, 0.7, 0.9, 0.5])  # p of the true class
        dice = [2 * 0.6 / (0.9 + 1), 2 * 1.4 / (1.7 + 2)]
        expected = sum(-np.log(right[part]).mean() - d for part, d in zip((slice(0, 3), slice(3, 6)), dice, strict=True)) / 2
        whole = -np.log(right).mean() - 2 * 2.0 / (2.6 + 3)
        assert loss_of(spec, self.P, self.T, regions=self.SPLIT) == pytest.approx(whole + expected, abs=1e-6)
        weighted = CCDiceCELoss(smooth=0, component_weight=0.25)
        assert loss_of(weighted, self.P, self.T, regions=self.SPLIT) == pytest.approx(whole + 0.25 * expected, abs=1e-6)

    def test_the_terms_weights_go_for_the_lesions_too(self):
        dice = (2 * 0.6 / 1.9 + 2 * 1.4 / 3.7) / 2
        spec = CCDiceCELoss(smooth=0, ce_weight=0, dice_weight=3)
        assert loss_of(spec, self.P, self.T, regions=self.SPLIT) == pytest.approx(-3 * (2 * 2.0 / 5.6 + dice), abs=1e-6)

    def test_voxels_of_which_nothing_is_known_do_not_count(self):
        known = loss_of(CCDiceCELoss(), self.P, self.T, regions=self.SPLIT)
        p, t, split = [*self.P, 0.7, 0.4], [*self.T, 2, 2], np.array([[[1, 1, 1, 2, 2, 2, 2, 3]]])
        assert loss_of(CCDiceCELoss(), p, t, IGNORING, split) == pytest.approx(known, abs=1e-6)

    def test_one_lesion_is_dice_and_cross_entropy_twice(self):
        once = loss_of(CCDiceCELoss(component_weight=0), [0.2, 0.6], [0, 1])
        assert loss_of(CCDiceCELoss(), [0.2, 0.6], [0, 1]) == pytest.approx(2 * once, abs=1e-6)

    def test_a_missed_small_lesion_weighs_more_than_in_the_dice(self):
        target = [1] + [0] * 9 + [1] * 10
        missed = [0.01] * 10 + [0.99] * 10
        found = [0.99] + missed[1:]
        plain, by_lesion = (
            loss_of(CCDiceCELoss(ce_weight=0, component_weight=weight), missed, target)
            - loss_of(CCDiceCELoss(ce_weight=0, component_weight=weight), found, target)
            for weight in (0, 1)
        )
        assert by_lesion - plain > 5 * plain

    def test_regions_and_samples_are_averaged(self):
        generator = torch.Generator().manual_seed(1)
        logits, target = torch.randn(2, 2, 6, 7, generator=generator), torch.randint(0, 3, (2, 6, 7), generator=generator)
        beside = torch.from_numpy(np.stack([regions_of(sample, REGIONS) for sample in target.numpy()]))
        loss = segmentation_loss(CCDiceCELoss(), 1, REGIONS)
        each = [loss(logits[i : i + 1], (target[i : i + 1], beside[i : i + 1])) for i in (0, 1)]
        torch.testing.assert_close(loss(logits, (target, beside)), torch.stack(each).mean())
        assert not loss.couples_samples

    def test_only_the_full_resolution_sees_lesions(self):
        generator = torch.Generator().manual_seed(1)
        outputs = [torch.randn(1, 2, size, size, generator=generator) for size in (8, 4, 2)]
        target = torch.randint(0, 2, (1, 8, 8), generator=generator)
        beside = torch.from_numpy(regions_of(target[0].numpy()))[None]
        plain = segmentation_loss(DiceCELoss(), 1, LESION)
        whole = segmentation_loss(CCDiceCELoss(), 1, LESION)(outputs[0], (target, beside))
        expected = 2 / 3 * whole + 1 / 3 * plain(outputs[1], target[:, 1::2, 1::2])
        torch.testing.assert_close(segmentation_loss(CCDiceCELoss(), 3, LESION)(outputs, (target, beside)), expected)

    @pytest.mark.parametrize(("scheme", "fill"), [(LESION, 0), (IGNORING, 0), (IGNORING, 2), (REGIONS, 0)])
    @pytest.mark.parametrize("logit", [0.0, 40.0, -200.0])
    def test_degenerate_targets_have_finite_gradients(self, scheme, fill, logit):
        logits = torch.stack((torch.full((2, 4, 4), -logit), torch.full((2, 4, 4), logit)), 1).requires_grad_()
        target = torch.full((2, 4, 4), fill)
        beside = torch.from_numpy(np.stack([regions_of(sample, scheme) for sample in target.numpy()]))
        value = segmentation_loss(CCDiceCELoss(), 1, scheme)(logits, (target, beside))
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()
        assert fill == 0 or not logits.grad.any()


def test_worker_processes_can_take_it_and_other_losses_need_nothing():
    function = target_regions(CCDiceCELoss(), LESION, (1.0, 1.0))
    labels = np.array([[1, 0, 0, 0, 1]])
    assert (pickle.loads(pickle.dumps(function))(labels) == function(labels)).all()
    assert target_regions(DiceCELoss(), LESION, (1.0, 1.0)) is None
