"""Postprocessing found in a nested way: on tables that were made up, and on masks whose specks are known."""

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.choosing.counts import Survey, dice_after_rules, dice_of_masks, survey
from autoseg.choosing.rules import Level, find_rules, ladder, levels_for, parts_of
from autoseg.inference.postprocessing import LARGEST, MINIMUM, Rule
from planners.labels import LabelScheme

LARGEST_TUMOUR, SMALL, LARGE = Rule(LARGEST, ("tumour",)), Rule(MINIMUM, ("tumour",), 10.0), Rule(MINIMUM, ("tumour",), 100.0)
LABELS = LabelScheme({"background": 0, "tumour": 1, "node": 2})


def table(**rows):
    """dice_after of one class from {rule's name: Dice of each case}; rules that follow one another are not asked for."""
    known = {"before": (), "largest": (LARGEST_TUMOUR,), "small": (SMALL,), "large": (LARGE,)}
    dice = {known[name]: np.array(values, float)[:, None] for name, values in rows.items()}
    return lambda sequences: {sequence: dice[sequence] for sequence in sequences}


def test_what_helps_everywhere_is_kept():
    """By hand: in each part 0.5 -> 0.6, so the judged Dice is 0.6."""
    found = find_rules([Level("tumour", (LARGEST_TUMOUR,))], table(before=[0.5] * 4, largest=[0.6] * 4), np.array([0, 0, 1, 1]))
    assert found.rules == (LARGEST_TUMOUR,)
    assert found.nested[:, 0] == pytest.approx([0.6] * 4)
    assert (found.levels[0].before, found.levels[0].after, found.levels[0].kept) == (pytest.approx(0.5), pytest.approx(0.6), True)


def test_what_helps_on_all_cases_and_hurts_on_those_left_out_is_not_kept():
    """On all: 2.0 -> 2.1. Left out: part 0 gets what part 1 likes (large), and the other way round: each loses."""
    found = find_rules(
        [Level("tumour", (SMALL, LARGE))],
        table(before=[0.5, 0.5, 0.5, 0.5], small=[0.8, 0.8, 0.3, 0.2], large=[0.3, 0.2, 0.7, 0.7]),
        np.array([0, 0, 1, 1]),
    )
    level = found.levels[0]
    assert level.fitted == SMALL, "0.525 on all cases, against 0.475"
    assert level.after == pytest.approx((0.3 + 0.2 + 0.3 + 0.2) / 4)
    assert not level.kept
    assert found.rules == ()
    assert np.array_equal(found.nested, found.dice)


def test_of_equally_good_rules_the_mildest_is_taken():
    same = [0.6] * 4
    found = find_rules(
        [Level("tumour", (SMALL, LARGE, LARGEST_TUMOUR))],
        table(before=[0.5] * 4, small=same, large=same, largest=same),
        np.array([0, 0, 1, 1]),
    )
    assert found.rules == (SMALL,)


def test_no_class_may_get_worse():
    """The mean rises from 0.5 to 0.55, and the second class falls."""
    rule = Rule(LARGEST, ("tumour", "node"))
    dice = {(): np.full((4, 2), 0.5), (rule,): np.tile([0.7, 0.4], (4, 1))}
    found = find_rules([Level("together", (rule,))], lambda sequences: {s: dice[s] for s in sequences}, np.array([0, 0, 1, 1]))
    assert found.rules == ()
    assert found.levels[0].fitted is None


def test_specks_where_there_is_nothing_are_worth_removing():
    """Case 4 has no tumour: its speck is a Dice of 0, and without it there is none to count."""
    found = find_rules(
        [Level("tumour", (SMALL,))], table(before=[0.5, 0.5, 0.5, 0.0], small=[0.5, 0.5, 0.5, np.nan]), np.array([0, 1, 0, 1])
    )
    assert not found.rules, "part 1 alone shows it, so nothing was found for it"
    found = find_rules(
        [Level("tumour", (SMALL,))], table(before=[0.5, 0.0, 0.5, 0.0], small=[0.5, np.nan, 0.5, np.nan]), np.array([0, 0, 1, 1])
    )
    assert found.rules == (SMALL,)


def test_one_part_alone_gives_no_rules():
    found = find_rules([Level("tumour", (LARGEST_TUMOUR,))], table(before=[0.5, 0.5], largest=[0.9, 0.9]), np.array([0, 0]))
    assert (found.rules, found.levels) == ((), ())


def test_parts_are_the_folds_or_groups_of_patients():
    assert parts_of(["0", "1", "0"], ["a", "b", "c"]).tolist() == [0, 1, 0]
    patients = ["a", "a", "b", "c", "d", "e", "f"]
    parts = parts_of(["0"] * 7, patients)
    assert parts[0] == parts[1]
    assert len(set(parts.tolist())) == 5


def test_thresholds_are_steps_between_a_voxel_and_half_the_usual_component():
    assert ladder(3.0, 60.0) == [5.0, 10.0, 20.0, 50.0]
    assert ladder(0.3, 0.2) == []
    levels = levels_for(["tumour", "node"], Survey((3.0, 4.0), {"tumour": (100.0, 120.0, 9000.0), "node": ()}))
    assert [level.name for level in levels] == ["all foreground together", "tumour", "node"]
    assert [rule.mm3 for rule in levels[1].alternatives] == [5.0, 10.0, 20.0, 50.0, 0.0]
    assert levels[2].alternatives == (Rule(LARGEST, ("node",)),)
    assert levels_for(["tumour"], Survey((3.0,), {"tumour": (100.0,)}))[0].name == "tumour", "one class has no others to go with"


