"""T and N stage: read from a table, told apart where there is something to tell, and not where there is nothing."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from prognosis.commands import stage as command
from prognosis.commands.main import main
from prognosis.errors import CohortError, FitError, PrognosisModelError
from prognosis.features.table import FeatureTable
from prognosis.staging.cohort import STAGES, load_staged
from prognosis.staging.evaluate import NOBODY, balanced_accuracy, evaluate_stages, fit_final_stages
from prognosis.staging.model import StageModel, read_stage_model, write_stage_model
from prognosis.targets import Declaration

N_STAGE = STAGES["n-stage"]
PATIENTS = 36


def write_table(folder, stages, column="N-stage", centres="AB", **columns):
    with open(folder / "cases.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "patient", "centre", "Age", column, *columns])
        for k, stage in enumerate(stages):
            centre = centres[k % len(centres)]
            writer.writerow([f"c{k:02d}", f"p{k:02d}", centre, 50 + k % 17, stage, *(values[k] for values in columns.values())])
    return folder / "cases.csv"


def features(**columns):
    count = len(next(iter(columns.values())))
    return FeatureTable(pd.DataFrame(columns, index=pd.Index([f"p{k:02d}" for k in range(count)], name="patient"), dtype=float))


def test_stages_are_read_without_their_subdivisions(tmp_path):
    stages = ["N0", "N1", "N2b", "N2c", "n2", "NX", "", "N3", "0", "N1"]
    extra = {"T-stage": ["T1", "T2"] * 5, "Treatment": [0, 1] * 5}
    staged = load_staged(write_table(tmp_path, stages, **extra), None, N_STAGE, Declaration())
    assert [N_STAGE.classes[index] for index in staged.classes] == ["N0", "N1", "N2", "N2", "N2", "N3", "N0", "N1"]
    assert staged.count() == {"N0": 2, "N1": 2, "N2": 3, "N3": 1}
    assert list(staged.cohort.predictors) == ["Age"], "what is settled with the stage does not predict it"
    assert staged.cohort.flow[-1].removed == 2


def test_a_patient_with_several_scans_has_one_stage(tmp_path):
    """The first scan's row counts; the subdivisions of N2 are one stage, two stages of one patient are a contradiction."""
    stages = ["N2b", "N2c", "N0", "N1", "N1", "N0"]

    def load(stages):
        path = write_table(tmp_path, stages, centres="AAB", Weight=[60 + k for k in range(len(stages))])
        path.write_text(path.read_text().replace("c01,p01", "c01,p00"))
        return load_staged(path, None, N_STAGE, Declaration())

    staged = load(stages)
    assert staged.cohort.patients[0] == "p00"
    assert staged.count() == {"N0": 2, "N1": 2, "N2": 1, "N3": 0}
    with pytest.raises(CohortError, match="p00"):
        load(["N1", "N2", *stages[2:]])


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(CohortError, match=r"'N-stage': expected are N0, N1, N2, N3 or a blank; found row 3 \(patient p01\): 'advanced'"):
        load_staged(write_table(tmp_path, ["N0", "advanced", "N1"]), None, N_STAGE, Declaration())
    with pytest.raises(CohortError, match="has no column"):
        load_staged(write_table(tmp_path, ["T1", "T2"], column="T-stage"), None, N_STAGE, Declaration())
    with pytest.raises(FitError, match="N0 3, N1 1, N2 0, N3 0"):
        load_staged(write_table(tmp_path, ["N0", "N0", "N0", "N1"]), None, N_STAGE, Declaration())


def test_probabilities_by_hand():
    """P(>= N1) = 0.9 and 0.2, P(>= N2) = 0.3 and 0.5 (which counts as 0.2, for who is N2 is N1 or above), nobody in N3."""
    steps = {"N1": [0.9, 0.2], "N2": [0.3, 0.5]}
    told = {name: SimpleNamespace(probability=lambda frame, values=values: np.array(values)) for name, values in steps.items()}
    model = StageModel(N_STAGE.classes, (0.4, 0.55, 0.05, 0.0), told)
    found = model.probabilities(pd.DataFrame(index=range(2)))
    np.testing.assert_allclose(found, [[0.1, 0.6, 0.3, 0.0], [0.8, 0.0, 0.2, 0.0]])
    # beside their shares: 0.25, 1.09, 6 and 2, 0, 4: the rare N2 is what most raises the mean recall
    assert model.predict(pd.DataFrame(index=range(2))).tolist() == [2, 2]


