"""Held-out predictions as the figures want them, by hand-worked cases."""

import numpy as np
import pytest

from prognosis.errors import PrognosisModelError
from prognosis.report.held_out import HeldOut, calibration_points, labels_by_fold, risk_groups

HEADER = "patient,centre,rung,fold,model,risk,probability,threshold,cut,time_days,happened\n"


def held_out(fold, risk, probability, happened, time=None, cut=None):
    n = len(fold)
    nan = np.full(n, np.nan)
    return HeldOut(
        patient=np.array([f"P{k}" for k in range(n)], dtype=object),
        centre=np.array(["H"] * n, dtype=object),
        fold=np.array(list(fold), dtype=object),
        risk=np.array(risk, float),
        probability=np.array(probability, float),
        threshold=nan,
        cut=nan if cut is None else np.array(cut, float),
        time_days=nan if time is None else np.array(time, float),
        happened=np.array(happened, bool),
    )


def test_rows_of_one_rung_and_model_come_back(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text(
        HEADER
        + "A,H1,centre,H1,ridge,0.5,0.25,,0.1,100.5,1\nA,H1,centre,H1,volume,9,9,,9,100.5,1\n"
        + "A,H1,random,0,ridge,9,9,,9,100.5,1\nB,H2,centre,H2,ridge,-1,,,0.2,7.0,0\n"
    )
    found = HeldOut.read(path, "centre", "ridge")
    assert found.patient.tolist() == ["A", "B"]
    assert found.folds == ("H1", "H2")
    assert found.risk.tolist() == [0.5, -1]
    assert found.probability[0] == 0.25
    assert np.isnan(found.probability[1])
    assert found.happened.tolist() == [True, False]
    assert found.time_days.tolist() == [100.5, 7]


@pytest.mark.parametrize("text", [None, "patient,rung\nA,centre\n", HEADER + "A,H,centre,H,ridge,high,,,,,1\n"])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(PrognosisModelError, match="prognosis fit"):
        HeldOut.read(tmp_path / "predictions.csv", "centre", "ridge")


def test_each_fold_has_its_own_cut():
    groups = risk_groups(held_out("AABB", [1, 3, 1, 3], [0] * 4, [1, 0, 1, 0], time=[10, 20, 30, 40], cut=[2, 2, 0, 0]))
    assert groups["lower risk"][0].tolist() == [10]
    assert groups["higher risk"][0].tolist() == [20, 30, 40]
    assert groups["higher risk"][1].tolist() == [False, True, False]


def test_labels_go_by_fold():
    found = labels_by_fold(held_out("ABA", [0] * 3, [0.1, 0.2, 0.3], [1, 0, 1]))
    assert found["A"][0].tolist() == [True, True]
    assert found["A"][1].tolist() == [0.1, 0.3]


def test_calibration_of_labels_is_the_share_of_positives_in_groups_of_similar_predictions():
    probability = [0.9, 0.1, 0.8, 0.2, 0.9, 0.1, 0.8, 0.2, 0.7, 0.3]
    happened = [1, 0, 1, 0, 0, 0, 1, 1, 1, 0]
    # two groups of five: 0.1 0.1 0.2 0.2 0.3 with one positive, 0.7 0.8 0.8 0.9 0.9 with four
    assert calibration_points(held_out("A" * 10, [0] * 10, probability, happened), None)["A"] == [
        (pytest.approx(0.18), pytest.approx(0.2), 5),
        (pytest.approx(0.82), pytest.approx(0.8), 5),
    ]
    assert calibration_points(held_out("A" * 4, [0] * 4, [0.5] * 4, [1, 0, 1, 0]), None) == {"A": []}


def test_calibration_of_survival_counts_censored_patients_as_kaplan_and_meier_do():
    # event at 10, censored at 20, event at 30, two go on: S(40) = 4/5 * 2/3
    found = calibration_points(held_out("A" * 5, [0] * 5, [0.4] * 5, [1, 0, 1, 0, 0], time=[10, 20, 30, 50, 60]), 40.0)
    assert found["A"] == [(pytest.approx(0.4), pytest.approx(1 - 4 / 5 * 2 / 3), 5)]
    short = held_out("A" * 5, [0] * 5, [0.4] * 5, [1, 0, 1, 0, 0], time=[10, 20, 30, 35, 36])
    assert calibration_points(short, 40.0) == {"A": []}, "nobody was observed until the horizon"
