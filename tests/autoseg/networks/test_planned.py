"""The large presets' networks as planned, at full width: one forward and backward pass of the smallest patch."""

import math

import pytest
import torch

from autoseg.networks import build_network
from autoseg.training.losses import segmentation_loss
from planners.fingerprint import CaseFingerprint, merge, sketch
from planners.memory import parameter_count
from planners.planner import plan


def fingerprint(spacing, shape):
    values = (sketch([0.0, 1.0, 2.0]),)
    case = CaseFingerprint("a", "a", "", spacing, shape, shape, 1.0, "LPS", values, values, {1: 10}, {1: (4.0,)})
    return merge(("MR",), {"background": 0, "lesion": 1}, [case])


@pytest.mark.parametrize(
    ("preset", "spacing", "shape"),
    [("resenc-l", (3.6, 0.62, 0.62), (20, 160, 160)), ("resenc-xl", (1.0, 1.0, 1.0), (80, 80, 80)), ("segresnet", (1, 1, 1), (80, 80, 80))],
)
def test_learns_at_full_width(preset, spacing, shape):
    whole = plan(fingerprint(spacing, shape), preset=preset)
    planned = whole.configurations["3d_fullres"]
    spec = planned.network
    assert max(spec.features) == (512 if preset == "segresnet" else 320)
    patch = [math.prod(stride[axis] for stride in spec.strides) for axis in range(3)]
    patch[2] *= 2  # an instance norm needs more than one voxel at the bottom
    network = build_network(spec, 1, 2, 3)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameter_count(spec, 1, 2)
    image = torch.randn(1, 1, *patch, generator=torch.Generator().manual_seed(0))
    loss_of = segmentation_loss(planned.training.loss, len(spec.features) - 1, whole.label_scheme)
    loss = loss_of(network(image), (image[:, 0] > 0).long())
    loss.backward()
    assert loss.isfinite()
    missing = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    lowest_head = {f"decoder.heads.0.{part}" for part in ("weight", "bias")} | {f"decoder.norms.0.{part}" for part in ("weight", "bias")}
    assert missing <= lowest_head, "the lowest level's head alone carries no loss"
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
