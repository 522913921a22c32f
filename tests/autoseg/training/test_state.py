import pytest
import torch
from torch import nn

from autoseg.training.state import TrainState, WeightAverage


def test_the_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, decay=0.5)
    found = []
    for updates, value in enumerate((2.0, 4.0, 8.0)):
        nn.init.constant_(model.weight, value)
        average.update(model, updates * 4)  # 0, 4, 8: keeps 1/10, 5/14, then its decay of 1/2, as 9/18 is
        found.append(average.model.weight.item())
    first = 0.1 * 1 + 0.9 * 2
    second = 5 / 14 * first + 9 / 14 * 4
    assert found == pytest.approx([first, second, 0.5 * second + 0.5 * 8])
    assert not average.model.weight.requires_grad


def test_the_average_copies_buffers_and_stays_apart_from_the_network():
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, 0.9)
    model.running_mean.fill_(5.0)
    assert not average.model.running_mean.any()
    average.update(model, 0)
    assert (average.model.running_mean == 5).all()


def test_what_is_chosen_does_not_change_when_training_goes_on():
    model = nn.Linear(2, 2)
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    state.choose(0.5)
    before = model.weight.detach().clone()
    nn.init.zeros_(model.weight)
    assert torch.equal(state.result["weight"], before)
