import pytest
import torch
from torch import nn

from autoseg.training.optimisers import build_optimiser
from planners.plan import SGD, AdamW


def first_step(spec, weight=2.0, gradient=0.5):
    parameter = nn.Parameter(torch.tensor([weight]))
    parameter.grad = torch.tensor([gradient])
    build_optimiser(spec, [parameter]).step()
    return parameter.item()


def test_sgd_by_hand():
    # gradient 0.5 + 0.1 * 2 = 0.7; Nesterov's first step is (1 + momentum) of it
    assert first_step(SGD(lr=0.1, momentum=0.9, weight_decay=0.1)) == pytest.approx(2 - 0.1 * 1.9 * 0.7)


def test_adamw_by_hand():
    # the weights shrink by lr * decay; the first step's moments, once unbiased, are the gradient and its square
    expected = 2 * (1 - 0.1 * 0.2) - 0.1 * 0.5 / (0.5 + 0.25)
    assert first_step(AdamW(lr=0.1, betas=(0.8, 0.9), eps=0.25, weight_decay=0.2)) == pytest.approx(expected)
