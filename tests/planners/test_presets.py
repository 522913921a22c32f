from __future__ import annotations

import pytest

from planners.memory import multiply_adds
from planners.plan import PlanInvalid
from planners.planner import plan
from planners.presets import PRESETS, preset


def test_the_presets():
    assert list(PRESETS) == ["default", "resenc-m", "resenc-l", "resenc-xl", "segresnet", "laptop"]
    assert all(name == item.name for name, item in PRESETS.items())


@pytest.mark.parametrize("name", ["nnU-Net", "Default", ""])
def test_an_unknown_preset_names_the_known(name):
    with pytest.raises(PlanInvalid, match="known: default, resenc-m, resenc-l, resenc-xl, segresnet, laptop"):
        preset(name)


@pytest.mark.parametrize("shape", [(36, 50, 35), (192, 192, 192), (482, 512, 512), (20, 320, 320)])
def test_laptop_computes_a_small_part_of_the_default(shape, make_fingerprint):
    """At most a quarter of a TFLOP a step (6 operations a multiply-add, forward and backward) and 1/50 of the steps."""
    fingerprint = make_fingerprint([(1, 1, 1)], [shape], cases=200, labels=3)
    laptop, default = plan(fingerprint, preset="laptop"), plan(fingerprint)
    for name in ("2d", "3d_fullres"):
        small, large = laptop.configurations[name], default.configurations[name]
        work = [6 * c.batch_size * multiply_adds(c.network, c.patch_size, 1, 3) for c in (small, large)]
        assert work[0] < 0.25e12
        assert work[0] < work[1] / 4
        assert small.training.epochs * small.training.iterations * 50 == large.training.epochs * large.training.iterations
        assert small.inference.mirror_axes == ()
        assert small.augmentation.mirror.axes == large.augmentation.mirror.axes
    assert "time of a prediction" in laptop.reasons["2d.inference.mirror_axes"]
