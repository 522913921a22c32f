import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from autoseg.evaluation.lesions import LesionCounts, aggregated_f1, label_components, lesion_counts


def line(text):
    """A mask of one row: # is inside."""
    return np.array([[[c == "#" for c in text]]])


def test_found_claimed_and_missed_by_hand():
    reference = line("##..##..##....")
    prediction = line("##...###....#.")
    # first pair IoU 1; second 1 shared of 4; third missed; the last predicted is claimed
    assert lesion_counts(prediction, reference) == LesionCounts(tp=2, fp=1, fn=1)
    assert lesion_counts(prediction, reference).f1 == pytest.approx(4 / 6)
    assert lesion_counts(prediction, reference).sensitivity == pytest.approx(2 / 3)
    assert lesion_counts(prediction, reference).precision == pytest.approx(2 / 3)


def test_the_threshold_must_be_exceeded():
    reference, prediction = line("##.."), line(".##.")
    assert lesion_counts(prediction, reference, iou=0.33).tp == 1
    assert lesion_counts(prediction, reference, iou=1 / 3).tp == 0
    assert lesion_counts(line("#" * 63 + "." * 27), line("#" * 90), iou=0.7).tp == 0, "63 of 90 is 0.7, though 0.7 * 90 < 63 as floats"


def test_one_prediction_over_two_lesions_finds_one():
    assert lesion_counts(line("#####"), line("##.##")) == LesionCounts(tp=1, fp=0, fn=1)
    assert lesion_counts(line("##.##"), line("#####")) == LesionCounts(tp=1, fp=1, fn=0)


def test_the_pairing_with_most_pairs_counts():
    # reference 2 fits both predictions, reference 1 only the first: greedy by IoU would pair reference 2 with the first
    reference, prediction = line("###.#########......"), line("..########.########")
    a, b = lesion_counts(prediction, reference, iou=0.05), lesion_counts(reference, prediction, iou=0.05)
    assert a == LesionCounts(tp=2, fp=0, fn=0)
    assert b == LesionCounts(tp=2, fp=0, fn=0)


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity(connectivity, count):
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 2, 2] = True  # neighbours over edges, all of them
    mask[1, 2, 2], mask[1, 2, 0] = False, False
    mask[1, 2, 2] = False
    mask[1, 0, 2] = True  # shares an edge with (0, 1, 1)? no: a corner
    assert label_components(mask, connectivity)[1] == count


def test_empty_masks():
    none, some = line("...."), line("##..")
    assert math.isnan(lesion_counts(none, none).f1)
    assert lesion_counts(some, none) == LesionCounts(0, 1, 0)
    assert lesion_counts(none, some) == LesionCounts(0, 0, 1)
    assert lesion_counts(some, none).f1 == 0
    assert math.isnan(lesion_counts(some, none).sensitivity)
    assert math.isnan(lesion_counts(none, some).precision)


def test_aggregated_f1_sums_over_cases():
    assert aggregated_f1([LesionCounts(1, 0, 0), LesionCounts(0, 1, 2)]) == pytest.approx(2 / 5)
    assert math.isnan(aggregated_f1([LesionCounts(0, 0, 0)]))


@pytest.mark.parametrize(("wrong", "message"), [({"iou": 1.0}, "iou"), ({"iou": -0.1}, "iou"), ({"connectivity": 8}, "6, 18, 26, found 8")])
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        lesion_counts(line("#"), line("#"), **wrong)


@settings(max_examples=80, deadline=None)
@given(arrays(bool, (2, 4, 5)), arrays(bool, (2, 4, 5)))
def test_as_an_assignment_over_all_pairs(prediction, reference):
    p, n_p = label_components(prediction, 6)
    r, n_r = label_components(reference, 6)
    overlap = np.array([[np.sum((p == i) & (r == j)) / np.sum((p == i) | (r == j)) for j in range(1, n_r + 1)] for i in range(1, n_p + 1)])
    allowed = overlap.reshape(n_p, n_r) > 0.1
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    found = int(allowed[rows, columns].sum())
    assert lesion_counts(prediction, reference, connectivity=6) == LesionCounts(found, n_p - found, n_r - found)