def test_balanced_accuracy_with_weights_is_that_of_repeated_patients():
    rng = np.random.default_rng(3)
    known, predicted = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    weights = rng.integers(0, 3, (5, 60))
    for row, value in zip(weights, balanced_accuracy(known, predicted, weights.astype(float)), strict=True):
        assert value == pytest.approx(balanced_accuracy_score(np.repeat(known, row), np.repeat(predicted, row)))
    predicted[:10] = NOBODY
    found = balanced_accuracy(known, predicted, np.ones((1, 60)))[0]
    assert found == pytest.approx(balanced_accuracy_score(known[10:], predicted[10:])), "who has no prediction counts for nothing"


def planted(folder, signal):
    """Patients of three hospitals whose N stage is the number of their nodes, or has nothing to do with it."""
    rng = np.random.default_rng(4)
    nodes = rng.integers(0, 3, PATIENTS)
    stages = nodes if signal else rng.integers(0, 3, PATIENTS)
    table = write_table(folder, [f"N{stage}" for stage in stages], centres="ABC")
    measured = features(volume_gtvn_ml=5.0 * nodes + rng.random(PATIENTS))
    return load_staged(table, measured, N_STAGE, Declaration())


@pytest.mark.parametrize("signal", [True, False])
def test_it_tells_stages_apart_only_where_they_differ(tmp_path, signal):
    evaluation = evaluate_stages(planted(tmp_path, signal), seed=1, saw_centre=True, saw_patient=signal)
    found = evaluation.to_json()
    value = found["balanced_accuracy"]["ridge"]
    assert (found["rung"], found["chance"]) == ("centre", pytest.approx(1 / 3))
    assert (value["value"] > 0.85) if signal else (value["low"] < 1 / 3 + 0.1)
    assert sum(sum(row.values()) for row in found["confusion"].values()) == PATIENTS
    assert set(found["by_centre"]) == {"A", "B", "C"}
    assert "had seen these hospitals" in evaluation.text()
    assert ("segmentation_saw_patient: true" in evaluation.text()) is found["segmentation_saw_patient"] is signal
    assert "p0" not in json.dumps(found), "no names of patients"


def test_the_document(tmp_path):
    staged = planted(tmp_path, True)
    model = fit_final_stages(staged, seed=1)
    write_stage_model(tmp_path / "stage.json", model, {"patients": staged.count()})
    again = read_stage_model(tmp_path / "stage.json")
    frame = staged.cohort.predictors
    assert np.array_equal(again.probabilities(frame), model.probabilities(frame))
    np.testing.assert_allclose(model.probabilities(frame).sum(axis=1), 1)
    text = (tmp_path / "stage.json").read_text()
    (tmp_path / "stage.json").write_text(text.replace('"N1"', '"N2"', 1))
    with pytest.raises(PrognosisModelError, match="was changed after it was written"):
        read_stage_model(tmp_path / "stage.json")
    (tmp_path / "stage.json").write_text("{}")
    with pytest.raises(PrognosisModelError, match="is no stage model"):
        read_stage_model(tmp_path / "stage.json")


def test_command(tmp_path, capsys):
    planted(tmp_path, True)
    told = tmp_path / "told.json"
    with pytest.raises(SystemExit) as ended:
        main(["stage", "-d", str(tmp_path), "--no-features", "--target", "n-stage", "--json", str(told)])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "N stage at a hospital that the model has not seen (N0 " in out
    assert "not a medical device" in out
    folder = tmp_path / "autoseg-work" / "default" / "prognosis" / "n-stage"
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "stage.json"]
    assert json.loads(told.read_text())["result"]["n-stage"] == json.loads((folder / "evaluation.json").read_text())
    with pytest.raises(SystemExit) as ended:
        main(["stage", "-d", str(tmp_path), "--no-features", "--target", "t-stage"])
    assert ended.value.code == 2
    assert "has no column(s) 'T-stage'" in capsys.readouterr().err


def test_the_command_offers_the_stages_that_there_are():
    assert tuple(STAGES) == command.STAGES
