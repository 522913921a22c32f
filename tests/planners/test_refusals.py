"""How a value that does not fit is refused: the path as the document has it, the value, what is allowed; in no library's words."""

import json
import math

import pytest

from planners.plan import Plan, PlanInvalid
from planners.planner import plan
from planners.settings import override

HERE = "configurations.3d_fullres."


@pytest.fixture(scope="module")
def planned(make_fingerprint):
    return plan(make_fingerprint([(1.0, 1.0, 1.0)], [(128, 128, 128)], channels=["CT", "PT"]))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        # the wrong type
        ("training.epochs", "many", 'training.epochs: must be a whole number, found "many"'),
        ("training.epochs", 1.5, "training.epochs: must be a whole number, found 1.5"),
        ("training.epochs", None, "training.epochs: must be a whole number, found null"),
        ("training.loss.smooth", "little", 'training.loss.smooth: must be a number, found "little"'),
        ("training.loss.smooth", math.nan, "training.loss.smooth: must be a finite number, found NaN"),
        ("training.optimiser.nesterov", "perhaps", 'training.optimiser.nesterov: must be true or false, found "perhaps"'),
        ("previous_stage", 4, "previous_stage: must be a text, found 4"),
        ("spacing", 3, "spacing: must be a list, found 3"),
        ("patch_size.0", [1], "patch_size.0: must be a whole number, found [1]"),
        ("augmentation.noise", 5, "augmentation.noise: must be an object ({...}), found 5"),
        ("training.loss", 7, "training.loss: must be an object ({...}), found 7"),
        ("spacing.0", "x" * 80, f'spacing.0: must be a number, found "{"x" * 56}...'),
        # out of range
        ("training.epochs", 0, "training.epochs: must be 1 or more, found 0"),
        ("inference.step", 2, "inference.step: must be 1 or less, found 2"),
        ("training.ema", 1, "training.ema: must be below 1, found 1"),
        ("resampling.separate_z_ratio", 1, "resampling.separate_z_ratio: must be above 1, found 1"),
        ("training.loss.ce_weight", -1, "training.loss.ce_weight: must be 0 or more, found -1"),
        ("augmentation.noise.std", [0.2, 0.1], "augmentation.noise.std: must be a range, the lower end first, found [0.2, 0.1]"),
        ("augmentation.noise.std", [0, 1, 2], "augmentation.noise.std: must be a list of 2, found [0, 1, 2]"),
        ("augmentation.noise.std", [0], "augmentation.noise.std.1: is missing"),
        # none of those that there are
        ("training.loss.kind", "hinge", 'loss.kind: must be one of dice_ce, dice_focal, dice_topk, tversky_ce, cc_dice_ce, found "hinge"'),
        ("resampling.image_order", 2, "resampling.image_order: must be 1 or 3, found 2"),
        ("training.compile", 3, "training.compile: must be auto or true or false, found 3"),
        ("training.sampling.classes", "some", 'must be one of present, equal, inverse_frequency or an object ({...}), found "some"'),
        ("training.sampling.classes", {"label_1": "x"}, 'training.sampling.classes.label_1: must be a number, found "x"'),
        # fields that there are not, or that are missing
        ("training.loss", {"kind": "dice_ce", "sharp": 1}, "training.loss.sharp: is not a known field"),
        ("training.loss", {"ce_weight": 1}, """training.loss: needs a field 'kind', found {"ce_weight": 1}"""),
        ("normalisation.0", {"kind": "ct", "lower": 0, "upper": 1, "mean": 0}, "normalisation.0.std: is missing"),
    ],
)
def test_a_setting_that_does_not_fit(planned, path, value, said):
    with pytest.raises(PlanInvalid) as caught:
        override(planned, {path: value}, "3d_fullres")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"after --set {path}: {HERE}{path.rpartition('.')[0]}")
    assert not any(word in str(caught.value) for word in ("Input", "should be", "Value error", "pydantic", "literal["))


def test_fields_of_the_whole_plan(planned):
    document = json.loads(planned.to_json()) | {"orientation": "upside down", "file_ending": "nii", "novel": 1}
    with pytest.raises(PlanInvalid) as caught:
        Plan.from_json(json.dumps(document), "plan.json")
    assert str(caught.value) == (
        'plan.json: file_ending: must be a text that matches ^(\\.[A-Za-z0-9]+)+$, found "nii"; orientation: must be one of canonical, '
        'as_stored, ras, found "upside down"; novel: is not a known field'
    )
