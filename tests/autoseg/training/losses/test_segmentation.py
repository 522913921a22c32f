import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.training.losses import level_weights, segmentation_loss
from autoseg.training.losses.overlap import soft_dice
from autoseg.training.losses.truth import downsample
from planners.labels import LabelScheme
from planners.plan import DiceCELoss


def scheme_of(classes):
    return LabelScheme({"background": 0, **{f"label {value}": value for value in range(1, classes)}})


def dice_ce(logits, target, **fields):
    return segmentation_loss(DiceCELoss(**fields), 1, scheme_of(logits.shape[1]))(logits, target)


def _random(shape=(2, 3, 4, 6, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def _logits_of(*probability):
    """Logits (1, classes, 1, voxels) whose softmax is the given rows, one a class."""
    return torch.tensor(probability).log()[None, :, None]


class TestDiceCE:
    def test_worked_by_hand(self):
        # two voxels: truth 0 and 1; p(1) = 0.2 and 0.6
        logits, target = _logits_of([0.8, 0.4], [0.2, 0.6]), torch.tensor([[[0, 1]]])
        cross_entropy = -(math.log(0.8) + math.log(0.6)) / 2
        dice = (2 * 0.6 + 1e-5) / (0.2 + 0.6 + 1 + 1e-5)
        assert dice_ce(logits, target).item() == pytest.approx(cross_entropy - dice, abs=1e-6)

    def test_weights_scale_their_terms(self):
        logits, target = _logits_of([0.8, 0.4], [0.2, 0.6]), torch.tensor([[[0, 1]]])
        cross_entropy = -(math.log(0.8) + math.log(0.6)) / 2
        dice = (2 * 0.6 + 1e-5) / (1.8 + 1e-5)
        assert dice_ce(logits, target, dice_weight=0, ce_weight=2).item() == pytest.approx(2 * cross_entropy, abs=1e-6)
        assert dice_ce(logits, target, dice_weight=3, ce_weight=0).item() == pytest.approx(-3 * dice, abs=1e-6)

    def test_background_has_no_part_in_the_dice(self):
        # three classes, one voxel of class 2 at p = 0.5: class 1 has dice smooth / (0.2 + smooth), class 2 (1 + smooth) / (1.5 + smooth)
        logits, target = _logits_of([0.3], [0.2], [0.5]), torch.tensor([[[2]]])
        expected = (1e-5 / (0.2 + 1e-5) + (1 + 1e-5) / (1.5 + 1e-5)) / 2
        assert dice_ce(logits, target, ce_weight=0).item() == pytest.approx(-expected, abs=1e-6)

    def test_batch_dice_pools_the_samples_before_dividing(self):
        # sample 1: 1 voxel of foreground at p = 0.5; sample 2: none, p = 0.1
        probability = torch.tensor([0.5, 0.1])
        logits = torch.stack((1 - probability, probability), dim=1).log()[:, :, None, None]
        target = torch.tensor([1, 0])[:, None, None]
        pooled = (2 * 0.5 + 1e-5) / (0.6 + 1 + 1e-5)
        each = ((2 * 0.5 + 1e-5) / (0.5 + 1 + 1e-5) + 1e-5 / (0.1 + 1e-5)) / 2
        assert dice_ce(logits, target, ce_weight=0, batch_dice=True).item() == pytest.approx(-pooled, abs=1e-6)
        assert dice_ce(logits, target, ce_weight=0, batch_dice=False).item() == pytest.approx(-each, abs=1e-6)

    def test_cross_entropy_is_torchs(self):
        logits, target = _random()
        torch.testing.assert_close(dice_ce(logits, target, dice_weight=0), F.cross_entropy(logits, target))

    def test_perfect_prediction_is_minus_one(self):
        _, target = _random()
        logits = 100 * F.one_hot(target, 3).movedim(-1, 1).float()
        assert dice_ce(logits, target).item() == pytest.approx(-1)

    def test_gradient_is_the_derivative(self):
        logits, target = _random((1, 3, 2, 2, 2))
        logits.requires_grad_()
        dice_ce(logits, target).backward()
        step = 1e-2
        for index in [(0, 0, 0, 0, 0), (0, 2, 1, 0, 1)]:
            shift = torch.zeros_like(logits)
            shift[index] = step
            with torch.no_grad():
                slope = (dice_ce(logits + shift, target) - dice_ce(logits - shift, target)) / (2 * step)
            assert logits.grad[index].item() == pytest.approx(slope.item(), abs=1e-4)

    def test_float32_inside_also_under_autocast(self):
        logits, target = _random()
        half = logits.bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            found = dice_ce(half, target)
        assert found.dtype == torch.float32
        assert torch.equal(found, dice_ce(half.float(), target))

    def test_memory_layout_changes_nothing_but_rounding(self):
        logits, target = _random()
        torch.testing.assert_close(dice_ce(logits.to(memory_format=torch.channels_last_3d), target), dice_ce(logits, target))

    def test_no_foreground_anywhere_is_finite_and_rewards_silence(self):
        target = torch.zeros(1, 4, 4, dtype=torch.long)
        silent, loud = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
        silent[:, 0], loud[:, 1] = 50.0, 50.0
        assert dice_ce(silent, target, ce_weight=0).item() == pytest.approx(-1)
        assert dice_ce(loud, target, ce_weight=0).item() == pytest.approx(0, abs=1e-5)

    def test_refuses_another_number_of_classes(self):
        logits, target = _random()
        with pytest.raises(ValueError, match="3 outputs, the labels need 4"):
            segmentation_loss(DiceCELoss(), 1, scheme_of(4))(logits, target)

    def test_refuses_shapes_that_do_not_fit(self):
        logits, target = _random()
        with pytest.raises(ValueError, match=r"\(2, 3, 4, 6, 4\) and target \(2, 1, 4, 6, 4\)"):
            dice_ce(logits, target[:, None])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 5), batch_dice=st.booleans())
