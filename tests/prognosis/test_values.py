"""Cells become numbers and levels, or an error; never a guess."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prognosis.errors import CohortError
from prognosis.values import Column, infer_kind, level, levels, numbers, typed


def column(*cells, **keywords) -> Column:
    return Column("x", cells, [f"row {index + 2}" for index in range(len(cells))], Path("t.csv"), **keywords)


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_come_back_bit_by_bit(values):
    cells = [repr(value) for value in values]
    np.testing.assert_array_equal(numbers(column(*cells)), values)
    np.testing.assert_array_equal(numbers(column(*(cell.replace(".", ",") for cell in cells), decimal=",")), values)


@pytest.mark.parametrize("cell", ["", "NA", "n/a", "NaN", "#N/A", "null", "?", "."])
def test_usual_words_for_a_missing_value(cell):
    assert np.isnan(numbers(column(cell, "1"))).tolist() == [True, False]
    assert levels(column(cell, "a"))[0].tolist() == [None, "a"]


def test_declared_words_for_a_missing_value():
    assert np.isnan(numbers(column("Unknown", "1", missing=("unknown",)))).tolist() == [True, False]
    assert levels(column("unknown", "none", "-"))[0].tolist() == ["unknown", "none", "-"]


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("12/06/2008", "holds dates where a number is due"),
        ("2008-06-12 10:30", "dates"),
        ("12 Jun 2008", "dates"),
        ("12.6.08", "dates"),
        ("6/2008", "dates"),
        ("63,5", 'decimal commas .* decimal = ","'),
        ("1,234.5", "holds text"),
        ("63 y", "holds text"),
        ("inf", "holds text"),
        ("1_000", "holds text"),
        ("0x10", "holds text"),
        ("١٢", "holds text"),
        ("1e999", "too large"),
    ],
)
def test_what_is_no_number(cell, says):
    with pytest.raises(CohortError, match=says) as caught:
        numbers(column("1", cell))
    assert "t.csv: column 'x': " in str(caught.value)
    assert f"row 3: {cell!r}" in str(caught.value)


def test_points_are_not_read_as_thousands_where_commas_are_declared():
    with pytest.raises(CohortError, match="decimal points"):
        numbers(column("1,5", "1.234", decimal=","))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (("1", "2.5", "", "-3"), "numeric"),
        (("True", "FALSE", "yes", ""), "numeric"),
        (("a", "b", "1"), "categorical"),
        (("M0", "M1"), "categorical"),
        (("", ""), "numeric"),
    ],
)
def test_kinds_by_values(cells, kind):
    assert infer_kind(column(*cells)) == kind


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (("3", "2", "4a", "1"), "3 of 4 values are numbers.*row 4: '4a'.*categorical"),
        (("24/8/99", "2/11/98", ""), "dates, which are no predictor"),
        (("61,5", "60"), "decimal commas"),
    ],
)
def test_kinds_that_would_be_a_guess(cells, says):
    with pytest.raises(CohortError, match=says):
        infer_kind(column(*cells))


def test_truth_words_are_numbers():
    np.testing.assert_array_equal(typed(column("True", "no", "YES", ""), None)[0], [1, 0, 1, np.nan])


@pytest.mark.parametrize(("cell", "text"), [("1.0", "1"), ("-0", "0"), ("T2 ", "T2"), ("a  b", "a b"), ("1.5", "1.5"), ("007", "7")])
def test_levels_as_they_are_compared(cell, text):
    assert level(cell) == text


def test_capitals_do_not_make_a_level():
    values, notes = levels(column("male", "Male", "male", "female", ""))
    assert values.tolist() == ["male", "male", "male", "female", None]
    assert notes == ("x: 'Male' and 'male' are taken as one level",)
    values, _ = levels(column("MALE", "other"), known_levels=("male", "female"))
    assert values.tolist() == ["male", "other"]
