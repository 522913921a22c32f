"""New patients' tables: rows found, spellings, and cells of the wrong kind told before anything is segmented."""

import numpy as np
import pandas as pd
import pytest

from prognosis.errors import CohortError
from prognosis.features.case import FEATURES, Measured
from prognosis.models.pipeline import Penalty, Pipeline
from prognosis.outcomes import Labels
from prognosis.prediction.patients import Clinical, check_columns, model_frame
from prognosis.targets import SHIPPED, Declaration


@pytest.fixture(scope="module")
def fitted():
    n = 30
    frame = pd.DataFrame(
        {
            "Age": np.linspace(40, 80, n),
            "Tobacco Consumption": np.array(["0", "1"] * (n // 2), dtype=object),
            "volume_total_ml": np.linspace(1, 30, n),
        }
    )
    kinds = {"Age": "numeric", "Tobacco Consumption": "categorical", "volume_total_ml": "numeric"}
    return Pipeline("binary", tuple(kinds), (), Penalty(1.0, 1.0)).fit(frame, kinds, Labels(np.arange(n) % 3 == 0))


def table(tmp_path, text, cases=("A", "B"), declaration=None):
    path = tmp_path / "casesTs.csv"
    path.write_text(text, encoding="utf-8-sig")
    return Clinical.of(path, cases, declaration or Declaration())


def frame_of(fitted, clinical, cases=("A", "B")):
    measured = {case: Measured(dict.fromkeys(FEATURES, float("nan")) | {"volume_total_ml": 7.0}) for case in cases[:1]}
    return model_frame(fitted, cases, clinical, measured)


def test_each_case_gets_its_row_and_nothing_is_filled_in(fitted, tmp_path):
    clinical = table(tmp_path, "case,patient,tobacco_consumption,Age\nB,Bob,1.0,50\nA,Ann,,61.5\n")
    frame = frame_of(fitted, clinical)
    assert frame["Age"].tolist() == [61.5, 50.0]
    assert frame["Tobacco Consumption"].tolist() == [None, "1"]
    assert frame["volume_total_ml"].tolist()[0] == 7.0
    assert np.isnan(frame["volume_total_ml"].tolist()[1])
    assert (clinical.patient("A"), clinical.patient("C")) == ("Ann", "C")


def test_rows_and_cases_without_each_other_are_told(fitted, tmp_path):
    clinical = table(tmp_path, "case,Age\nA,50\nX,50\n")
    assert any("X" in note and "not predicted" in note for note in clinical.notes)
    assert any("no row for B" in note for note in clinical.notes)
    assert np.isnan(frame_of(fitted, clinical)["Age"].tolist()[1])
    assert check_columns(fitted, clinical) == ("Tobacco Consumption",)


def test_a_table_of_other_patients_is_an_error(tmp_path):
    with pytest.raises(CohortError, match="no row for any of the 2 case"):
        table(tmp_path, "case,Age\nX,50\n")
    clinical = Clinical.of(tmp_path / "casesTs.csv", ("A", "B"), Declaration(), must_match=False)
    assert any("no row for A, B" in note for note in clinical.notes)


def test_no_table(fitted):
    clinical = Clinical.of(None, ("A", "B"), Declaration())
    assert frame_of(fitted, clinical)["Age"].isna().all()
    assert check_columns(fitted, clinical) == ("Age", "Tobacco Consumption")


@pytest.mark.parametrize("cell", ["12/03/1960", "old", '"61,5"'])
def test_a_cell_of_another_kind_names_the_row(fitted, tmp_path, cell):
    clinical = table(tmp_path, f"case,Age\nA,{cell}\n")
    with pytest.raises(CohortError, match="row 2"):
        check_columns(fitted, clinical)


def test_decimal_commas_where_declared(fitted, tmp_path):
    clinical = table(tmp_path, "case;Age\nA;61,5\n", declaration=Declaration(decimal=","))
    assert frame_of(fitted, clinical)["Age"].tolist()[0] == 61.5


def test_what_is_measured_of_the_target_itself_is_found(tmp_path):
    clinical = table(tmp_path, "case,HPV_status\nA,1\nB,\n")
    assert clinical.measured(SHIPPED["hpv"]) == {"A": "1"}
