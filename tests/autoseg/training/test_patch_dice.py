import json

import pytest
import torch

from autoseg.training.patch_dice import PatchDice
from planners.labels import LabelScheme


def logits_of(predicted: torch.Tensor, classes: int = 4) -> torch.Tensor:
    return torch.nn.functional.one_hot(predicted, classes).movedim(-1, 1).float()


def test_counts_of_a_hand_worked_patch():
    predicted = torch.tensor([[[0, 1, 1], [2, 2, 0]]])
    target = torch.tensor([[[0, 1, 2], [2, 0, 0]]])
    metric = PatchDice(LabelScheme({"tumour": 1, "node": 2, "cyst": 3}))
    metric.update(logits_of(predicted), target)
    # label 1: 1 shared of 2 and 1; label 2: 1 shared of 2 and 2; label 3 is nowhere
    assert metric.result() == {"dice": {"tumour": pytest.approx(2 / 3), "node": pytest.approx(0.5), "cyst": None}}


def test_batches_are_pooled_and_not_averaged():
    metric = PatchDice(LabelScheme({"tumour": 1}))
    right, wrong = torch.ones(1, 9, dtype=torch.long), torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0, 0]])
    metric.update(logits_of(right), right)  # 9 shared of 9 and 9
    metric.update(logits_of(torch.zeros_like(wrong)), wrong)  # none of 0 and 1
    assert metric.result()["dice"]["tumour"] == pytest.approx(18 / 19)


def test_a_label_that_is_only_predicted_scores_zero():
    metric = PatchDice(LabelScheme({"tumour": 1}))
    metric.update(logits_of(torch.ones(1, 4, dtype=torch.long)), torch.zeros(1, 4, dtype=torch.long))
    assert metric.result() == {"dice": {"tumour": 0.0}}


def test_of_deep_supervision_the_full_resolution_counts():
    target = torch.tensor([[0, 1, 1, 0]])
    metric = PatchDice(LabelScheme({"tumour": 1}))
    metric.update([logits_of(target), logits_of(torch.zeros(1, 2, dtype=torch.long))], target)
    assert metric.result() == {"dice": {"tumour": 1.0}}


def test_nothing_seen_gives_nothing():
    assert PatchDice(LabelScheme({"tumour": 1, "node": 2})).result() == {}


def test_the_result_goes_into_a_json_line_unchanged():
    metric = PatchDice(LabelScheme({"tumour": 1, "node": 2}))
    metric.update(logits_of(torch.tensor([[1]])), torch.tensor([[1]]))
    assert json.loads(json.dumps(metric.result())) == metric.result()


def test_regions_are_counted_each_by_itself():
    scheme = LabelScheme({"background": 0, "whole": (1, 2), "core": 2}, (1, 2))
    target = torch.tensor([[0, 1, 2, 2]])
    logits = torch.tensor([[[-1.0, 2.0, 3.0, -0.5], [-1.0, 0.5, 0.1, -2.0]]])
    metric = PatchDice(scheme)
    metric.update(logits, target)
    # whole: 2 predicted, both right, of 3; core: 2 predicted, 1 right, of 2
    assert metric.result() == {"dice": {"whole": pytest.approx(4 / 5), "core": pytest.approx(2 / 4)}}


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_do_not_count(regions):
    labels = {"background": 0, "whole": (1, 2) if regions else 1, "core": 2, "ignore": 3}
    scheme = LabelScheme(labels, (1, 2) if regions else ())
    target = torch.tensor([[0, 1, 2, 3, 3]])
    logits = torch.randn(1, scheme.heads, 5, generator=torch.Generator().manual_seed(0))
    results = []
    for change in (0.0, 10.0, -10.0):
        metric = PatchDice(scheme)
        metric.update(torch.cat([logits[..., :3], logits[..., 3:] + change * torch.tensor([1.0, -1.0])], dim=-1), target)
        results.append(metric.result())
    assert results[0] == results[1] == results[2]
