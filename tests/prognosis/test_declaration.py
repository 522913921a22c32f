"""cohort.toml and the shipped definitions: what they say together, and what is refused."""

from pathlib import Path

import pytest

from prognosis.columns import telling
from prognosis.declaration import read_declaration
from prognosis.errors import TargetError
from prognosis.targets import SHIPPED, Declaration, Target, means, resolve

RELAPSE = """
[table]
patient = "id"
centre = "hospital"
case = "scan"
decimal = ","
delimiter = "tab"
encoding = "cp1252"
header_rows = 2
missing = ["unknown", "not done"]

[columns]
subsite = "predictor"
"T" = { role = "predictor", kind = "categorical" }
"BW stop (kg)" = { role = "predictor", known_at_origin = true }
"PEG tube" = "post-baseline"
Age = { kind = "categorical" }

[targets.relapse]
kind = "survival"
title = "Relapse, death censored"
event = "relapse"
positive = true
negative = "no"
time = "months to relapse"
unit = "months"
origin = "diagnosis"
horizon = 24
competing = ["death"]
"""


@pytest.fixture
def declare(tmp_path):
    def call(text: str) -> Declaration:
        path = tmp_path / "cohort.toml"
        path.write_text(text, encoding="utf-8")
        return read_declaration(path)

    return call


def test_everything_that_can_be_said(declare):
    told = declare("\ufeff" + RELAPSE)
    assert (told.patient, told.centre, told.case) == ("id", "hospital", "scan")
    assert (told.decimal, told.delimiter, told.encoding, told.header_rows) == (",", "\t", "cp1252", 2)
    assert told.missing == ("unknown", "not done")
    target = told.target("relapse")
    assert target == Target(
        "relapse",
        "Relapse, death censored",
        "survival",
        event="relapse",
        positive="True",
        negative="no",
        competing=("death",),
        time="months to relapse",
        unit="months",
        origin="diagnosis",
        horizon_days=730.5,
    )
    assert [
        told.role(name) for name in ("subsite", "T", "BW stop (kg)", "PEG tube", "Age", "id", "hospital", "scan", "death", "other")
    ] == [
        *["predictor"] * 3,
        "post-baseline",
        "predictor",
        *["identifier", "centre", "identifier", "outcome", None],
    ]
    assert [told.kind(name) for name in ("T", "Age", "Gender", "Weight", "T-stage")] == [*["categorical"] * 3, "numeric", None]
    assert set(told.targets) == {"rfs", "hpv", "relapse"}


def test_a_block_of_a_shipped_target_replaces_what_it_names(declare):
    told = declare(
        '[targets.hpv]\nevent = "p16"\npositive = "pos"\nnegative = "neg"\nexcluded = []\n[targets.rfs]\nunit = "months"\nhorizon = 24\n'
    )
    hpv, rfs = told.target("hpv"), told.target("rfs")
    assert (hpv.event, hpv.positive, hpv.kind, hpv.title, hpv.excluded) == ("p16", "pos", "binary", "HPV status", ())
    assert (rfs.event, rfs.time, rfs.unit, rfs.horizon_days) == ("Relapse", "RFS", "months", 730.5)


# Column names as HECKTOR gave them out in 2022, 2025 and 2026, and what each is.
COLUMNS = {
    "identifier": ["PatientID", "Task 1", "Task 2"],
    "centre": ["CenterID"],
    "outcome": ["Relapse", "RFS"],
    "predictor": [
        *["Gender", "Age", "Weight", "Tobacco", "Alcohol", "Performance status", "HPV status (0=-, 1=+)", "Surgery", "Chemotherapy"],
        *["Tobacco Consumption", "Alcohol Consumption", "Performance Status", "Treatment", "M-stage", "HPV Status", "T-stage", "N-stage"],
    ],
}


@pytest.mark.parametrize(("role", "column"), [(role, column) for role, columns in COLUMNS.items() for column in columns])
def test_hecktors_columns_need_no_declaration(role, column):
    assert Declaration().role(column) == role
    assert Declaration().role(column.upper().replace(" ", "_")) == role


def test_hecktors_outcomes_are_found_in_every_year():
    rfs, hpv, path = SHIPPED["rfs"], SHIPPED["hpv"], Path("t.csv")
    assert resolve(["Age", "Relapse", "RFS"], rfs.time, rfs, path) == "RFS"
    assert resolve(["HPV status (0=-, 1=+)"], hpv.event, hpv, path) == "HPV status (0=-, 1=+)"
    assert resolve(["hpv_status"], hpv.event, hpv, path) == "hpv_status"
    assert means("hpv_status", ["HPV Status"])
    with pytest.raises(TargetError, match="both 'HPV_Status' and 'hpv status' mean that"):
        resolve(["HPV_Status", "hpv status"], hpv.event, hpv, path)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *[
            (name, "outcome")
            for name in ("Death_days", "vital status", "RelapseEvent", "Alive or Dead", "Overall Survival Censor", "OS", "PFS")
        ],
        *[(name, "outcome") for name in ("Locoregional", "Cause of Death", "Time to progression", "Date of recurrence")],
        *[(name, "follow-up") for name in ("Follow up duration (year)", "Last Contact Date", "days")],
        *[(name, "post-baseline") for name in ("BW stop treat (kg)", "Post-RT weight", "post_treatment_SUV", "salvage surgery")],
        *[
            (name, None)
            for name in ("Age", "T_stage", "Smoking History", "Prostate", "Afterload", "Weight", "Position", "SUVmax", "Oslo score")
        ],
    ],
)
def test_names_that_tell_of_what_comes_later(name, role):
    told = telling(name)
    assert (told and told[0]) == role


