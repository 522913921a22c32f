import json

import pytest
import torch

from autoseg.training.patch_dice import PatchDice


def logits_of(predicted: torch.Tensor, classes: int = 4) -> torch.Tensor:
    return torch.nn.functional.one_hot(predicted, classes).movedim(-1, 1).float()


def test_counts_of_a_hand_worked_patch():
    predicted = torch.tensor([[[0, 1, 1], [2, 2, 0]]])
    target = torch.tensor([[[0, 1, 2], [2, 0, 0]]])
    metric = PatchDice({"tumour": 1, "node": 2, "cyst": 3})
    metric.update(logits_of(predicted), target)
    # label 1: 1 shared of 2 and 1; label 2: 1 shared of 2 and 2; label 3 is nowhere
    assert metric.result() == {"dice": {"tumour": pytest.approx(2 / 3), "node": pytest.approx(0.5), "cyst": None}}


def test_batches_are_pooled_and_not_averaged():
    metric = PatchDice({"tumour": 1})
    right, wrong = torch.ones(1, 9, dtype=torch.long), torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0, 0]])
    metric.update(logits_of(right), right)  # 9 shared of 9 and 9
    metric.update(logits_of(torch.zeros_like(wrong)), wrong)  # none of 0 and 1
    assert metric.result()["dice"]["tumour"] == pytest.approx(18 / 19)


def test_a_label_that_is_only_predicted_scores_zero():
    metric = PatchDice({"tumour": 1})
    metric.update(logits_of(torch.ones(1, 4, dtype=torch.long)), torch.zeros(1, 4, dtype=torch.long))
    assert metric.result() == {"dice": {"tumour": 0.0}}


def test_of_deep_supervision_the_full_resolution_counts():
    target = torch.tensor([[0, 1, 1, 0]])
    metric = PatchDice({"tumour": 1})
    metric.update([logits_of(target), logits_of(torch.zeros(1, 2, dtype=torch.long))], target)
    assert metric.result() == {"dice": {"tumour": 1.0}}


def test_nothing_seen_gives_nothing():
    assert PatchDice({"tumour": 1, "node": 2}).result() == {}


def test_the_result_goes_into_a_json_line_unchanged():
    metric = PatchDice({"tumour": 1, "node": 2})
    metric.update(logits_of(torch.tensor([[1]])), torch.tensor([[1]]))
    assert json.loads(json.dumps(metric.result())) == metric.result()
