"""The cohort: every row of a table ends in it or in a step of its flow; what cannot be meant is an error that names it."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from clinical import BAD_TABLES, LEVELS, ROWS, with_cell, with_column, write_table
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from autoseg.errors import AutosegError
from prognosis.cohort import load_cohort
from prognosis.declaration import read_declaration
from prognosis.errors import CohortError, TargetError
from prognosis.features.feature import EMPTY_MASK, NO_NODES, PET_NOT_SUV
from prognosis.features.table import FeatureTable
from prognosis.targets import SHIPPED, Declaration

PATIENTS = [row.split(",")[1] for row in ROWS]


def features(patients=PATIENTS, **changes) -> FeatureTable:
    volumes = np.arange(1.0, len(patients) + 1)
    frame = pd.DataFrame({"volume_total_ml": volumes, "suvmax_gtvp": volumes**2}, index=pd.Index(patients, dtype=object, name="patient"))
    return replace(FeatureTable(frame), **changes)


def require_whole(cohort, rows: int) -> None:
    """Every row is in the cohort or in a step, the steps' numbers add up, and no name is told twice."""
    assert cohort.flow[0].patients == rows
    for before, after in zip(cohort.flow, cohort.flow[1:], strict=False):
        assert after.patients + after.removed == before.patients
        assert len(after.names) == after.removed
        assert bool(after.why) == bool(after.removed)
    assert cohort.flow[-1].patients == len(cohort.patients) == len(cohort.predictors) == len(cohort.outcome)
    removed = [name for step in cohort.flow for name in step.names]
    assert not set(removed) & set(cohort.patients)
    assert len(removed) + len(cohort.patients) == rows


@pytest.mark.parametrize("bad", BAD_TABLES, ids=str)
def test_a_bad_table_is_an_error_that_says_where_and_what_to_do(bad, tmp_path):
    toml = None
    if bad.toml:
        toml = tmp_path / "cohort.toml"
        toml.write_text(bad.toml, encoding="utf-8")
    table = bad.write(tmp_path)
    with pytest.raises((CohortError, TargetError)) as caught:
        load_cohort(table, None, bad.target, read_declaration(toml))
    message = str(caught.value)
    assert all(part in message for part in bad.says), message
    assert isinstance(caught.value, AutosegError)
    assert caught.value.exit_status == 2


