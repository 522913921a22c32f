"""Columns to numbers: worked out by hand, and properties of the encoding."""

import json

import numpy as np
import pandas as pd
import pytest
from cohorts import make_cohort

from prognosis.errors import PrognosisModelError
from prognosis.models.encode import Encoder, Levels, MissingFlag, Numeric

KINDS = {"age": "numeric", "stage": "categorical"}


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype=object if name == "stage" else float) for name, values in columns.items()})


def test_numbers_are_imputed_with_the_training_median_and_scaled():
    encoder = Encoder.fit(frame(age=[1, 3, 5, np.nan]), KINDS, ["age"])
    sd = np.sqrt((4 + 0 + 4 + 0) / 4)  # of 1, 3, 5 and the median 3
    assert encoder.names == ("age", "missing: age")
    np.testing.assert_allclose(encoder.matrix(frame(age=[1, np.nan, 7])), [[-2 / sd, -0.5], [0, 1.5], [4 / sd, -0.5]])


def test_levels_have_an_indicator_each_but_the_commonest():
    encoder = Encoder.fit(frame(stage=["I", "II", "II", "III"]), KINDS, ["stage"])
    assert encoder.names == ("stage=I", "stage=III")
    np.testing.assert_allclose(encoder.matrix(frame(stage=["I", "II", "III"])), [[1.5, -0.5], [-0.5, -0.5], [-0.5, 1.5]])
    # what the training patients never showed stands where their average stands
    np.testing.assert_array_equal(encoder.matrix(frame(stage=["IV", None])), np.zeros((2, 2)))


def test_columns_missing_together_share_a_flag():
    blank = [np.nan, 1, 2, 3]
    encoder = Encoder.fit(frame(a=blank, b=[np.nan, 5, 1, 2], c=[1, np.nan, 2, 4]), dict.fromkeys("abc", "numeric"), ["a", "b", "c"])
    assert [part.columns for part in encoder.parts if isinstance(part, MissingFlag)] == [("a", "b"), ("c",)]


def test_what_cannot_be_used_is_dropped_with_its_reason():
    encoder = Encoder.fit(frame(age=[4, 4, 4], stage=[None] * 3), KINDS, ["age", "stage"])
    assert encoder.dropped == {
        "age": "all training patients have the same value",
        "stage": "no training patient has a value",
    }
    assert encoder.matrix(frame(age=[1, 2], stage=["I", None])).shape == (2, 0)


def test_a_column_that_is_constant_but_for_gaps_keeps_its_flag():
    encoder = Encoder.fit(frame(age=[4, 4, np.nan]), KINDS, ["age"])
    assert encoder.names == ("missing: age",)
    assert encoder.columns == ("age",)


def test_skewed_columns_go_on_a_logarithmic_scale_whatever_their_unit():
    values = np.random.default_rng(0).lognormal(2, 1, 200)
    in_ml, in_mm3 = (Encoder.fit(frame(age=values * unit), KINDS, ["age"]) for unit in (1.0, 1000.0))
    assert in_ml.parts[0].log_unit == pytest.approx(np.quantile(values, 0.1))
    np.testing.assert_allclose(in_ml.matrix(frame(age=values)), in_mm3.matrix(frame(age=values * 1000)), atol=1e-9)
    assert Encoder.fit(frame(age=np.arange(50.0)), KINDS, ["age"]).parts[0].log_unit is None
    assert Encoder.fit(frame(age=values - 5), KINDS, ["age"]).parts[0].log_unit is None  # has negative values


def test_training_columns_have_mean_0_and_sd_1():
    cohort = make_cohort(n=120)
    encoder = Encoder.fit(cohort.predictors, cohort.kinds, tuple(cohort.groups))
    matrix = encoder.matrix(cohort.predictors)
    numeric = [number for number, name in enumerate(encoder.names) if name in cohort.kinds]
    np.testing.assert_allclose(matrix[:, numeric].std(axis=0), 1, atol=1e-12)
    flags = [number for number, name in enumerate(encoder.names) if name not in cohort.kinds and "=" not in name]
    np.testing.assert_allclose(matrix[:, [*numeric, *flags]].mean(axis=0), 0, atol=1e-12)


def test_state_survives_json_bit_by_bit():
    cohort = make_cohort(n=60)
    encoder = Encoder.fit(cohort.predictors, cohort.kinds, tuple(cohort.groups))
    again = Encoder.from_state(json.loads(json.dumps(encoder.state(), allow_nan=False)))
    assert again == encoder
    assert {type(part) for part in encoder.parts} == {Numeric, Levels, MissingFlag}
    np.testing.assert_array_equal(again.matrix(cohort.predictors), encoder.matrix(cohort.predictors))


def test_says_what_lies_outside_the_training_patients():
    encoder = Encoder.fit(frame(age=[40, 50, 80, 60], stage=["I", "II", None, "II"]), KINDS, ["age", "stage"])
    said = encoder.outside(frame(age=[60, 83, 200, np.nan], stage=["I", "IV", None, "II"]))
    assert said == [
        (),
        ("stage is IV; the training patients had I, II",),
        ("age is 200; the training patients had 40 to 80",),
        ("age is missing, which it was for no training patient",),
    ]


def test_names_the_columns_that_are_not_there():
    encoder = Encoder.fit(frame(age=[1, 2, 3], stage=["I", "II", "II"]), KINDS, ["age", "stage"])
    with pytest.raises(PrognosisModelError, match="needs the columns stage"):
        encoder.matrix(frame(age=[1]))


def test_infinite_numbers_count_as_missing():
    encoder = Encoder.fit(frame(age=[1, 3, 5, np.inf]), KINDS, ["age"])
    assert encoder == Encoder.fit(frame(age=[1, 3, 5, np.nan]), KINDS, ["age"])
