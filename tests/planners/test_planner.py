from __future__ import annotations

import json
import math
import random
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planners.fingerprint import Fingerprint, merge
from planners.plan import Plan, PlanInvalid, PreviousStageMasks
from planners.planner import plan

# Printed by nnunetv2 2.8.1: 3d_fullres patch, batch, stages for default, M, L, XL; then the 2d patch and its batch for default.
PUBLISHED = {
    "BraTS": (
        ((1, 1, 1), (138, 169, 138), 4, 484),
        [((128,) * 3, 2, 6), ((128,) * 3, 2, 6), ((160, 192, 160), 3, 6), ((160, 192, 160), 5, 6)],
        ((192, 160), 105),
    ),
    "Hippocampus": (
        ((1, 1, 1), (36, 50, 35), 3, 260),
        [((40, 56, 40), 9, 4), ((40, 56, 40), 58, 4), ((40, 56, 40), 178, 4), ((40, 56, 40), 183, 4)],
        ((56, 40), 366),
    ),
    "Heart": (
        ((1.37, 1.25, 1.25), (115, 320, 232), 2, 20),
        [((80, 192, 160), 2, 6), ((80, 192, 160), 2, 6), ((112, 288, 224), 2, 6), ((128, 320, 256), 3, 7)],
        ((320, 256), 40),
    ),
    "Prostate": (
        ((3.6, 0.62, 0.62), (20, 320, 319), 3, 32),
        [((20, 320, 256), 2, 7), ((20, 256, 256), 2, 7), ((20, 320, 320), 5, 7), ((20, 320, 320), 8, 7)],
        ((320, 320), 32),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_plans(name, make_fingerprint):
    (spacing, shape, labels, cases), three, (patch, batch) = PUBLISHED[name]
    fingerprint = make_fingerprint([spacing], [shape], cases=cases, labels=labels)
    for preset, expected in zip(("default", "resenc-m", "resenc-l", "resenc-xl"), three, strict=True):
        found = plan(fingerprint, preset=preset).configurations["3d_fullres"]
        assert (found.patch_size, found.batch_size, len(found.network.strides)) == expected, preset
    flat = plan(fingerprint).configurations["2d"]
    assert (flat.patch_size, flat.batch_size) == (patch, batch)


def test_liver_gets_a_cascade(make_fingerprint):
    planned = plan(make_fingerprint([(1.0, 0.767, 0.767)], [(482, 512, 512)], cases=131, labels=3))
    assert list(planned.configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    low, full = planned.configurations["3d_lowres"], planned.configurations["3d_fullres"]
    assert [round(value, 4) for value in low.spacing] == [2.5001, 1.9176, 1.9176]
    assert (low.median_shape, low.patch_size) == ((193, 205, 205), (128, 128, 128))
    masks = full.augmentation.model_copy(update={"previous_stage": PreviousStageMasks()})
    assert planned.configurations["3d_cascade_fullres"] == full.model_copy(update={"previous_stage": "3d_lowres", "augmentation": masks})
    assert (low.previous_stage, full.previous_stage) == (None, None)
    assert (low.augmentation.previous_stage, full.augmentation.previous_stage) == (None, None)
    assert (low.training.loss.batch_dice, full.training.loss.batch_dice) == (False, True)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("z", [0.1, 1.0, 999.0])
def test_slices_get_a_2d_configuration_only(axis, z, make_fingerprint):
    shape, spacing = [256, 320], [0.5, 0.5]
    shape.insert(axis, 1)
    spacing.insert(axis, z)
    planned = plan(make_fingerprint([spacing], [shape], cases=50))
    assert list(planned.configurations) == ["2d"]
    assert planned.transpose[0] == axis
    assert planned.configurations["2d"].patch_size == (256, 320)
    assert "one slice" in planned.reasons["3d_fullres"]


def test_transposed_images_give_the_transposed_plan(make_fingerprint):
    upright = plan(make_fingerprint([(5.0, 1.0, 1.0)], [(30, 300, 280)], cases=20))
    turned = plan(make_fingerprint([(1.0, 1.0, 5.0)], [(300, 280, 30)], cases=20))
    assert (upright.transpose, turned.transpose) == ((0, 1, 2), (2, 0, 1))
    assert upright.configurations == turned.configurations


def test_excluded_mirror_axes_are_array_axes(make_fingerprint):
    planned = plan(make_fingerprint([(1.0, 5.0, 1.0)], [(300, 30, 280)], cases=20), mirror_axes_excluded=(2,))
    assert planned.transpose == (1, 0, 2)
    for name, axes in (("2d", (0,)), ("3d_fullres", (0, 1))):
        configuration = planned.configurations[name]
        assert configuration.augmentation.mirror.axes == axes
        assert configuration.inference.mirror_axes == axes
    assert "never flipped" in planned.reasons["mirror"]


def test_fewer_training_cases_make_smaller_batches(make_fingerprint):
    fingerprint = make_fingerprint([(1.0, 1.0, 1.0)], [(36, 50, 35)], cases=260, labels=3)
    batches = [plan(fingerprint, training_cases=n).configurations["3d_fullres"].batch_size for n in (None, 260, 200, 1)]
    assert batches == [9, 9, 7, 2]


def test_what_it_is_told_it_keeps(make_fingerprint):
    fingerprint = make_fingerprint([(1.0, 1.0, 1.0)], [(64, 64, 64)], channels=["CT", "PT"], labels=3)
    planned = plan(fingerprint, name="wide", preset="resenc-m", file_ending=".nrrd", orientation="as_stored")
    assert (planned.name, planned.preset, planned.file_ending, planned.orientation) == ("wide", "resenc-m", ".nrrd", "as_stored")
    assert (planned.channels, planned.labels) == (("CT", "PT"), {"background": 0, "label_1": 1, "label_2": 2})
    assert {c.network.kind for c in planned.configurations.values()} == {"residual_unet"}
    assert planned.configurations["3d_fullres"].network.blocks_per_stage == (1, 3, 4, 6, 6)


def test_every_chosen_value_has_its_reason(make_fingerprint):
    planned = plan(make_fingerprint([(1.0, 0.767, 0.767)], [(482, 512, 512)], cases=131, channels=["CT", "PT"], relative_size=0.5))
    expected = {"transpose", "normalisation.0", "normalisation.1", "3d_lowres", "3d_cascade_fullres"}
    fields = ("spacing", "patch_size", "batch_size", "network", "training.loss.batch_dice", "augmentation.spatial")
    expected |= {f"{name}.{field}" for name in ("2d", "3d_lowres", "3d_fullres") for field in fields}
    assert expected <= set(planned.reasons)
    batch = planned.reasons["3d_fullres.batch_size"]
    assert batch.startswith(f"{planned.configurations['3d_fullres'].batch_size}: ")
    assert "5.6e+08" in batch


def test_reasons_of_what_a_preset_trains_otherwise(make_fingerprint):
    reasons = plan(make_fingerprint([(1.0, 1.0, 1.0)], [(64, 64, 64)]), preset="laptop").reasons
    found = {key.removeprefix("3d_fullres.training."): why for key, why in reasons.items() if key.startswith("3d_fullres.training.")}
    batch_dice = found.pop("loss.batch_dice")
    assert batch_dice.startswith("off")
    assert found == dict.fromkeys(("epochs", "iterations", "validation_iterations"), "preset laptop")


def test_reasons_of_a_low_resolution_that_is_not_planned(make_fingerprint):
    enough = plan(make_fingerprint([(1.0, 1.0, 1.0)], [(96, 96, 96)])).reasons["3d_lowres"]
    assert "covers 1 of the median case, at least 0.25" in enough
    little = plan(make_fingerprint([(1.0, 1.0, 1.0)], [(230, 230, 230)])).reasons["3d_lowres"]
    assert "less than 0.25, but" in little
    assert "saves less than a factor 2" in little


def test_too_small_for_any_network(make_fingerprint):
    with pytest.raises(PlanInvalid, match="7 x 7 voxels, is too small"):
        plan(make_fingerprint([(1.0, 1.0, 1.0)], [(7, 7, 7)]))


SHAPES = st.tuples(*[st.integers(9, 400)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 8).map(lambda value: round(value, 3))] * 3)
PRESETS = st.sampled_from(["default", "resenc-m", "resenc-l", "resenc-xl", "segresnet", "laptop"])


@given(st.lists(st.tuples(SPACINGS, SHAPES), min_size=1, max_size=6), PRESETS, st.integers(2, 20), st.randoms())
@settings(deadline=None, max_examples=30)
def test_what_holds_for_every_plan(make_fingerprint, cases, preset, labels, rng):
    fingerprint = make_fingerprint([s for s, _ in cases], [n for _, n in cases], labels=labels, channels=["CT", "PT"])
    try:
        planned = plan(fingerprint, preset=preset)
    except PlanInvalid as error:
        assume("too small" not in str(error))
        raise
    assert sorted(planned.transpose) == [0, 1, 2]
    for configuration in planned.configurations.values():
        network = configuration.network
        divisor = [math.prod(stride[axis] for stride in network.strides) for axis in range(configuration.dimension)]
        for patch, step, median in zip(configuration.patch_size, divisor, configuration.median_shape, strict=True):
            assert patch % step == 0
            assert patch / step >= 4 or step == 1
            # The median is padded to a multiple of the halvings it allows; a third is the most that adds.
            assert patch < median * 4 / 3 + 1
        assert configuration.batch_size >= 2
        assert max(configuration.inference.mirror_axes, default=0) < configuration.dimension
    assert Plan.from_json(planned.to_json()) == planned

    shuffled = list(fingerprint.cases)
    rng.shuffle(shuffled)
    again = Fingerprint.from_json(merge(fingerprint.channels, fingerprint.labels, shuffled).to_json())
    assert plan(again, preset=preset).to_json() == planned.to_json()


def test_the_same_in_another_process_without_torch_or_images(make_fingerprint, tmp_path):
    fingerprint = make_fingerprint([(2.0, 0.712, 0.712), (2.5, 0.8, 0.8)], [(214, 512, 512), (180, 480, 500)], cases=36, channels=["CT"])
    path = tmp_path / "fingerprint.json"
    path.write_text(fingerprint.to_json())
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from planners.fingerprint import Fingerprint\n"
        "from planners.planner import plan\n"
        "text = plan(Fingerprint.from_json(Path(sys.argv[1]).read_text())).to_json()\n"
        "heavy = [name for name in ('torch', 'SimpleITK', 'scipy', 'pandas') if name in sys.modules]\n"
        "print(json.dumps([text, heavy]))\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == [plan(fingerprint).to_json(), []]


def test_segresnet_takes_the_patch_that_its_authors_took_for_hecktor(make_fingerprint):
    """192x192x192 at 1 mm, five levels of 1, 2, 2, 4, 4 blocks from 32 features on (Myronenko et al., HECKTOR 2022)."""
    planned = plan(make_fingerprint([(1.0, 1.0, 1.0)], [(192, 200, 200)], cases=524, channels=["CT", "PT"], labels=3), preset="segresnet")
    found = planned.configurations["3d_fullres"]
    assert found.patch_size == (192, 192, 192)
    assert (found.network.kind, found.network.features) == ("segresnet", (32, 64, 128, 256, 512))
    assert (found.network.blocks_per_stage, found.network.blocks_per_decoder_stage) == ((1, 2, 2, 4, 4), (1, 1, 1, 1))
    assert "at most 5 stages" in planned.reasons["3d_fullres.network"]
    assert (found.training.optimiser.kind, found.training.optimiser.lr, found.training.schedule.kind) == ("adamw", 2e-4, "cosine")


def test_segresnet_waits_with_a_coarse_axis(make_fingerprint):
    planned = plan(make_fingerprint([(3.6, 0.62, 0.62)], [(20, 320, 319)], cases=32, labels=3), preset="segresnet")
    found = planned.configurations["3d_fullres"].network
    assert found.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert found.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


def test_the_plan_does_not_depend_on_names(make_fingerprint):
    fingerprint = make_fingerprint([(1, 1, 1), (2, 1, 1), (3, 1, 1)], [(64, 64, 64), (50, 60, 70), (80, 40, 90)], channels=["CT"])
    names = random.Random(0).sample(["x", "y", "z"], 3)
    renamed = [type(case)(**{**vars(case), "case": name}) for case, name in zip(fingerprint.cases, names, strict=True)]
    assert plan(merge(fingerprint.channels, fingerprint.labels, renamed)) == plan(fingerprint)
