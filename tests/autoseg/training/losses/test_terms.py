"""Each loss against values worked out by hand, on labels, on regions, and where nothing is known."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.training.losses import segmentation_loss
from autoseg.training.losses.overlap import soft_dice, tversky
from autoseg.training.losses.truth import encode
from planners.labels import LabelScheme
from planners.plan import DiceCELoss, DiceFocalLoss, DiceTopKLoss, TverskyCELoss

TUMOUR = LabelScheme({"background": 0, "tumour": 1})
IGNORING = LabelScheme({"background": 0, "tumour": 1, "ignore": 2})
REGIONS = LabelScheme({"background": 0, "whole": (1, 2), "core": 2}, region_order=(1, 2))
REGIONS_IGNORING = LabelScheme({"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}, region_order=(1, 2))
EVERY_LOSS = [
    DiceCELoss(),
    DiceCELoss(batch_dice=True, smooth=0),
    DiceFocalLoss(),
    DiceFocalLoss(gamma=0.5),
    DiceTopKLoss(),
    TverskyCELoss(),
    TverskyCELoss(exponent=0.5, batch_dice=True),
]
S = 1e-5  # the smooth of every loss here


def labels_loss(spec, probability, target, scheme=TUMOUR):
    """Of one sample with these probabilities of the tumour, voxel by voxel."""
    p = torch.tensor(probability)
    logits = torch.stack((1 - p, p)).log()[None, :, None]
    return segmentation_loss(spec, 1, scheme)(logits, torch.tensor(target)[None, None]).item()


def regions_loss(spec, whole, core, target, scheme=REGIONS):
    logits = torch.tensor([whole, core]).logit()[None, :, None]
    return segmentation_loss(spec, 1, scheme)(logits, torch.tensor(target)[None, None]).item()


class TestVoxelwise:
    def test_focal(self):
        # p of the true class: 0.8, 0.6; (1 - p)^2 log p
        expected = -(0.2**2 * math.log(0.8) + 0.4**2 * math.log(0.6)) / 2
        assert labels_loss(DiceFocalLoss(dice_weight=0), [0.2, 0.6], [0, 1]) == pytest.approx(expected, abs=1e-6)

    def test_focal_of_exponent_zero_is_the_cross_entropy(self):
        expected = labels_loss(DiceCELoss(dice_weight=0), [0.2, 0.6, 0.9], [0, 1, 0])
        assert labels_loss(DiceFocalLoss(dice_weight=0, gamma=0), [0.2, 0.6, 0.9], [0, 1, 0]) == pytest.approx(expected, abs=1e-6)

    def test_top_k_takes_the_worst_voxels_of_the_batch(self):
        # p of the true class: 0.8 0.6 0.1 0.9 0.7; 40 % of five voxels are two
        spec = DiceTopKLoss(dice_weight=0, percent=40)
        expected = -(math.log(0.1) + math.log(0.6)) / 2
        assert labels_loss(spec, [0.2, 0.6, 0.9, 0.1, 0.7], [0, 1, 0, 0, 1]) == pytest.approx(expected, abs=1e-6)

    def test_top_k_takes_at_least_one_voxel(self):
        assert labels_loss(DiceTopKLoss(dice_weight=0), [0.2, 0.6], [0, 1]) == pytest.approx(-math.log(0.6), abs=1e-6)

    def test_top_k_counts_known_voxels_only(self):
        # four known voxels, half of them: 0.6 and 0.7; the ignored one fits worst
        spec = DiceTopKLoss(dice_weight=0, percent=50)
        expected = -(math.log(0.6) + math.log(0.7)) / 2
        assert labels_loss(spec, [0.2, 0.6, 0.99, 0.1, 0.7], [0, 1, 2, 0, 1], IGNORING) == pytest.approx(expected, abs=1e-6)

    def test_cross_entropy_of_regions_is_binary_and_the_mean_over_outputs(self):
        # voxels of value 0, 1, 2: whole is off, on, on; core is off, off, on
        expected = -sum(math.log(p) for p in (0.8, 0.6, 0.7, 0.9, 0.5, 0.4)) / 6
        found = regions_loss(DiceCELoss(dice_weight=0), [0.2, 0.6, 0.7], [0.1, 0.5, 0.4], [0, 1, 2])
        assert found == pytest.approx(expected, abs=1e-6)

    def test_focal_of_regions(self):
        expected = -sum((1 - p) ** 2 * math.log(p) for p in (0.8, 0.6, 0.9, 0.5)) / 4
        found = regions_loss(DiceFocalLoss(dice_weight=0), [0.2, 0.6], [0.1, 0.5], [0, 1])
        assert found == pytest.approx(expected, abs=1e-6)

    def test_top_k_of_regions_ranks_voxels_by_their_mean(self):
        # means of -log p: voxel 0 of (0.8, 0.9), voxel 1 of (0.6, 0.5)
        found = regions_loss(DiceTopKLoss(dice_weight=0, percent=50), [0.2, 0.6], [0.1, 0.5], [0, 1])
        assert found == pytest.approx(-(math.log(0.6) + math.log(0.5)) / 2, abs=1e-6)

    @pytest.mark.parametrize("scheme", [IGNORING, REGIONS_IGNORING])
    def test_cross_entropy_is_the_mean_of_the_known_voxels_alone(self, scheme):
        generator = torch.Generator().manual_seed(5)
        logits = torch.randn(2, 2, 3, 4, generator=generator)
        target = torch.randint(0, 2, (2, 3, 4), generator=generator)
        hidden = torch.rand(2, 3, 4, generator=generator) < 0.4
        found = segmentation_loss(DiceCELoss(dice_weight=0), 1, scheme)(logits, torch.where(hidden, scheme.ignore, target))
        rows = logits.movedim(1, -1)[~hidden]
        if scheme.has_regions:
            expected = F.binary_cross_entropy_with_logits(rows, torch.stack((target > 0, target > 1), -1)[~hidden].float())
        else:
            expected = F.cross_entropy(rows, target[~hidden])
        torch.testing.assert_close(found, expected)


class TestOverlap:
    def test_dice_of_regions_counts_every_output(self):
        # whole: truth 0 1 1, p 0.2 0.6 0.7; core: truth 0 0 1, p 0.1 0.5 0.4
        whole, core = (2 * 1.3 + S) / (1.5 + 2 + S), (2 * 0.4 + S) / (1.0 + 1 + S)
        found = regions_loss(DiceCELoss(ce_weight=0), [0.2, 0.6, 0.7], [0.1, 0.5, 0.4], [0, 1, 2])
        assert found == pytest.approx(-(whole + core) / 2, abs=1e-6)

    def test_dice_leaves_unknown_voxels_out(self):
        # the last voxel is unknown: 0.6 of p = 0.2, 0.6 is on the one tumour voxel
        expected = (2 * 0.6 + S) / (0.8 + 1 + S)
        assert labels_loss(DiceCELoss(ce_weight=0), [0.2, 0.6, 0.9], [0, 1, 2], IGNORING) == pytest.approx(-expected, abs=1e-6)

    def test_tversky(self):
        # TP 0.6, FP 0.2, FN 0.4
        expected = (0.6 + S) / (0.6 + 0.3 * 0.2 + 0.7 * 0.4 + S)
        assert labels_loss(TverskyCELoss(ce_weight=0), [0.2, 0.6], [0, 1]) == pytest.approx(1 - expected, abs=1e-6)

    def test_focal_tversky(self):
        expected = (1 - 0.6 / (0.6 + 0.5 * 0.2 + 0.1 * 0.4)) ** 0.75
        spec = TverskyCELoss(ce_weight=0, alpha=0.5, beta=0.1, exponent=0.75, smooth=0)
        assert labels_loss(spec, [0.2, 0.6], [0, 1]) == pytest.approx(expected, abs=1e-6)

    def test_tversky_leaves_unknown_voxels_out(self):
        expected = labels_loss(TverskyCELoss(), [0.2, 0.6], [0, 1])
        assert labels_loss(TverskyCELoss(), [0.2, 0.6, 0.9], [0, 1, 2], IGNORING) == pytest.approx(expected, abs=1e-6)

    @settings(deadline=None, max_examples=20)
    @given(seed=st.integers(0, 1000), batch_dice=st.booleans())
    def test_even_tversky_is_the_dice(self, seed, batch_dice):
        generator = torch.Generator().manual_seed(seed)
        probability, truth = torch.rand(2, 3, 4, 4, generator=generator), torch.rand(2, 3, 4, 4, generator=generator) < 0.3
        even = tversky(probability, truth, alpha=0.5, beta=0.5, batch_dice=batch_dice, smooth=0.1)
        torch.testing.assert_close(even, soft_dice(probability, truth, batch_dice=batch_dice, smooth=0.2))


class TestTruth:
    def test_labels_need_not_be_consecutive(self):
        truth = encode(torch.tensor([[0, 7, 3]]), LabelScheme({"background": 0, "node": 7, "tumour": 3}))
        assert truth.heads.int().tolist() == [[[1, 0, 0], [0, 0, 1], [0, 1, 0]]]
        assert (truth.valid, truth.overlapping) == (None, False)

    def test_regions_stand_in_the_order_of_declaration(self):
        truth = encode(torch.tensor([[0, 1, 2, 3]]), REGIONS_IGNORING)
        assert truth.heads.int().tolist() == [[[0, 1, 1, 0], [0, 0, 1, 0]]]
        assert truth.valid.int().tolist() == [[[1, 1, 1, 0]]]


@pytest.mark.parametrize("spec", EVERY_LOSS, ids=lambda s: f"{s.kind}-{s.batch_dice}")
class TestDegenerate:
    @pytest.mark.parametrize("scheme", [TUMOUR, IGNORING, REGIONS, REGIONS_IGNORING])
    @pytest.mark.parametrize("logit", [0.0, 40.0, -40.0, 200.0])
    def test_an_empty_foreground_has_a_finite_gradient(self, spec, scheme, logit):
        logits = torch.full((2, 2, 4, 4), logit)
        logits[:, 0] *= -1
        logits.requires_grad_()
        value = segmentation_loss(spec, 1, scheme)(logits, torch.zeros(2, 4, 4, dtype=torch.long))
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()

    @pytest.mark.parametrize("scheme", [IGNORING, REGIONS_IGNORING])
    def test_where_nothing_is_known_there_is_nothing_to_learn(self, spec, scheme):
        logits = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
        value = segmentation_loss(spec, 1, scheme)(logits, torch.full((2, 4, 4), scheme.ignore))
        value.backward()
        assert value.isfinite()
        assert not logits.grad.any()

    @pytest.mark.parametrize("scheme", [IGNORING, REGIONS_IGNORING])
    def test_unknown_voxels_have_no_gradient_and_others_do(self, spec, scheme):
        target = torch.randint(0, 2, (2, 5, 6), generator=torch.Generator().manual_seed(2))
        hidden = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(3)) < 0.5
        logits = torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(4), requires_grad=True)
        segmentation_loss(spec, 1, scheme)(logits, torch.where(hidden, scheme.ignore, target)).backward()
        slope = logits.grad.abs().sum(1)
        assert not slope[hidden].any()
        assert slope[~hidden].all() or spec.kind == "dice_topk"

    def test_a_step_against_the_gradient_lessens_the_loss(self, spec):
        target = torch.randint(0, 3, (2, 6, 6), generator=torch.Generator().manual_seed(6))
        logits = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(7), requires_grad=True)
        loss = segmentation_loss(spec, 1, REGIONS)
        before = loss(logits, target)
        before.backward()
        assert loss(logits - 0.1 * logits.grad / logits.grad.norm(), target) < before


@pytest.mark.parametrize("spec", EVERY_LOSS, ids=lambda s: f"{s.kind}-{s.batch_dice}")
@pytest.mark.parametrize("scheme", [TUMOUR, IGNORING, REGIONS])
def test_a_loss_that_does_not_couple_samples_is_the_mean_over_them(spec, scheme):
    loss = segmentation_loss(spec, 1, scheme)
    target = torch.randint(0, 3, (3, 6, 6), generator=torch.Generator().manual_seed(6))
    target[0] = target[0].clamp_max(0)  # samples that differ in what they hold
    target[1, :4] = 2
    logits = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(7))
    mean = torch.stack([loss(logits[i : i + 1], target[i : i + 1]) for i in range(3)]).mean()
    assert loss.couples_samples != torch.isclose(loss(logits, target), mean, rtol=1e-5)