def test_dice_lies_between_zero_and_one_and_ignores_the_order_of_voxels(seed, classes, batch_dice):
    logits, target = _random((2, classes, 3, 4), seed)
    truth = F.one_hot(target, classes).movedim(-1, 1).bool()
    dice = soft_dice(logits.softmax(1), truth, batch_dice=batch_dice)
    assert dice.shape == ((classes,) if batch_dice else (2, classes))
    assert ((dice >= 0) & (dice <= 1)).all()
    torch.testing.assert_close(soft_dice(logits.softmax(1).flip(3), truth.flip(3), batch_dice=batch_dice), dice)


class TestDeepSupervision:
    def test_weights_of_six_stages_as_published(self):
        assert level_weights(5) == pytest.approx((0.533, 0.267, 0.133, 0.067, 0.0), abs=5e-4)

    def test_a_single_level_counts_whole(self):
        assert level_weights(1) == (1.0,)

    def test_sum_over_levels(self):
        target = _random((2, 3, 8, 8, 8), 9)[1]
        outputs = [_random((2, 3, size, size, size), size)[0] for size in (8, 4, 2)]
        expected = 2 / 3 * dice_ce(outputs[0], target) + 1 / 3 * dice_ce(outputs[1], target[:, 1::2, 1::2, 1::2])
        torch.testing.assert_close(segmentation_loss(DiceCELoss(), 3, scheme_of(3))(outputs, target), expected)

    def test_the_level_of_weight_zero_is_not_computed(self):
        target = _random((1, 2, 4, 4, 4))[1]
        full, coarse = _random((1, 2, 4, 4, 4))[0].requires_grad_(), torch.full((1, 2, 2, 2, 2), float("nan"), requires_grad=True)
        segmentation_loss(DiceCELoss(), 2, scheme_of(2))([full, coarse], target).backward()
        assert coarse.grad is None
        assert full.grad.isfinite().all()

    def test_a_single_tensor_is_taken_as_it_is(self):
        logits, target = _random()
        settings_ = DiceCELoss(batch_dice=True, dice_weight=0.5, ce_weight=2.0, smooth=1e-3)
        expected = dice_ce(logits, target, batch_dice=True, dice_weight=0.5, ce_weight=2.0, smooth=1e-3)
        assert torch.equal(segmentation_loss(settings_, 3, scheme_of(3))(logits, target), expected)

    def test_refuses_another_number_of_outputs(self):
        logits, target = _random()
        with pytest.raises(ValueError, match="made for 3 outputs, found 2"):
            segmentation_loss(DiceCELoss(), 3, scheme_of(3))([logits, logits], target)


@settings(deadline=None, max_examples=40)
@given(old=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)), data=st.data())
def test_downsampling_is_nearest_exact(old, data):
    new = tuple(data.draw(st.integers(1, size)) for size in old)
    target = torch.arange(2 * math.prod(old)).reshape(2, *old)
    # double is exact here; float32 coordinates in interpolate round at ties that integer arithmetic decides
    expected = F.interpolate(target[:, None].double(), new, mode="nearest-exact")[:, 0].long()
    assert torch.equal(downsample(target, new), expected)
