"""What a new plan takes from the dataset and from what was asked for."""

import pytest

from autoseg.dataset import Dataset
from autoseg.planning.standing import make_plan
from autoseg.planning.wish import Wish
from planners.fingerprint import CaseFingerprint, merge, sketch

LABELS = {"background": 0, "kidney_left": 1, "kidney_right": 2}


def planned(orientations, labels=LABELS, **wish):
    values = (sketch([0.0, 1.0]),)
    cases = [
        CaseFingerprint(f"c{i}", f"c{i}", "", (1.0, 1.0, 1.0), (64, 64, 64), (64, 64, 64), 1.0, code, values, values, {1: 1}, {1: (1.0,)})
        for i, code in enumerate(orientations)
    ]
    dataset = Dataset(None, "d", ("MR",), labels, ".nii.gz", ())
    return make_plan(dataset, "p", merge(("MR",), labels, cases), Wish("default", settings={}, augmentation="default", **wish))


@pytest.mark.parametrize(
    ("orientation", "stored", "mirrored"),
    [
        ("canonical", ["PSL", "RAI"], (0, 1)),
        ("as_stored", ["RAI", "LPS"], (0, 1)),
        ("as_stored", ["PSL"], (1, 2)),
        ("as_stored", ["LPS", "PSL"], (1,)),
    ],
)
def test_no_image_with_sides_is_flipped_from_left_to_right(orientation, stored, mirrored):
    """Letters stand for x, y and z: in "PSL" left and right lie along z, which is array axis 0."""
    plan = planned(stored, orientation=orientation)
    assert plan.configurations["3d_fullres"].augmentation.mirror.axes == mirrored
    assert plan.configurations["3d_fullres"].inference.mirror_axes == mirrored
    without = planned(stored, {"background": 0, "kidney": 1}, orientation=orientation)
    assert without.configurations["3d_fullres"].augmentation.mirror.axes == (0, 1, 2)
