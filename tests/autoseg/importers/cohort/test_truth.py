import json

import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored

from autoseg.importers.cohort.centres import first_centres
from autoseg.importers.cohort.patients import simulate
from autoseg.importers.cohort.truth import HAZARDS, LOGITS, ceiling, ceiling_text, predictors, truth_columns, truth_document

THREE = first_centres(3)


@pytest.fixture(scope="module")
def many():
    patients = simulate(20_000, THREE, seed=8)
    return patients, predictors(patients)


def slope(y, x):
    return np.polyfit(x, y, 1)[0]


def test_what_is_observed_is_the_conditional_mean_of_the_truth(many):
    """The regression of a quantity on its conditional mean has slope 1, among patients with and without missing values alike."""
    patients, truth = many
    for rows in (patients.missing["hpv"], ~patients.missing["hpv"], patients.missing["habits"], ~patients.missing["habits"]):
        assert slope(truth["log_hazard"][rows], truth["log_hazard_observed"][rows]) == pytest.approx(1, abs=0.05)
        assert slope(truth["hpv_logit_within"][rows], truth["hpv_logit_observed_within"][rows]) == pytest.approx(1, abs=0.05)
    difference = truth["log_hazard"] - truth["log_hazard_observed"]
    assert abs(difference.mean()) < 0.03


def test_less_is_observed_than_there_is(many):
    patients, truth = many
    reached = ceiling(patients, 730.0, complete=True, block=1000)
    c, auc = reached["c_index"], reached["auc"]
    for kind in ("pooled", "within_centre"):
        assert 0.65 < c["log_hazard_observed"][kind]["value"] < c["log_hazard"][kind]["value"] - 0.01
        assert 0.7 < auc["hpv_logit_observed"][kind]["value"] < auc["hpv_logit"][kind]["value"] - 0.01
    # the intercept is all that a centre's prevalence gives, and within a centre it gives nothing
    assert auc["hpv_logit"]["pooled"]["value"] > auc["hpv_logit_within"]["pooled"]["value"] + 0.02
    assert auc["hpv_logit"]["within_centre"] == auc["hpv_logit_within"]["within_centre"]
    assert set(truth) == {*HAZARDS, *LOGITS}


def test_the_ceiling_is_the_concordance_of_recorded_rows():
    patients = simulate(400, THREE, seed=2)
    truth, reached = predictors(patients), ceiling(patients, 500.0)
    rows = ~patients.missing["outcome"]
    assert 0 < (~rows).sum() < 40
    time, event = patients.time_days[rows], patients.event[rows]
    for name in HAZARDS:
        risk = truth[name][rows]
        assert reached["c_index"][name]["pooled"]["value"] == pytest.approx(concordance_index_censored(event, time, risk)[0], abs=1e-12)
        at_horizon = concordance_index_censored(event & (time <= 500), np.minimum(time, 500), risk)[0]
        assert reached["c_index_at_horizon"][name]["pooled"]["value"] == pytest.approx(at_horizon, abs=1e-12)
    assert reached["with_outcome"] == rows.sum()
    assert reached["events"] == event.sum()
    assert reached["hpv_known"] == (~patients.missing["hpv"]).sum()


def test_blocks_are_compared_each_on_its_own():
    patients = simulate(300, THREE, seed=2)
    truth, reached = predictors(patients)["log_hazard"], ceiling(patients, 500.0, complete=True, block=100)
    parts = [slice(start, start + 100) for start in (0, 100, 200)]
    found = [concordance_index_censored(patients.event[part], patients.time_days[part], truth[part]) for part in parts]
    right, tied, all_pairs = (sum(values) for values in ([f[1] for f in found], [f[3] for f in found], [f[1] + f[2] + f[3] for f in found]))
    assert reached["c_index"]["log_hazard"]["pooled"] == {"value": pytest.approx((right + tied / 2) / all_pairs), "pairs": all_pairs}


def test_without_signal_the_ceiling_is_chance():
    document = truth_document(simulate(200, THREE, seed=3, signal=False))
    for part in (document["rows"], document["population"]):
        assert part["c_index"]["log_hazard"]["pooled"]["value"] == 0.5
        assert part["auc"]["hpv_logit"]["within_centre"]["value"] == 0.5
    # the shortcut stays: prevalence differs by centre
    assert document["population"]["auc"]["hpv_logit"]["pooled"]["value"] > 0.6
    assert set(document["coefficients"]["log_hazard"].values()) == {0}


def test_a_cohort_too_small_for_a_pair():
    document = truth_document(simulate(1, THREE, seed=3))
    assert document["rows"]["c_index"]["log_hazard"]["pooled"] == {"value": None, "pairs": 0}
    lines = ceiling_text(document).splitlines()
    assert "n/a" in lines[2]
    assert len({len(line) for line in lines}) == 1  # columns stand below each other
    assert json.loads(json.dumps(document, allow_nan=False))["population"]["patients"] == 20_000


def test_the_table_of_truth(many):
    patients, truth = many
    columns = truth_columns(patients)
    assert list(columns) == ["patient", "centre", *HAZARDS, *LOGITS, "time_days", "event", "hpv"]
    assert columns["centre"][:3] == ["SUD", "NOR", "EST"]
    assert columns["log_hazard"][7] == truth["log_hazard"][7]
    assert set(columns["event"]) == {0, 1}