@pytest.mark.parametrize("name", ["relapse", "months to relapse", "DEATH", "Relapse", "RFS"])
def test_no_outcome_of_any_target_is_a_predictor_even_if_known(declare, name):
    line = f'"{name}" = {{ role = "predictor", known_at_origin = true }}\n'
    with pytest.raises(TargetError, match=rf'columns."{name}": is refused as a predictor: the outcome of the target (relapse|rfs) is read'):
        declare(RELAPSE.replace("[columns]\n", "[columns]\n" + line))


@pytest.mark.parametrize("name", ["Relapse", "RFS", "id", "hospital", "scan", "CenterID"])
def test_shipped_outcomes_and_identifiers_are_no_predictors_either(declare, name):
    rfs = '[targets.rfs]\nevent = "event"\ntime = "t"\n'
    with pytest.raises(TargetError, match=f'columns."{name}": is refused as a predictor'):
        declare(RELAPSE.replace("[columns]\n", f'[columns]\n"{name}" = "predictor"\n') + rfs)


@pytest.mark.parametrize(("name", "role"), [("Death_cause", "outcome"), ("last contact", "follow-up"), ("Post-RT weight", "post-baseline")])
def test_a_telling_name_is_refused_until_it_is_said_to_be_known(declare, name, role):
    with pytest.raises(TargetError, match=rf'refused as a predictor: its name .* Give it the role "{role}"; or, .*known_at_origin = true'):
        declare(f'[columns]\n"{name}" = "predictor"\n')
    assert declare(f'[columns]\n"{name}" = {{ role = "predictor", known_at_origin = true }}\n').role(name) == "predictor"


BAD = {
    "no toml": ("[columns]\nHPV Status = 1\n", "no valid TOML.*quotes"),
    "unknown section": ("[target.x]\n", "target: unknown; there are table, columns, targets. Did you mean targets"),
    "no section": ("columns = 3\n", r"columns: must be a section \[columns\], found 3"),
    "unknown field": ('[table]\npatients = "id"\n', "table.patients: unknown.*Did you mean patient"),
    "decimal": ("[table]\ndecimal = [1]\n", r'table.decimal: must be "." or ",", found \[1\]'),
    "delimiter": ('[table]\ndelimiter = "x"\n', "table.delimiter: must be"),
    "decimal and delimiter": ('[table]\ndecimal = ","\ndelimiter = ","\n', "separates the columns too"),
    "encoding": ('[table]\nencoding = "rot13"\n', "table.encoding: must be the name of an encoding"),
    "header rows": ("[table]\nheader_rows = 0\n", "table.header_rows: must be a number from 1 to 9, found 0"),
    "missing": ('[table]\nmissing = "unknown"\n', "table.missing: must be a list"),
    "role": ('[columns]\nAge = "covariate"\n', "'covariate' is no role; there are predictor, outcome, follow-up"),
    "column": ("[columns]\nAge = 3\n", 'columns."Age": must be a role'),
    "kind": ('[columns]\nAge = { kind = "integer" }\n', "kind: must be 'numeric' or 'categorical', found 'integer'"),
    "known": ('[columns]\nAge = { known_at_origin = "yes" }\n', "known_at_origin: must be true or false"),
    "column's field": ('[columns]\nAge = { rol = "predictor" }\n', "rol: unknown.*Did you mean role"),
    "target's name": ('[targets."a/b"]\nkind = "binary"\nevent = "x"\n', "targets.a/b: a target's name is made of letters"),
    "no target": ("[targets]\nrelapse = 1\n", r"targets.relapse: must be a section \[targets.relapse\]"),
    "no unit": (RELAPSE.replace('unit = "months"\n', ""), "targets.relapse.unit: is missing; it must be 'days', 'months', 'years'"),
    "no origin": (RELAPSE.replace('origin = "diagnosis"\n', ""), "targets.relapse.origin: is missing"),
    "unit": (RELAPSE.replace('"months"\n', '"weeks"\n'), "unit: must be 'days', 'months', 'years', found 'weeks'"),
    "horizon": (RELAPSE.replace("= 24", "= -1"), "horizon: must be a number above 0, in the target's unit, found -1"),
    "time of a label": ('[targets.p]\nkind = "binary"\nevent = "x"\ntime = "y"\n', "targets.p.time: belongs to survival targets only"),
    "another kind": ('[targets.rfs]\nkind = "binary"\n', "targets.rfs.kind: the shipped target rfs is survival"),
    "one column twice": (RELAPSE.replace('["death"]', '["Relapse"]'), "the column 'Relapse' cannot be two of"),
    "one value": (RELAPSE.replace('"no"', '"TRUE"'), "positive and negative are both 'True'"),
    "competing": (RELAPSE.replace('["death"]', '"death"'), "competing: must be a list of columns' names, found 'death'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_said(declare, name):
    text, says = BAD[name]
    with pytest.raises(TargetError, match=f"(?s)cohort.toml: .*{says}"):
        declare(text)


def test_all_that_is_wrong_is_told_at_once(declare):
    with pytest.raises(TargetError, match=r"(?s)3 problems:\n  - table.decimal.*\n  - columns.\"RFS\".*\n  - columns.\"Age\""):
        declare('[table]\ndecimal = "x"\n[columns]\nRFS = "predictor"\nAge = "x"\n')


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(TargetError, match="cohort.toml: cannot be read: No such file"):
        read_declaration(tmp_path / "cohort.toml")
    (tmp_path / "cohort.toml").write_bytes('[table]\npatient = "Größe"\n'.encode("latin-1"))
    with pytest.raises(TargetError, match="is no UTF-8 text"):
        read_declaration(tmp_path / "cohort.toml")
