"""Rules of postprocessing on masks small enough to see what must go."""

import numpy as np
import pytest

from autoseg.errors import ModelError
from autoseg.inference.postprocessing import LARGEST, MINIMUM, Rule, parse_rules, postprocess, replacements
from planners.labels import LabelScheme

LABELS = LabelScheme({"background": 0, "tumour": 1, "node": 2})
REGIONS = LabelScheme({"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, (1, 2, 3))
SPACING = (3.0, 1.0, 1.0)

MASK = np.array([[[1, 1, 1, 0, 2, 2, 0, 1], [1, 2, 0, 0, 0, 0, 0, 0], [0, 0, 0, 2, 0, 0, 2, 0]]], np.uint8)
"""Together: the left block of five voxels, one beside it (2), and single ones; by label tumour 4 and 1, node 1, 2, 1, 1."""


def after(*rules, mask=MASK, scheme=LABELS):
    return postprocess(mask, rules, SPACING, scheme).tolist()[0]


def test_the_largest_component_of_one_label():
    assert after(Rule(LARGEST, ("tumour",))) == [[1, 1, 1, 0, 2, 2, 0, 0], [1, 2, 0, 0, 0, 0, 0, 0], [0, 0, 0, 2, 0, 0, 2, 0]]


def test_the_largest_component_of_all_foreground_together():
    together = Rule(LARGEST, ("tumour", "node"))
    assert after(together) == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 2, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]
    assert after(Rule(LARGEST, ("node",)), together) == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [0] * 8], "in this order"


def test_of_components_that_are_equally_large_all_stay():
    mask = np.array([[[1, 0, 1, 0, 1, 1, 0, 1, 1]]], np.uint8)
    assert after(Rule(LARGEST, ("tumour",)), mask=mask) == [[0, 0, 0, 0, 1, 1, 0, 1, 1]]


@pytest.mark.parametrize(("mm3", "kept"), [(3.0, [1, 2, 1, 1]), (3.1, [2]), (6.0, [2]), (6.1, [])])
def test_a_minimum_size_is_in_cubic_millimetres(mm3, kept):
    """A voxel has 3 mm3."""
    found = postprocess(MASK, [Rule(MINIMUM, ("node",), mm3)], SPACING, LABELS)
    assert np.count_nonzero(found == 2) == sum(kept)
    assert np.array_equal(found == 1, MASK == 1)


def test_a_threshold_that_is_a_size_keeps_it_in_spite_of_rounding():
    mask = np.ones((1, 1, 3), np.uint8)
    assert postprocess(mask, [Rule(MINIMUM, ("tumour",), 0.3)], (0.1, 1.0, 1.0), LABELS).all()  # 3 * 0.1 is not 0.3


def test_neighbours_across_a_corner_are_one_component():
    mask = np.zeros((3, 3, 3), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 1
    assert np.array_equal(postprocess(mask, [Rule(LARGEST, ("tumour",))], SPACING, LABELS), mask)


def test_regions_that_go_leave_what_they_are_in_and_take_what_is_in_them():
    mask = np.array([[[1, 2, 3, 3, 1, 2, 1, 0, 1]]], np.uint8)
    assert after(Rule(LARGEST, ("core",)), mask=mask, scheme=REGIONS) == [[1, 2, 3, 3, 1, 1, 1, 0, 1]]
    assert after(Rule(MINIMUM, ("core",), 100.0), mask=mask, scheme=REGIONS) == [[1, 1, 1, 1, 1, 1, 1, 0, 1]]
    assert after(Rule(MINIMUM, ("enhancing",), 100.0), mask=mask, scheme=REGIONS) == [[1, 2, 2, 2, 1, 2, 1, 0, 1]]
    assert after(Rule(LARGEST, ("whole",)), mask=mask, scheme=REGIONS) == [[1, 2, 3, 3, 1, 2, 1, 0, 0]]
    assert replacements(["whole"], REGIONS) == {1: 0, 2: 0, 3: 0}


def test_regions_that_overlap_in_part_and_have_no_value_of_their_own_become_background():
    scheme = LabelScheme({"background": 0, "a": (1, 2), "b": (2, 3), "c": (2,)}, (1, 3, 2))
    assert replacements(["a"], scheme) == {1: 0, 2: 3}, "what is left of 2 without a, and without c inside a, is b: 3"
    assert replacements(["b"], scheme) == {2: 1, 3: 0}


@pytest.mark.parametrize("shape", [(0,), (4, 3, 2)])
def test_an_empty_mask_stays(shape):
    mask = np.zeros((*shape, 1, 1)[:3], np.uint8)
    assert not postprocess(mask, [Rule(LARGEST, ("tumour", "node")), Rule(MINIMUM, ("node",), 50.0)], SPACING, LABELS).any()


def test_the_input_is_not_changed():
    before = MASK.copy()
    postprocess(MASK, [Rule(MINIMUM, ("node",), 1e6)], SPACING, LABELS)
    assert np.array_equal(MASK, before)


def test_rules_are_written_and_read():
    rules = (Rule(LARGEST, ("tumour", "node")), Rule(MINIMUM, ("node",), 50.0))
    assert parse_rules([rule.to_dict() for rule in rules], "x") == rules
    assert [str(rule) for rule in rules] == [
        "only the largest component of tumour and node together",
        "no component of node below 50 mm3",
    ]


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"rule": "erode", "of": ["node"]},
        {"rule": LARGEST, "of": []},
        {"rule": LARGEST, "of": ["node"], "mm3": 5},
        {"rule": MINIMUM, "of": ["node"]},
        {"rule": MINIMUM, "of": ["node"], "mm3": -1},
        {"rule": MINIMUM, "of": ["node"], "mm3": True},
        {"rule": MINIMUM, "of": "node", "mm3": 1},
    ],
)
def test_what_is_no_rule_is_refused(document):
    with pytest.raises(ModelError, match=r"^chosen\.json"):
        parse_rules([document], "chosen.json")