# --- on masks: a block of tumour (3 x 3 x 3) and one of node (2 x 2 x 2); specks of each somewhere else


def write(path, array):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 2.0))
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def masks(tmp_path):
    """Eight cases: every prediction has a speck of tumour too many, and a second true node of one voxel."""
    references, predictions = {}, {}
    for index in range(8):
        truth = np.zeros((6, 9, 12), np.uint8)
        truth[1:4, 1:4, 1:4], truth[1:3, 6:8, 6:8] = 1, 2
        truth[5, 8, index] = 2
        drawn = truth.copy()
        drawn[5, 0, 11] = 1
        references[f"c{index}"] = write(tmp_path / f"truth{index}.nii.gz", truth)
        predictions[f"c{index}"] = write(tmp_path / f"drawn{index}.nii.gz", drawn)
    return references, predictions


def test_a_rule_that_helps_one_class_leaves_the_other_alone(masks):
    """The speck of tumour goes (27 voxels right, 1 wrong: 54/55), the small node is real and stays; together would cost the nodes."""
    references, predictions = masks
    found = find_rules(
        levels_for(["tumour", "node"], survey(predictions, LABELS)),
        lambda sequences: dice_after_rules(references, predictions, sequences, LABELS, tolerance=0.1),
        np.arange(8) % 2,
    )
    assert found.dice == pytest.approx(np.tile([54 / 55, 1.0], (8, 1)))
    assert found.rules == (Rule(MINIMUM, ("tumour",), 5.0),), "a voxel has 2 mm3; the mildest threshold that does it"
    assert found.nested == pytest.approx(np.ones((8, 2)))
    assert [level.kept for level in found.levels] == [False, True, False]


def test_dice_of_masks_tells_what_the_references_show(masks, tmp_path):
    references, predictions = masks
    empty = write(tmp_path / "empty.nii.gz", np.zeros((6, 9, 12), np.uint8))
    found = dice_of_masks({"c0": references["c0"], "none": empty}, {"x": {"c0": predictions["c0"], "none": empty}}, LABELS, tolerance=0.1)
    assert found.present.tolist() == [[True, True], [False, False]]
    assert found.dice["x"][0] == pytest.approx([54 / 55, 1.0])
    assert np.isnan(found.dice["x"][1]).all()


def test_ignored_voxels_count_for_nothing(tmp_path):
    """The prediction's two voxels beside the tumour lie where the reference says nothing."""
    truth = np.array([[[1, 1, 2, 2, 0]]], np.uint8)
    drawn = np.array([[[1, 1, 1, 1, 0]]], np.uint8)
    scheme = LabelScheme({"background": 0, "tumour": 1, "ignore": 2})
    paths = write(tmp_path / "truth.nii.gz", truth), write(tmp_path / "drawn.nii.gz", drawn)
    assert dice_of_masks({"c": paths[0]}, {"x": {"c": paths[1]}}, scheme, tolerance=0.1).dice["x"].tolist() == [[1.0]]


REGIONS = LabelScheme({"background": 0, "tumour": (1, 2), "core": 2}, (1, 2))


def test_rules_of_regions_that_overlap(tmp_path):
    """A tumour of 27 voxels with a core of one, to which the prediction adds a second; and a speck of core far from it.

    By hand: tumour 54/55, core 2/4. With the largest component of both together alone the far speck is gone: 1 and 2/3. After that
    nothing helps the core: its two voxels are one component.
    """
    references, predictions = {}, {}
    for index in range(4):
        truth = np.zeros((6, 9, 12), np.uint8)
        truth[1:4, 1:4, 1:4] = 1
        truth[2, 2, 2] = 2
        drawn = truth.copy()
        drawn[1, 1, 1] = drawn[5, 8, 8 + index % 2] = 2
        drawn[5, 8, 11] = 0
        references[f"c{index}"] = write(tmp_path / f"truth{index}.nii.gz", truth)
        predictions[f"c{index}"] = write(tmp_path / f"drawn{index}.nii.gz", drawn)
    found = find_rules(
        levels_for(["tumour", "core"], survey(predictions, REGIONS)),
        lambda sequences: dice_after_rules(references, predictions, sequences, REGIONS, tolerance=0.1),
        np.arange(4) % 2,
    )
    assert found.dice == pytest.approx(np.tile([54 / 55, 2 / 4], (4, 1)))
    assert found.rules == (Rule(LARGEST, ("tumour", "core")),)
    assert found.nested == pytest.approx(np.tile([1.0, 2 / 3], (4, 1)))
    tried = [(Rule(MINIMUM, ("core",), mm3),) for mm3 in (4.0, 10.0)]  # a voxel has 2 mm3
    after = dice_after_rules(references, predictions, tried, REGIONS, tolerance=0.1)
    assert after[tried[0]] == pytest.approx(np.tile([54 / 55, 2 / 3], (4, 1))), "what was core is tumour still"
    assert after[tried[1]] == pytest.approx(np.tile([54 / 55, 0.0], (4, 1)))