def test_rfs_by_hand(tmp_path):
    cohort = load_cohort(write_table(tmp_path), None, "rfs", Declaration())
    require_whole(cohort, 8)
    assert cohort.patients == tuple(PATIENTS)
    assert cohort.centre == tuple("AAAABBBB")
    assert cohort.target is SHIPPED["rfs"]
    np.testing.assert_array_equal(cohort.outcome.event, [1, 0, 1, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(cohort.outcome.time_days, [210, 1400, 90, 900, 2000, 455, 1200, 300.5])
    assert dict(cohort.kinds) == LEVELS
    assert set(cohort.groups.values()) == {"clinical"}
    assert list(cohort.predictors["HPV Status"]) == ["1", None, "0", "1", "0", "1", None, "0"]
    assert cohort.predictors["HPV Status"].dtype == object
    np.testing.assert_array_equal(cohort.predictors["Weight"], [70.5, np.nan, 82, 64, 91, 77, 80, 58])
    assert set(cohort.status.values()) == {"ok"}


def test_hpv_is_no_predictor_when_it_is_the_target(tmp_path):
    header = "case,patient,centre,Age,Gender,HPV Status,M-stage,Treatment,p16,Relapse,RFS"
    rows = [",".join([*row.split(",")[:7], str(index % 2), "1", *row.split(",")[-2:]]) for index, row in enumerate(ROWS)]
    toml = tmp_path / "cohort.toml"
    toml.write_text('[columns]\np16 = { role = "predictor", kind = "categorical" }\n', encoding="utf-8")
    declaration = read_declaration(toml)
    cohort = load_cohort(write_table(tmp_path, rows, header), None, "hpv", declaration)
    require_whole(cohort, 8)
    assert list(cohort.predictors) == ["Age", "Gender", "M-stage"]
    assert (cohort.flow[-1].step, cohort.flow[-1].names) == ("HPV Status known", ("A-2", "B-3"))
    np.testing.assert_array_equal(cohort.outcome.positive, [1, 0, 1, 0, 1, 0])
    assert any(note.startswith("p16: no predictor of hpv: it tells of the HPV status") for note in cohort.notes)
    assert any(note.startswith("Treatment: no predictor of hpv: treatment is chosen") for note in cohort.notes)
    assert "HPV Status" in load_cohort(tmp_path / "cases.csv", None, "rfs", declaration).predictors


def test_features_are_joined_by_patient_not_by_order(tmp_path):
    table = features(PATIENTS[::-1], flags={"A-1": (NO_NODES,), "A-3": (PET_NOT_SUV,)})
    cohort = load_cohort(write_table(tmp_path), table, "rfs", Declaration())
    require_whole(cohort, 8)
    np.testing.assert_array_equal(cohort.predictors["volume_total_ml"], [8, 7, 6, 5, 4, 3, 2, 1])
    assert (cohort.groups["volume_total_ml"], cohort.groups["suvmax_gtvp"]) == ("volume", "image")
    assert [cohort.status[name] for name in ("A-1", "A-2", "A-3")] == ["ok", "ok", "degraded"]


def test_a_patient_with_an_empty_mask_stays(tmp_path):
    table = features(flags={"B-2": (EMPTY_MASK,)})
    table.frame.loc["B-2"] = np.nan
    cohort = load_cohort(write_table(tmp_path), table, "rfs", Declaration())
    require_whole(cohort, 8)
    assert cohort.status["B-2"] == "not_predicted"
    assert cohort.predictors.loc["B-2", ["volume_total_ml", "suvmax_gtvp"]].isna().all()


def test_patients_without_images_are_told_with_the_reason(tmp_path):
    table = features(PATIENTS[2:], unmeasured={"A-2": "fold 3 is not finished: autoseg_train 3"})
    cohort = load_cohort(write_table(tmp_path), table, "rfs", Declaration())
    require_whole(cohort, 8)
    steps = {step.step: step for step in cohort.flow}
    assert steps["images"].names == ("A-1",)
    assert steps["image features"].names == ("A-2",)
    assert "fold 3 is not finished" in steps["image features"].why


@pytest.mark.parametrize("where", ["measured", "unmeasured"])
def test_images_of_unknown_patients_are_an_error(tmp_path, where):
    names = ["A_1", *PATIENTS[1:]]
    table = features(names) if where == "measured" else features(names[1:], unmeasured={"A_1": "no mask"})
    with pytest.raises(CohortError, match=r"1 of 8 patients with images: A_1. Did you mean A-1.*blank cells"):
        load_cohort(write_table(tmp_path), table, "rfs", Declaration())


def test_several_scans_of_a_patient_are_one_patient(tmp_path):
    scans = [ROWS[0].replace("A-1", "A-1c", 1), ROWS[0].replace("A-1", "A-1a", 1).replace(",61,", ",64,")]
    cohort = load_cohort(write_table(tmp_path, [*scans, *ROWS[1:]]), None, "rfs", Declaration())
    require_whole(cohort, 9)
    assert cohort.flow[1].names == ("A-1c",)
    assert cohort.predictors.loc["A-1", "Age"] == 64


def test_blank_outcomes_leave_the_cohort_by_a_step(tmp_path):
    rows = with_cell(1, "RFS", "", with_cell(0, "Relapse", "NA"))
    cohort = load_cohort(write_table(tmp_path, rows), None, "rfs", Declaration())
    require_whole(cohort, 8)
    assert [(step.step, step.names) for step in cohort.flow[1:]] == [("Relapse known", ("A-1",)), ("RFS known", ("A-2",))]


def test_patients_who_were_never_at_risk_are_excluded_where_that_is_declared(tmp_path):
    toml = tmp_path / "cohort.toml"
    toml.write_text('[targets.rfs]\nnot_at_risk = "exclude"\n', encoding="utf-8")
    cohort = load_cohort(write_table(tmp_path, with_cell(1, "RFS", "0")), None, "rfs", read_declaration(toml))
    require_whole(cohort, 8)
    assert cohort.flow[-1].names == ("A-2",)
    assert "not at risk at the end of radiotherapy" in cohort.flow[-1].why


@pytest.mark.parametrize(("values", "says"), [("72", "Weight: is 72.0 for all 8 patients"), ("", "Weight: holds no value for any")])
def test_constant_and_empty_columns_are_left_out_and_told(tmp_path, values, says):
    cohort = load_cohort(write_table(tmp_path, with_column("Weight", values)), None, "rfs", Declaration())
    require_whole(cohort, 8)
    assert "Weight" not in cohort.predictors
    assert any(note.startswith(says) for note in cohort.notes)


def test_notes_on_centres_and_unknown_columns(tmp_path):
    header = "case,patient,centre,Age,Gender,Scanner,M-stage,Weight,Relapse,RFS"
    rows = with_cell(7, "centre", "C", with_cell(0, "centre", ""))
    notes = load_cohort(write_table(tmp_path, rows, header), None, "rfs", Declaration()).notes
    assert "1 of 8 patients have no centre" in notes
    assert "centre(s) with a single patient: C; no claim can be made for them" in notes
    assert any("nobody said what they are" in note and note.endswith("Scanner") for note in notes)


def test_copies_of_a_patient_are_noticed(tmp_path):
    rows = [*ROWS, ROWS[4].replace("B-1", "B-5")]
    notes = load_cohort(write_table(tmp_path, rows), None, "rfs", Declaration()).notes
    assert any("B-5 and B-1" in note for note in notes)
    assert not any("same person" in note for note in load_cohort(write_table(tmp_path), None, "rfs", Declaration()).notes)


def test_competing_events_are_censored_and_counted(tmp_path):
    header = "case,patient,centre,Age,Gender,Death,M-stage,Weight,Relapse,RFS"
    toml = tmp_path / "cohort.toml"
    toml.write_text('[targets.rfs]\ncompeting = ["Death"]\n', encoding="utf-8")
    cohort = load_cohort(write_table(tmp_path, ROWS, header), None, "rfs", read_declaration(toml))
    assert cohort.outcome.event.sum() == 4
    assert "Death" not in cohort.predictors
    assert any("patients who had it without Relapse: 1." in note for note in cohort.notes)
    assert any("Death is blank in 2 rows without Relapse" in note for note in cohort.notes)


def test_infinite_features_and_shared_names_are_errors(tmp_path):
    table = features()
    table.frame.loc["A-2", "suvmax_gtvp"] = np.inf
    with pytest.raises(CohortError, match="'suvmax_gtvp' is infinite for A-2"):
        load_cohort(write_table(tmp_path), table, "rfs", Declaration())
    table = FeatureTable(features().frame.rename(columns={"suvmax_gtvp": "Age"}))
    with pytest.raises(CohortError, match=r"column\(s\) Age are in the table and among the image features"):
        load_cohort(write_table(tmp_path), table, "rfs", Declaration())


CELL = {
    "Relapse": st.sampled_from(["0", "1", "1.0", "", "NA"]),
    "RFS": st.sampled_from(["10", "800.25", "1e3", "", "nan"]),
    "Age": st.sampled_from(["50", "61.5", ""]),
    "HPV Status": st.sampled_from(["0", "1", "", "?"]),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data(), target=st.sampled_from(["rfs", "hpv"]))
def test_no_row_is_ever_lost(tmp_path_factory, data, target):
    rows = [
        ",".join([f"{centre}-{i}", f"{centre}-{i}", centre, *row.split(",")[3:]]) for i, row in enumerate(ROWS * 2) for centre in [row[0]]
    ]
    for column, cells in CELL.items():
        rows = with_column(column, data.draw(st.lists(cells, min_size=len(rows), max_size=len(rows))), tuple(rows))
    scans = data.draw(st.lists(st.sampled_from(rows), unique=True, max_size=3))
    rows = [*rows, *("z" + row for row in scans)]
    patients = [row.split(",")[1] for row in rows]
    with_images = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(patients), unique=True, min_size=4)))
    path = write_table(tmp_path_factory.mktemp("flow"), data.draw(st.permutations(rows)))
    try:
        cohort = load_cohort(path, None if with_images is None else features(with_images), target, Declaration())
    except CohortError as error:
        assume(not re.search("patient is left|are censored|was seen in one|two classes|no predictor", str(error)))
        raise
    require_whole(cohort, len(rows))
