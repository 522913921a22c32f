import numpy as np
import pytest
import torch

from autoseg.errors import ModelError
from autoseg.inference.memory import MemoryEstimate, memory_estimate
from autoseg.inference.model_documents import check_previous_stage
from autoseg.inference.sliding_window import Window, slide
from autoseg.inference.stages import WithMasks
from planners.plan import Plan


def test_masks_join_the_channels_piece_by_piece():
    rng = np.random.default_rng(0)
    image, labels = rng.normal(size=(2, 5, 6, 7)).astype(np.float32), rng.integers(0, 4, (5, 6, 7)).astype(np.int8)
    stacked = WithMasks(image, labels, [(1,), (2, 3)])
    whole = np.concatenate([image, [labels == 1, (labels == 2) | (labels == 3)]]).astype(np.float32)
    assert stacked.shape == whole.shape
    box = (slice(None), slice(1, 4), slice(0, 6), slice(2, 3))
    assert stacked[box].dtype == np.float32
    assert np.array_equal(stacked[box], whole[box])
    window = Window((4, 4, 4), 3, mirror_axes=(0,))
    network = torch.nn.Conv3d(4, 3, 3, padding=1).eval()
    lazy, plain = (
        np.concatenate([block.numpy().copy() for _, block in slide([network], data, 3, window, device=torch.device("cpu"))], axis=1)
        for data in (stacked, whole)
    )
    assert np.array_equal(lazy, plain)


def test_memory_of_two_stages():
    first = MemoryEstimate(images=10, preparing=7, prepared=3, slab=20, network=1, weights=2, mask=4)
    second = MemoryEstimate(images=10, preparing=5, prepared=30, slab=9, network=2, weights=6, mask=4)
    both = second.after(first)
    assert both == MemoryEstimate(images=10, preparing=7, prepared=33, slab=20, network=1, weights=8, mask=4)
    assert both.peak == 8 + 33 + 25
    assert both.peak >= max(first.peak, second.peak)


def with_cascade(plan: Plan) -> Plan:
    full = plan.configurations["3d_fullres"]
    return plan.model_copy(
        update={"configurations": {"3d_lowres": full, "3d_cascade_fullres": full.model_copy(update={"previous_stage": "3d_lowres"})}}
    )


def test_the_second_stage_holds_a_label_map_and_no_further_channels(plan):
    cascade = with_cascade(plan)
    shape, spacing = (30, 40, 50), (2.0, 2.0, 2.0)
    low, second = (memory_estimate(cascade, name, shape, spacing) for name in ("3d_lowres", "3d_cascade_fullres"))
    assert second.images == low.images
    assert second.prepared - low.prepared == 3 * 30 * 40 * 50, "a byte a voxel: on the image's grid, turned and cropped, on the network's"
    assert second.network > low.network


def test_stages_of_different_plans_do_not_go_together(plan):
    cascade = with_cascade(plan)
    check_previous_stage(cascade, "3d_cascade_fullres", cascade, "3d_lowres", "m")
    with pytest.raises(ModelError, match="m: is a model of 2d; 3d_cascade_fullres continues from 3d_lowres"):
        check_previous_stage(cascade, "3d_cascade_fullres", cascade, "2d", "m")
    other = cascade.model_copy(update={"labels": {"background": 0, "tumour": 1}, "orientation": "as_stored"})
    with pytest.raises(ModelError, match="its labels, orientation are others. Both stages must be trained from one plan"):
        check_previous_stage(cascade, "3d_cascade_fullres", other, "3d_lowres", "m")
