"""One cohort written in the layout of each edition and imported again, through both commands."""

import csv
import json

import numpy as np
import pytest

from autoseg.commands import convert
from autoseg.dataset import Dataset
from autoseg.images import read_mask

COLUMNS = {
    "2022": (
        *("Task 1", "Task 2", "CenterID", "Gender", "Age", "Weight", "Tobacco", "Alcohol", "Performance status", "HPV status (0=-, 1=+)"),
        *("Surgery", "Chemotherapy", "Relapse", "RFS"),
    ),
    "2025": (
        *("CenterID", "Age", "Gender", "Tobacco Consumption", "Alcohol Consumption", "Performance Status", "Treatment", "M-stage"),
        *("Relapse", "RFS", "HPV Status"),
    ),
    "2026": (
        *("CenterID", "Age", "Gender", "Tobacco Consumption", "Alcohol Consumption", "HPV Status", "Relapse", "RFS", "T-stage", "N-stage"),
    ),
}
NEW = {"2022": "hecktor2022_testing", "2025": "hecktor2025_new", "2026": "hecktor2026_new"}
PATIENTS = 4


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        convert.main([str(argument) for argument in arguments])
    assert ended.value.code == 0


def rows(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Edition -> (the cohort's folder, the dataset, what the import told)."""
    folder = tmp_path_factory.mktemp("editions")
    for edition in COLUMNS:
        source, out, told = folder / f"source{edition}", folder / f"Dataset{edition}", folder / f"{edition}.json"
        run("phantom", source, "--edition", edition, "--patients", PATIENTS, "--new-patients", 1, "--seed", 5, "--workers", 0)
        training = source / f"hecktor{edition}_training"
        run("hecktor", training, out, "--new", source / NEW[edition], "--workers", 0, "--json", told)
    return {
        edition: (folder / f"source{edition}", folder / f"Dataset{edition}", json.loads((folder / f"{edition}.json").read_text())["result"])
        for edition in COLUMNS
    }


@pytest.mark.parametrize("edition", COLUMNS)
def test_every_edition_is_recognised_and_imported_whole(imported, edition):
    source, out, told = imported[edition]
    assert (told["edition"], told["cases"], told["new_cases"], told["failures"]) == (edition, PATIENTS, 1, [])
    assert not any("not used" in note or "no row" in note or "no images" in note for note in told["notes"]), told["notes"]
    truth = {row["patient"]: row["centre"] for row in rows(source / "truth.csv")}
    dataset = Dataset.open(out)
    assert {case.patient: case.centre for case in dataset.cases} == truth
    table = rows(out / "cases.csv")
    assert tuple(table[0])[3:] == COLUMNS[edition]
    new = rows(out / "casesTs.csv")
    assert len(new) == 1
    assert {"Relapse", "RFS", "T-stage"}.isdisjoint(new[0])


def test_the_patients_are_the_same_in_each(imported):
    masks, outcomes, habits = [], [], []
    for edition, (_, out, _) in imported.items():
        table = rows(out / "cases.csv")
        outcomes.append([(row["case"], row["Relapse"], row["RFS"], row["Age"]) for row in table])
        habits.append([row["Tobacco" if edition == "2022" else "Tobacco Consumption"] for row in table])
        masks.append([read_mask(case.label).array for case in Dataset.open(out).cases])
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert habits[0] == habits[1] == habits[2]
    for first, *others in zip(*masks, strict=True):
        assert set(np.unique(first)) >= {0, 1}
        assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("edition", COLUMNS)
def test_the_targets_find_their_columns(tmp_path, edition):
    """Also HPV status (0=-, 1=+), and the outcomes of 2022's second table."""
    from prognosis.cohort import load_cohort
    from prognosis.targets import Declaration

    run("phantom", tmp_path / "tables", "--edition", edition, "--patients", 60, "--table-only", "--workers", 0)
    for target, column in (("rfs", "Relapse"), ("hpv", None)):
        cohort = load_cohort(tmp_path / "tables" / "cases.csv", None, target, Declaration())
        known = [row for row in rows(tmp_path / "tables" / "cases.csv") if column is None or row[column]]
        assert 20 < len(cohort) <= len(known)
        assert "Task 2" not in cohort.predictors.columns


def test_stages_follow_sizes_and_counts():
    """By AJCC's limits, but for the tenth that is misread."""
    from autoseg.importers.cohort.centres import first_centres
    from autoseg.importers.cohort.patients import simulate
    from autoseg.importers.cohort.recorded import n_stage, t_stage, weight_kg

    people = simulate(4000, first_centres(3), 1)
    t, n = np.array(t_stage(people)), np.array(n_stage(people))
    large = people.gtvp_ml > 33.6  # a sphere of 40 mm
    assert np.isin(t[large], ["T3", "T4"]).mean() == pytest.approx(0.96, abs=0.02)
    assert (n[people.node_count == 0] == "N0").mean() == pytest.approx(0.95, abs=0.02)
    assert (n[people.node_count > 1] == "N2").mean() == pytest.approx(0.90, abs=0.02)
    assert set(n) == {"N0", "N1", "N2", "N3"}
    assert (weight_kg(people) == weight_kg(simulate(4001, first_centres(3), 1))[:4000]).all(), "a patient does not depend on the others"
    assert weight_kg(people).mean() == pytest.approx(78, abs=1)


def test_every_part_knows_the_same_editions():
    from autoseg.importers.cohort.layouts import LAYOUTS
    from autoseg.importers.hecktor.layouts import EDITIONS

    assert tuple(LAYOUTS) == tuple(EDITIONS) == convert.EDITIONS
