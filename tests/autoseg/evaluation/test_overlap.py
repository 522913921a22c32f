import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.evaluation.overlap import VoxelCounts, aggregated_dice, bounding_box, count_voxels, dice, iou, volume_ml


def row(*values):
    return np.array(values, dtype=bool).reshape(1, 1, -1)


def test_counts_by_hand():
    counts = count_voxels(prediction=row(1, 1, 1, 0, 0), reference=row(1, 1, 0, 1, 0))
    assert counts == VoxelCounts(tp=2, fp=1, fn=1, tn=1)
    assert (counts.prediction, counts.reference) == (3, 3)
    assert counts.dice == pytest.approx(4 / 6)
    assert counts.iou == pytest.approx(2 / 4)


def test_both_empty_is_undefined_and_one_empty_is_zero():
    empty, full = row(0, 0), row(1, 0)
    assert math.isnan(dice(empty, empty))
    assert math.isnan(iou(empty, empty))
    assert dice(full, empty) == dice(empty, full) == iou(full, empty) == 0


def test_aggregated_dice_sums_volumes_over_cases_and_counts_empty_references():
    # 2 * 2 / (2 * 2 + 1 + 1) alone; 3 false positives of a case without the structure lower it
    counts = [VoxelCounts(2, 1, 1, 9), VoxelCounts(0, 3, 0, 9), VoxelCounts(0, 0, 0, 9)]
    assert aggregated_dice(counts[:1], [1.0]) == pytest.approx(4 / 6)
    assert aggregated_dice(counts, [1.0, 1.0, 1.0]) == pytest.approx(4 / 9)
    assert aggregated_dice(counts, [2.0, 1.0, 1.0]) == pytest.approx(8 / 15)
    assert math.isnan(aggregated_dice(counts[2:], [1.0]))


def test_volume():
    assert volume_ml(8, (5.0, 10.0, 2.5)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        (np.zeros((1, 2, 3), bool), np.zeros((1, 3, 2), bool), r"\(1, 2, 3\) and \(1, 3, 2\)"),
        (np.zeros((1, 2), np.uint8), np.zeros((1, 2), bool), "prediction must be a bool array, found uint8"),
    ],
)
def test_wrong_arrays_are_named(prediction, reference, message):
    with pytest.raises(ValueError, match=message):
        dice(prediction, reference)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, (2, 3, 4)), arrays(bool, (2, 3, 4)))
def test_identities(a, b):
    counts = count_voxels(a, b)
    assert counts.tp + counts.fp + counts.fn + counts.tn == a.size
    if a.any() or b.any():
        assert dice(a, b) == dice(b, a)
        assert dice(a, b) == pytest.approx(2 * iou(a, b) / (1 + iou(a, b)))
        assert dice(a | b, a | b) == 1


@settings(max_examples=60, deadline=None)
@given(arrays(bool, (3, 4, 5)), st.integers(0, 2))
def test_bounding_box_holds_everything_and_nothing_more(mask, margin):
    box = bounding_box(mask, margin)
    if not mask.any():
        assert box is None
        return
    where = np.argwhere(mask)
    expected = [
        (max(low - margin, 0), min(high + 1 + margin, size)) for low, high, size in zip(where.min(0), where.max(0), mask.shape, strict=True)
    ]
    assert [(part.start, part.stop) for part in box] == expected
