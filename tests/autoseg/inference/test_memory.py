"""Estimates against counts by hand; the limit of a control group against files laid out like the kernel's."""

import pytest

from autoseg.errors import ResourceError
from autoseg.inference.memory import activation_bytes, check_fits, memory_estimate
from planners.plan import SegResNetSpec


def test_parts_by_hand(plan, tiny):
    name = tiny.name(plan)
    estimate = memory_estimate(plan, name, (40, 30, 20), (2.0, 4.0, 2.0))
    # 2 mm target: the second axis doubles, so that the grid is 40 x 60 x 20
    assert estimate.images == 2 * 40 * 30 * 20 * 4
    assert estimate.prepared == 2 * 40 * 60 * 20 * 4
    assert estimate.slab == 3 * 4 * (8 * 60 * 20 + 4 * 60 * 20)
    assert estimate.mask == 40 * 30 * 20 * 2
    assert estimate.weights == 0
    assert memory_estimate(plan, name, (40, 30, 20), (2.0, 4.0, 2.0), folds=2).weights > 0
    assert estimate.peak == estimate.prepared + max(estimate.images + estimate.preparing, estimate.slab + estimate.network + estimate.mask)


def test_activations_by_hand(plan, tiny):
    settings = plan.configurations[tiny.name(plan)]
    # 4 features at 8^3 and 8 at 4^3 wait; 5 more maps of 4 features; 2 channels twice, 3 classes four times
    assert activation_bytes(settings, 2, 3) == 4 * (4 * 512 + 8 * 64 + 5 * 4 * 512 + (2 * 2 + 4 * 3) * 512)


def test_activations_of_a_segresnet_by_hand(plan, tiny):
    """As above but for the finest level, where no concatenation lives: 4 maps, not 5."""
    settings = plan.configurations[tiny.name(plan)]
    network = SegResNetSpec(
        features=(4, 8),
        strides=settings.network.strides,
        kernels=settings.network.kernels,
        blocks_per_stage=(1, 2),
        blocks_per_decoder_stage=(1,),
    )
    found = activation_bytes(settings.model_copy(update={"network": network}), 2, 3)
    assert found == 4 * (4 * 512 + 8 * 64 + 4 * 4 * 512 + (2 * 2 + 4 * 3) * 512)


def test_the_slab_does_not_grow_with_the_depth_of_the_image(plan, tiny):
    short, long = (memory_estimate(plan, tiny.name(plan), (depth, 30, 30), (2.0, 2.0, 2.0)) for depth in (50, 5000))
    assert short.slab == long.slab
    assert short.network == long.network


def test_what_cannot_fit_is_refused_with_the_estimate(plan, tiny):
    estimate = memory_estimate(plan, tiny.name(plan), (1000, 2000, 2000), (2.0, 2.0, 2.0))
    with pytest.raises(ResourceError, match=r"case P1: prediction needs about \d+\.\d\d GiB \(images .*4\.00 GiB are available"):
        check_fits(estimate, "P1", available=4 << 30)
    check_fits(estimate, "P1", available=estimate.peak)
