"""A batch in micro-batches is the batch."""

import pytest
import torch
from torch import nn

from autoseg.networks.build import build_network
from autoseg.training.losses import segmentation_loss
from autoseg.training.state import TrainState
from autoseg.training.step import Step
from planners.labels import LabelScheme
from planners.plan import DiceCELoss, DiceTopKLoss, TverskyCELoss, UNetSpec

NETWORK = UNetSpec(
    features=(4, 8, 8),
    strides=((1, 1), (2, 2), (2, 2)),
    kernels=((3, 3), (3, 3), (3, 3)),
    convs_per_stage=(1, 1, 1),
    convs_per_decoder_stage=(1, 1),
)
SCHEME = LabelScheme({"background": 0, "a": 1, "b": 2})


def gradients(spec, accumulation, scheme=SCHEME, **changes):
    """(loss, gradients) of the first step on a batch of five."""
    network = build_network(NETWORK, 1, scheme.heads, 2, seed=3)
    generator = torch.Generator().manual_seed(4)
    inputs, targets = torch.randn(5, 1, 16, 16, generator=generator), torch.randint(0, 3, (5, 16, 16), generator=generator)
    targets[0] = 0  # samples that differ in what they hold
    loss = segmentation_loss(spec, 2, scheme)
    state = TrainState(network, torch.optim.SGD(network.parameters(), lr=0.0))
    keywords = {"couples_samples": loss.couples_samples, "gradient_clip": 1e9, "accumulation": accumulation} | changes
    value = Step(loss, torch.device("cpu"), **keywords)(state, inputs, targets)
    return value.item(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("accumulation", [2, 3, 5])
@pytest.mark.parametrize(
    "spec", [DiceCELoss(), TverskyCELoss(), DiceCELoss(batch_dice=True), DiceTopKLoss()], ids=["each", "tversky", "batch", "topk"]
)
def test_micro_batches_give_the_whole_batchs_loss_and_gradient(spec, accumulation):
    value, expected = gradients(spec, 1)
    found_value, found = gradients(spec, accumulation)
    assert found_value == pytest.approx(value, rel=1e-5)
    assert found.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=name)


def test_so_they_do_with_unknown_voxels():
    ignoring = LabelScheme({"background": 0, "a": 1, "ignore": 2})
    value, expected = gradients(DiceCELoss(), 1, ignoring)
    found_value, found = gradients(DiceCELoss(), 5, ignoring)
    assert found_value == pytest.approx(value, rel=1e-5)
    largest = max(g.abs().max() for g in expected.values())
    assert all(torch.allclose(found[name], g, rtol=1e-3, atol=1e-5 * largest) for name, g in expected.items())


def test_a_dice_over_the_batch_taken_over_micro_batches_would_be_another():
    """Why coupled losses take two passes: without, the gradient is not the batch's."""
    _, expected = gradients(DiceCELoss(batch_dice=True), 1)
    _, found = gradients(DiceCELoss(batch_dice=True), 5, couples_samples=False)
    assert any((found[name] - g).norm() > 0.05 * g.norm() for name, g in expected.items())


def test_the_network_sees_no_more_than_a_micro_batch():
    sizes = []

    class Model(nn.Linear):
        def forward(self, inputs):
            sizes.append(len(inputs))
            return super().forward(inputs)

    model = Model(2, 1)
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for coupled in (False, True):
        step = Step(nn.functional.mse_loss, torch.device("cpu"), accumulation=3, couples_samples=coupled)
        step(state, torch.randn(5, 2), torch.randn(5, 1))
    assert sizes == [2, 2, 1] + [2, 2, 1] * 2


def test_targets_may_be_several_tensors():
    model = nn.Linear(2, 1)
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1))

    def loss(outputs, targets):
        assert isinstance(targets, tuple)
        return ((outputs - targets[0]) * targets[1]).square().mean()

    inputs, targets = torch.randn(4, 2), (torch.randn(4, 1), torch.rand(4, 1))
    expected = loss(model(inputs), targets).item()
    found = Step(loss, torch.device("cpu"), accumulation=2, couples_samples=False)(state, inputs, targets)
    assert found.item() == pytest.approx(expected, rel=1e-6)
