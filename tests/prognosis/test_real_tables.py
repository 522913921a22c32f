"""Real head-and-neck tables: numbers counted from the files by hand with other tools, and errors with a remedy that works."""

import csv
from pathlib import Path

import numpy as np
import pytest

from prognosis.cohort import load_cohort
from prognosis.declaration import read_declaration
from prognosis.errors import CohortError, TargetError
from prognosis.targets import Declaration

DOCUMENTED = Path(__file__).parents[2] / "docs" / "prognosis-table.md"
VALLIERES = DOCUMENTED.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]

HNSCC = """
[table]
patient = "TCIA code"

[columns]
Site = "predictor"
T = { role = "predictor", kind = "categorical" }
"Time from preRT image to start RT (month)" = { role = "predictor", known_at_origin = true }

[targets.lrc]
kind = "survival"
event = "Loco-regional Control Censor"
time = "Disease-free interval (months)"
unit = "months"
origin = "end of radiotherapy"
"""

LYDATA = """
[table]
header_rows = 3
patient = "patient/#/id"
centre = "patient/#/institution"

[columns]
"patient/#/age" = "predictor"
"patient/#/nicotine_abuse" = "predictor"
"tumor/1/t_stage" = "predictor"

[targets.hpv]
event = "patient/#/hpv_status"
positive = true
negative = false
"""


@pytest.fixture
def tables(shared_data):
    return shared_data / "hn_tables"


@pytest.fixture
def declare(tmp_path):
    def call(text: str) -> Declaration:
        path = tmp_path / "cohort.toml"
        path.write_text(text, encoding="utf-8")
        return read_declaration(path)

    return call


@pytest.mark.parametrize(("target", "events"), [("relapse", 50), ("relapse_or_death", 60)])
def test_vallieres(tables, declare, target, events):
    path = tables / "vallieres2017_hn.csv"
    cohort = load_cohort(path, None, target, declare(VALLIERES))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert cohort.patients == tuple(row["patient"] for row in rows)
    assert [step.patients for step in cohort.flow] == [194, 194, 194]
    assert cohort.outcome.event.sum() == events
    np.testing.assert_array_equal(cohort.outcome.time_days, [float(row[f"{target}_days"]) for row in rows])
    assert {name: cohort.centre.count(name) for name in set(cohort.centre)} == {"HGJ": 92, "CHUS": 102}
    assert dict(cohort.kinds) == {
        **dict.fromkeys(["Age", "T_stage", "N_stage", "TNM_stage"], "numeric"),
        **dict.fromkeys(["HPV", "subsite"], "categorical"),
    }
    assert cohort.predictors["HPV"].isna().sum() == 100
    assert sorted(cohort.predictors["HPV"].dropna().unique()) == ["0", "1"]
    assert not any("nobody said" in note for note in cohort.notes)
    died_without = sum(row["Death"] == "1" and row["relapse_event"] == "0" for row in rows)
    assert any(f"patients who had it without relapse_event: {died_without}." in note for note in cohort.notes) == (target == "relapse")


def test_vallieres_hpv_is_the_target_and_no_predictor(tables, declare):
    cohort = load_cohort(tables / "vallieres2017_hn.csv", None, "hpv", declare(VALLIERES))
    assert (len(cohort), int(cohort.outcome.positive.sum()), len(cohort.flow[-1].names)) == (94, 56, 100)
    assert "HPV" not in cohort.predictors


def test_vallieres_without_a_declaration_says_what_to_declare(tables):
    with pytest.raises(TargetError, match=r"'Relapse', which the table lacks. Did you mean relapse_\w+.*\n  \[targets.rfs\]"):
        load_cohort(tables / "vallieres2017_hn.csv", None, "rfs", Declaration())


def test_vallieres_outcomes_are_refused_as_predictors(tables, declare):
    with pytest.raises(TargetError, match=r'"Distant_days": is refused as a predictor: its name \(\'distant\'\)'):
        declare(VALLIERES.replace('Distant_days = "outcome"', 'Distant_days = "predictor"'))


def test_hnscc(tables, declare):
    cohort = load_cohort(tables / "hnscc_TCIA_CCBYNC3.csv", None, "lrc", declare(HNSCC))
    assert [(step.patients, step.removed) for step in cohort.flow] == [(144, 0), (144, 0), (141, 3)]
    assert list(cohort.predictors) == ["Age", "Site", "T", "HPV status", "Time from preRT image to start RT (month)"]
    assert any("is read as the event, not as censoring" in note for note in cohort.notes)
    with (tables / "hnscc_TCIA_CCBYNC3.csv").open(encoding="utf-8-sig", newline="") as file:
        months = {row["TCIA code"]: row["Disease-free interval (months)"] for row in csv.DictReader(file)}
    np.testing.assert_allclose(cohort.outcome.time_days, [float(months[name]) * 30.4375 for name in cohort.patients], rtol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "Disease-free interval (months)",
            "Date of recurrence",
            r"holds dates where a number of months .*row 2 \(patient HNSCC-01-0001\): '18/2/07'",
        ),
        ('{ role = "predictor", kind = "categorical" }', '"predictor"', r"115 of 141 values are numbers.*row 13 .*'4a'"),
        ('Site = "predictor"', '"Oncologic Treatment Summary" = "predictor"', "29 different values"),
        ('Site = "predictor"', '"BW stop treat (kg)" = "predictor"', "'stop'.* tells of something measured after the clock starts"),
        ('patient = "TCIA code"', "", "no column names the patients; it has TCIA code"),
    ],
)
def test_hnscc_errors(tables, declare, old, new, says):
    assert old in HNSCC
    with pytest.raises((CohortError, TargetError), match=says):
        load_cohort(tables / "hnscc_TCIA_CCBYNC3.csv", None, "lrc", declare(HNSCC.replace(old, new)))


def test_lydata_with_its_three_lines_of_names(tables, declare):
    path = tables / "lydata" / "2021-usz-oropharynx" / "data.csv"
    with pytest.raises(CohortError, match=r"'patient'.* stand more than once.*header_rows = 3"):
        load_cohort(path, None, "hpv", Declaration())
    cohort = load_cohort(path, None, "hpv", declare(LYDATA))
    assert [(step.patients, step.removed) for step in cohort.flow] == [(287, 0), (277, 10)]
    assert "all patients are of one centre (University Hospital Zurich)" in cohort.notes[-1]
